"""nutpie's no-U-turn sampler, written in Rust, on a given log density.

It adapts its mass matrix from draws and gradients: a diagonal, and the few directions that this
leaves far from round (a regression on uncentred columns has some). The density is called from a
thread of its own, one chain after another, so that a seed's draws do not depend on the machine's
load. Reference: https://github.com/pymc-devs/nutpie.
"""

import importlib.util
import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitools.engines.nuts.chains import ChainPlan, Chains, LogDensity

POLL_SECONDS = 0.2
MOST_DIVERGENT = 0.1
"""Share of divergent transitions beyond which an adaptation has failed."""

Array = NDArray[np.float64]


def is_installed() -> bool:
    """Whether nutpie can be imported (the extra ``vitools[nutpie]``)."""
    return importlib.util.find_spec("nutpie") is not None


def sample(density: LogDensity, starts: list[Tensor], plan: ChainPlan) -> Chains:
    """All chains, each from its start; what the density raises is raised here.

    From a start so far out that the first draws say nothing of the bulk's directions, estimates of
    them go astray and most transitions diverge: then the chains are run with a diagonal alone.
    """
    found = _run(density, starts, plan, low_rank=True)
    if found.is_interrupted or found.divergences <= MOST_DIVERGENT * found.draws[..., 0].numel():
        return found
    return _run(density, starts, plan, low_rank=False)


def _run(density: LogDensity, starts: list[Tensor], plan: ChainPlan, *, low_rank: bool) -> Chains:
    import nutpie
    from nutpie.compiled_pyfunc import from_pyfunc

    like = starts[0]
    size = len(like)
    failures: list[BaseException] = []
    done = 0

    def make_density() -> Callable[[Array], tuple[float, Array]]:
        def log_density(point: Array) -> tuple[float, Array]:
            try:
                value, gradient = density(torch.from_numpy(point).to(like))
            except BaseException as failure:  # a Rust thread would swallow it; raised again below
                failures.append(failure)
                raise
            return float(value), gradient.double().cpu().numpy()

        return log_density

    def make_keep(*_: Any) -> Callable[[Array], dict[str, Array]]:
        def keep(point: Array) -> dict[str, Array]:
            nonlocal done
            done += 1
            return {"u": point}

        return keep

    order = itertools.cycle(starts)  # a chain whose start fails tries another
    model = from_pyfunc(
        size,
        make_density,
        make_keep,
        [np.dtype("float64")],
        [(size,)],
        ["u"],
        make_initial_point_fn=lambda _: next(order).double().cpu().numpy(),
    )
    sampler = nutpie.sample(
        model,
        draws=plan.num_samples,
        tune=plan.num_warmup,
        chains=len(starts),
        cores=1,
        seed=plan.seed,
        progress_bar=False,
        blocking=False,
        return_raw_trace=True,
        low_rank_modified_mass_matrix=low_rank,
    )
    trace, interrupted = None, False
    try:
        while trace is None:
            with suppress(TimeoutError):
                trace = sampler.wait(timeout=POLL_SECONDS)
            plan.report(done)
    except KeyboardInterrupt:
        trace, interrupted = sampler.abort(), True
    except BaseException as failure:
        sampler.cancel()
        raise (failures[0] if failures else failure) from None
    if failures:
        raise failures[0]
    chains, divergences = _read(trace, size)
    if interrupted:
        return Chains.interrupted([c.to(like) for c in chains], plan.num_samples, divergences)
    return Chains(torch.stack(chains).to(like), divergences)


def _read(trace: Any, size: int) -> tuple[list[Tensor], int]:
    """Draws ``[n, P]`` of each chain after warm-up, and divergences, from arrow batches."""
    import pyarrow

    chains, divergences = [], 0
    for draws, statistics in zip(*trace.get_arrow_trace(), strict=True):
        column, tuning, diverging = (
            pyarrow.array(batch.column(name))
            for batch, name in (
                (draws, "u"),
                (statistics, "tuning"),
                (statistics, "diverging"),
            )
        )
        kept = ~tuning.to_numpy(zero_copy_only=False)
        points = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
        chains.append(torch.from_numpy(points[kept]))
        divergences += int(diverging.to_numpy(zero_copy_only=False)[kept].sum())
    return chains, divergences
