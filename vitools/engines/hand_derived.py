"""A model's own hand-derived coordinate ascent, presented as any other fit.

A model function offers it as an attribute, ``model.hand_derived_cavi``: a function of the
model's arguments whose result has ``factors()`` (``{site or (site, …):
distribution}``), ``elbo_history`` and ``seconds`` (one entry a sweep) and ``converged``.
"""

import time
from itertools import accumulate
from typing import Any

from vitools.errors import NotSupportedError
from vitools.posterior import FactorisedPosterior, History, Status
from vitools.problem import Problem


def hand_derived(problem: Problem, *, seed: int = 0, **options: Any) -> FactorisedPosterior:
    """Run ``problem.model.hand_derived_cavi`` on the problem's data.

    Args:
        options: the derivation's own, e.g. ``factorisation="joint"`` for the two dice.
    """
    derivation = getattr(problem.model, "hand_derived_cavi", None)
    if derivation is None:
        raise NotSupportedError(
            f"model '{problem.name}' carries no hand-derived updates; cavi() derives them from "
            "the model itself."
        )
    start = time.perf_counter()
    result = derivation(*problem.args, **problem.kwargs, seed=seed, **options)
    seconds = time.perf_counter() - start
    sweeps = len(result.elbo_history)
    history = History(
        list(range(1, sweeps + 1)), list(result.elbo_history), list(accumulate(result.seconds))
    )
    return FactorisedPosterior(
        problem,
        result.factors(),
        result.elbo_history[-1],
        engine="cavi by hand",
        status=Status.CONVERGED if result.converged else Status.STOPPED_AT_LIMIT,
        detail=f"{sweeps} sweeps",
        history=history,
        seconds=seconds,
        seed=seed,
    )
