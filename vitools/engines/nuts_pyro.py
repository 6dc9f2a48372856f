"""Pyro's no-U-turn sampler on a given log density: needs nothing but Pyro."""

from typing import Any

import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from vitools.engines.chains import Chains, LogDensity, Plan
from vitools.isolation import seeded


def sample(density: LogDensity, starts: list[Tensor], plan: Plan) -> Chains:
    """One chain after another, each from its start and with a seed of its own."""
    potential = _potential(density)
    chains: list[Tensor] = []
    divergences = 0
    for number, start in enumerate(starts):
        drawn: list[Tensor] = []
        done = number * (plan.num_warmup + plan.num_samples)

        def hook(_: Any, point: dict[str, Tensor], stage: str, *__: Any, drawn=drawn, done=done):
            if stage == "Sample":
                drawn.append(point["u"])
            hook.count += 1
            plan.report(done + hook.count)

        hook.count = 0  # type: ignore[attr-defined]
        try:
            with seeded(plan.seed * 1000 + number):
                sampler = MCMC(
                    NUTS(potential_fn=potential),
                    num_samples=plan.num_samples,
                    warmup_steps=plan.num_warmup,
                    initial_params={"u": start},
                    disable_progbar=True,
                    hook_fn=hook,
                )
                sampler.run()
        except KeyboardInterrupt:
            partial = [torch.stack(drawn)] if drawn else []
            return Chains.interrupted(chains + partial, plan.num_samples, divergences)
        chains.append(sampler.get_samples()["u"].detach())
        divergences += sum(len(v) for v in sampler.diagnostics()["divergences"].values())
    return Chains(torch.stack(chains), divergences)


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
