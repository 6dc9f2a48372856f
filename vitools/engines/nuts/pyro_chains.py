"""Pyro's no-U-turn sampler on a given log density: needs nothing but Pyro.

It spends most of its time on its trees rather than on a compiled density (0.3 ms and 0.05 ms a
leapfrog step of a small model), so few steps are what makes it quick: a dense mass matrix, where the
warm-up is long enough to learn one, keeps correlated latents (intercept and slope) from asking for
deep trees.
"""

from typing import Any

import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from vitools.engines.nuts.chains import ChainPlan, Chains, LogDensity
from vitools.isolation import seeded

DRAWS_PER_COORDINATE = 10
"""Warm-up transitions for each coordinate from which on a dense mass matrix can be learnt."""


def sample(density: LogDensity, starts: list[Tensor], plan: ChainPlan) -> Chains:
    """One chain after another, each from its start and with a seed of its own."""
    potential = _potential(density)
    is_dense = plan.num_warmup >= DRAWS_PER_COORDINATE * len(starts[0])
    chains: list[_Chain] = []
    is_interrupted = False
    try:
        for number, start in enumerate(starts):
            chain = _Chain(plan, number * (plan.num_warmup + plan.num_samples))
            chains.append(chain)
            with seeded(plan.seed * 1000 + number):
                sampler = MCMC(
                    NUTS(potential_fn=potential, full_mass=is_dense),
                    num_samples=plan.num_samples,
                    warmup_steps=plan.num_warmup,
                    initial_params={"u": start},
                    disable_progbar=True,
                    hook_fn=chain,
                )
                sampler.run()
            chain.divergences = sum(len(v) for v in sampler.diagnostics()["divergences"].values())
    except KeyboardInterrupt:
        is_interrupted = True
    drawn = [torch.stack(chain.drawn) for chain in chains if chain.drawn]
    divergences = sum(chain.divergences for chain in chains)
    if is_interrupted:
        return Chains.interrupted(drawn, plan.num_samples, divergences)
    return Chains(torch.stack(drawn), divergences)


class _Chain:
    """Keeps the draws of a chain as they come and counts its transitions from ``done``."""

    def __init__(self, plan: ChainPlan, done: int) -> None:
        self.plan, self.done = plan, done
        self.drawn: list[Tensor] = []
        self.divergences = 0

    def __call__(self, _: Any, point: dict[str, Tensor], stage: str, *__: Any) -> None:
        if stage == "Sample":
            self.drawn.append(point["u"].detach())
        self.done += 1
        self.plan.report(self.done)


def _potential(density: LogDensity) -> Any:
    """-log density of ``{"u": point}``, whose backward pass is the density's own gradient."""

    class Potential(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, vector: Tensor) -> Tensor:
            value, gradient = density(vector.detach())
            ctx.save_for_backward(gradient)
            return -value

        @staticmethod
        def backward(ctx: Any, *upstream: Any) -> Any:
            (gradient,) = ctx.saved_tensors
            return -gradient * upstream[0]

    return lambda point: Potential.apply(point["u"])
