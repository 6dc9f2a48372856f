"""Several starts of coordinate ascent as fits of their own, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from vitools.engines.cavi.outcome import of_starts
from vitools.jobs import each
from vitools.posterior import FactorisedPosterior, MixturePosterior, ProductPosterior, Status

Fit = FactorisedPosterior | MixturePosterior | ProductPosterior


def best_of_jobs(fit: Callable[..., Fit], seeds: Sequence[int], jobs: int | None) -> Fit:
    """The best of the fits of single starts, made side by side; Ctrl-C keeps the best that is done.

    What is compared is the bound that the sweeps of a start reached, as where all run as one batch.
    """
    began = time.perf_counter()
    done: dict[int, Fit] = {}
    interrupted = False
    try:
        for seed, found in each(partial(_from_seed, fit), seeds, jobs):
            done[seed] = found
    except KeyboardInterrupt:
        if not done:
            raise
        interrupted = True
    bounds = {seed: _reached(done[seed]) for seed in seeds if seed in done}
    best = done[max(bounds, key=lambda seed: bounds[seed])]
    first, *rest = best.detail.split("; ")
    best.detail = "; ".join([first + of_starts(list(bounds.values())), *rest])
    if not isinstance(best, ProductPosterior):
        best.restart_bounds = list(bounds.values())
    best.seed, best.seconds = seeds[0], time.perf_counter() - began
    if interrupted:
        best.status = Status.INTERRUPTED
    return best


def _from_seed(fit: Callable[..., Fit], seed: int) -> Fit:
    return fit(seed=seed)


def _reached(fit: Fit) -> float:
    """Of a single start; where one is not told apart (a lattice), the bound of the whole."""
    bounds = getattr(fit, "restart_bounds", ())
    if bounds:
        return float(bounds[0])
    assert fit.bound is not None
    return fit.bound
