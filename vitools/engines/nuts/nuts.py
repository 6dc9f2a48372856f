"""The no-U-turn sampler as reference (Hoffman & Gelman 2014), run by nutpie or by Pyro."""

import time
from collections.abc import Callable
from typing import Literal

from torch import Tensor

from vitools.engines.edges import edge_words
from vitools.engines.held_params import held_params
from vitools.engines.nuts import nutpie_chains, pyro_chains
from vitools.engines.nuts.chains import ChainPlan, Chains, LogDensity, WhitenedSpace
from vitools.engines.preflight.preflight import check_start
from vitools.engines.progress import Listener, Progress, ProgressCallback, listener
from vitools.engines.start_values import wrong_start
from vitools.errors import NotSupportedError, OptionError
from vitools.graphs.compiled import Compile
from vitools.posterior import DrawsPosterior, History, Posterior, Status
from vitools.posterior.mixing import FEWEST_DRAWS, measure_mixing
from vitools.problem import Problem, check_problem
from vitools.problem.sites import nearest
from vitools.whole_numbers import check_seed, check_whole

EVALUATIONS = 10  # of the density in a transition, as trees of depth 3 to 4 take
SAMPLERS = ("auto", "nutpie", "pyro")


def nuts(
    problem: Problem,
    *,
    num_samples: int = 1000,
    num_warmup: int = 1000,
    num_chains: int = 4,
    start: Posterior | Literal["prior"] | None = None,
    sampler: str = "auto",
    compile: Compile = "auto",
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> DrawsPosterior:
    """Draw from p(θ | x), discrete latents summed out, by Hamiltonian dynamics in ℝ^P.

    The status is SAMPLED when rank-normalised split R-hat is below 1.05 and the effective sample
    sizes of bulk and tails above 50 per chain for every coordinate (of the model's invariants where it carries some) and
    at most 1 in 100 transitions diverged; NOT_MIXED otherwise.

    Args:
        start: a fit whose draws the chains start from and whose spread scales the space
            (as Stan does with Pathfinder): no time is lost on the way to the bulk, but
            modes that the fit does not know stay unknown. ``"prior"`` or left out: draws from the prior.
        sampler: ``"nutpie"`` (Rust, the extra ``vitools[nutpie]``), ``"pyro"``, or ``"auto"``: the
            first where it is installed.
        compile: ``"auto"`` compiles the density where so many transitions repay it (and a C++
            compiler is found), ``True`` always, ``False`` never.

    Example:
        >>> import torch
        >>> from vitools import Problem, nuts
        >>> from vitools.models import coin
        >>> problem = Problem(coin.model, torch.tensor([1.0, 1.0, 0.0]))
        >>> fit = nuts(problem, num_samples=300, num_warmup=200, num_chains=2)
        >>> fit.status.label
        'sampled'
    """
    progress = listener(progress)
    check_whole("num_samples", num_samples, FEWEST_DRAWS)
    check_whole("num_warmup", num_warmup, 1)
    check_whole("num_chains", num_chains, 1)
    check_seed(seed)
    check_problem(problem, "nuts()")
    problem.refuse_unlisted("nuts()")
    if not problem.continuous:
        raise NotSupportedError(
            f"model '{problem.name}' has only discrete latents; NUTS needs continuous ones. "
            "Use exact(problem)."
        )
    if isinstance(start, Posterior):
        check_start(problem, start)
    elif start not in (None, "prior"):
        raise wrong_start("nuts", start)
    fit = start if isinstance(start, Posterior) else None
    draw_chains = _sampler(sampler)
    held = held_params(problem, "nuts")
    began = time.perf_counter()
    space = WhitenedSpace(problem, fit, seed)
    starts = [space.start_of_chain(i, seed * 1000 + i) for i in range(num_chains)]
    total = num_chains * (num_warmup + num_samples)
    plan = ChainPlan(num_samples, num_warmup, seed, _reporter(progress, total, began))
    density = space.log_density_and_gradient(compile, total * EVALUATIONS)
    chains = draw_chains(density, starts, plan)
    vectors = space.centre + space.scale * chains.draws
    values = space.to_values(vectors)
    mixing = measure_mixing(problem, values, chains.divergences)
    status = Status.INTERRUPTED if chains.is_interrupted else mixing.status
    further = f", started from {fit.engine}" if fit is not None else ""
    return DrawsPosterior(
        problem,
        values,
        rhat=mixing.rhat,
        ess=mixing.ess,
        divergences=mixing.divergences,
        engine="nuts",
        status=status,
        detail="; ".join([f"{mixing}{further}", *_edges(problem, mixing.divergences), *held]),
        history=History(),
        seconds=time.perf_counter() - began,
        seed=seed,
    )


def _edges(problem: Problem, divergences: int) -> list[str]:
    """Why steps that cross an edge diverge: the chain stays where it was, and is right but slow."""
    return [edge_words(problem)] if divergences and problem.moving_ends else []


def _sampler(name: str) -> Callable[[LogDensity, list[Tensor], ChainPlan], Chains]:
    if name not in SAMPLERS:
        raise OptionError(
            f"sampler: expected one of {', '.join(SAMPLERS)}, got {name!r}."
            f"{nearest(name, SAMPLERS)}"
        )
    if name == "pyro" or (name == "auto" and not nutpie_chains.is_installed()):
        return pyro_chains.sample
    if not nutpie_chains.is_installed():
        raise NotSupportedError(
            "sampler='nutpie' needs the package nutpie: pip install 'vitools[nutpie]', or leave "
            "sampler out to use Pyro's."
        )
    return nutpie_chains.sample


def _reporter(progress: Listener | None, total: int, began: float) -> Callable[[int], None]:
    def report(done: int) -> None:
        if progress:
            seconds = time.perf_counter() - began
            progress(Progress("nuts", done, total, float("nan"), seconds))

    return report
