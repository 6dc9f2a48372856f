"""The no-U-turn sampler as reference (Hoffman & Gelman 2014), run by Pyro."""

import time
from collections.abc import Callable
from typing import Any

import torch
from pyro.infer import MCMC, NUTS
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from vitools.engines.graph import record
from vitools.engines.guide_check import check_start
from vitools.engines.loop import Progress, ProgressCallback
from vitools.errors import NotSupportedError, OptionError
from vitools.isolation import seeded
from vitools.posterior import DrawsPosterior, History, Posterior, Status
from vitools.problem import Problem
from vitools.unconstrained import UnconstrainedSpace

RHAT_LIMIT = 1.05
ESS_PER_CHAIN = 50
FEWEST_DRAWS = 4  # split R-hat needs two draws in each half


def nuts(
    problem: Problem,
    *,
    num_samples: int = 1000,
    num_warmup: int = 1000,
    num_chains: int = 4,
    start: Posterior | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> DrawsPosterior:
    """Draw from p(θ | x), discrete latents summed out, by Hamiltonian dynamics in ℝ^P.

    The status is SAMPLED when split R-hat is below 1.05 and the effective sample size above
    50 per chain for every coordinate (of the model's invariants where it carries some) and
    at most 1 in 100 transitions diverged; NOT_MIXED otherwise.

    Args:
        start: a fit whose draws the chains start from and whose spread scales the space
            (as Stan does with Pathfinder): no time is lost on the way to the bulk, but
            modes that the fit does not know stay unknown. Draws from the prior if omitted.

    Example:
        >>> import torch
        >>> from vitools import Problem, nuts
        >>> from vitools.models import coin
        >>> problem = Problem(coin.model, torch.tensor([1.0, 1.0, 0.0]))
        >>> fit = nuts(problem, num_samples=300, num_warmup=200, num_chains=2)
        >>> fit.status.label
        'sampled'
    """
    if min(num_samples, num_warmup, num_chains) < 1:
        raise OptionError("expected num_samples, num_warmup and num_chains of at least 1.")
    if num_samples < FEWEST_DRAWS:
        raise OptionError(f"expected num_samples of at least {FEWEST_DRAWS}, got {num_samples}.")
    if not problem.continuous:
        raise NotSupportedError(
            f"model '{problem.name}' has only discrete latents; NUTS needs continuous ones. "
            "Use exact(problem)."
        )
    if start is not None:
        check_start(problem, start)
    began = time.perf_counter()
    space = _WhitenedSpace(problem, start, seed)
    potential = _potential(space)
    chains: list[Tensor] = []
    divergences = 0
    interrupted = False
    total = num_chains * (num_warmup + num_samples)
    for chain in range(num_chains):
        done = chain * (num_warmup + num_samples)
        hook = _hook(progress, done, total, began)
        chain_seed = seed * 1000 + chain
        try:
            first = space.start_of_chain(chain, chain_seed)
            draws, diverged = _chain(first, potential, num_samples, num_warmup, chain_seed, hook)
        except KeyboardInterrupt:
            if not chains:
                raise
            interrupted = True
            break
        chains.append(draws)
        divergences += diverged
    vectors = space.centre + space.scale * torch.stack(chains)
    values = space.to_values(vectors)
    rhat, ess = _mixing(problem, values)
    status = Status.INTERRUPTED if interrupted else _judge(rhat, ess, divergences, vectors)
    return DrawsPosterior(
        problem,
        values,
        rhat=rhat,
        ess=ess,
        divergences=divergences,
        engine="nuts",
        status=status,
        detail=_mixing_words(rhat, ess)
        + (f", {divergences} divergences" if divergences else "")
        + (f", started from {start.engine}" if start is not None else ""),
        history=History(),
        seconds=time.perf_counter() - began,
        seed=seed,
    )


class _WhitenedSpace(UnconstrainedSpace):
    """u = centre + scale · v, so that a unit mass matrix suits v from the first step."""

    def __init__(self, problem: Problem, start: Posterior | None, seed: int) -> None:
        super().__init__(problem)
        self.starts: Tensor | None = None
        self.centre, self.scale = (
            torch.zeros((), dtype=self.dtype),
            torch.ones((), dtype=self.dtype),
        )
        if start is not None:
            draws = self.from_values(start.sample(200, seed)).to(self.dtype)
            self.centre = draws.mean(0)
            self.scale = draws.std(0).clamp(min=1e-6)
            self.starts = (draws - self.centre) / self.scale

    def start_of_chain(self, chain: int, seed: int) -> Tensor:
        if self.starts is not None:
            return self.starts[chain % len(self.starts)]
        return self.initial_point(seed)

    def log_density_at(self, vector: Tensor) -> Tensor:
        return super().log_density_at(self.centre + self.scale * vector)


def _potential(space: _WhitenedSpace) -> Callable[[dict[str, Tensor]], Tensor]:
    """-log density, differentiable through a gradient recorded once as a graph."""

    def value_and_gradient(vector: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = vector.detach().requires_grad_()
            value = -space.log_density_at(leaf)
            (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient

    example = space.start_of_chain(0, 0)
    recorded = record(value_and_gradient, (example,), f"nuts on model '{space.problem.name}'")

    class Potential(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, vector: Tensor) -> Tensor:
            value, gradient = recorded(vector.detach())
            ctx.save_for_backward(gradient)
            return value

        @staticmethod
        def backward(ctx: Any, *upstream: Any) -> Any:
            (gradient,) = ctx.saved_tensors
            return gradient * upstream[0]

    return lambda point: Potential.apply(point["u"])


def _chain(
    start: Tensor,
    potential: Callable[[dict[str, Tensor]], Tensor],
    num_samples: int,
    num_warmup: int,
    seed: int,
    hook: Callable[..., None],
) -> tuple[Tensor, int]:
    with seeded(seed):
        kernel = NUTS(potential_fn=potential)
        sampler = MCMC(
            kernel,
            num_samples=num_samples,
            warmup_steps=num_warmup,
            initial_params={"u": start},
            disable_progbar=True,
            hook_fn=hook,
        )
        sampler.run()
    diverged = sampler.diagnostics()["divergences"]
    return sampler.get_samples()["u"].detach(), sum(len(v) for v in diverged.values())


def _hook(
    progress: ProgressCallback | None, done: int, total: int, began: float
) -> Callable[..., None]:
    count = 0

    def hook(*_: Any) -> None:
        nonlocal count
        count += 1
        if progress is not None:
            seconds = time.perf_counter() - began
            progress(Progress("nuts", done + count, total, float("nan"), seconds))

    return hook


def _mixing(
    problem: Problem, values: dict[str, Tensor]
) -> tuple[dict[str, float], dict[str, float]]:
    """Worst split R-hat and effective sample size per site (or invariant) over its entries."""
    judged = problem.invariants(values) if problem.invariants else values
    rhat, ess = {}, {}
    for name, draws in judged.items():
        flat = draws.flatten(2) if draws.dim() > 2 else draws.unsqueeze(-1)
        varying = flat.flatten(0, 1).std(0) != 0  # NaN varies: it must not pass for a constant
        if not bool(varying.any()):  # an entry fixed by definition, e.g. a total of one
            continue
        flat = flat[..., varying].double()
        rhat[name] = float(split_gelman_rubin(flat, 0, 1).max())
        ess[name] = float(effective_sample_size(flat, 0, 1).min())
    return rhat, ess


def _mixing_words(rhat: dict[str, float], ess: dict[str, float]) -> str:
    if not rhat:
        return "no chain moved"
    return f"R-hat {max(rhat.values()):.2f}, ESS {min(ess.values()):.0f}"


def _judge(
    rhat: dict[str, float], ess: dict[str, float], divergences: int, vectors: Tensor
) -> Status:
    chains, draws = vectors.shape[:2]
    good = (
        bool(rhat)
        and all(value < RHAT_LIMIT for value in rhat.values())
        and all(value > ESS_PER_CHAIN * chains for value in ess.values())
        and divergences <= chains * draws / 100
    )
    return Status.SAMPLED if good else Status.NOT_MIXED
