"""Nodes moved to where q needs them, between fits that each end at rest.

A fit at any nodes is a fit of a discrete model; its answer is that of the continuous one when the nodes hold
its q (:func:`vitools.calculus.start.on_nodes.refined`). Until they do, fits need not be close.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vitools.calculus import ConjugateModel
from vitools.calculus.start.on_nodes import carried_over, exact, refined
from vitools.engines.cavi.coordinate_ascent import CaviRun, CoordinateAscent, Schedule
from vitools.engines.progress import Listener
from vitools.errors import NumericalError
from vitools.posterior import Status
from vitools.problem.sites import listed

COARSE = 1e-4
"""Relative change of the bound at which a fit on nodes that will move may end."""
FEW = 6
"""Sweeps of such a fit."""
MOST_PLACES = 40


def roughly(schedule: Schedule, model: ConjugateModel) -> Schedule:
    """The schedule of fits before the nodes stand."""
    if not model.nodes:
        return schedule
    return replace(
        schedule, tol=max(schedule.tol, COARSE), max_sweeps=min(schedule.max_sweeps, FEW)
    )


def placed(
    model: ConjugateModel,
    make: Callable[..., ConjugateModel],
    schedule: Schedule,
    began: float,
    progress: Listener | None,
) -> tuple[CaviRun, ConjugateModel]:
    """The fit at nodes that hold it, from where the model is."""
    following = replace(schedule, warmup_sweeps=0)
    coarse = roughly(following, model)
    at_rest: CaviRun | None = None
    for _ in range(MOST_PLACES):
        nodes = refined(model)
        if not nodes and at_rest is not None:
            return at_rest, model
        model = carried_over(model, make(nodes=nodes)) if nodes else exact(model)
        ascent = CoordinateAscent(model, [0], coarse if nodes else following, lambda seed: None)
        status = ascent.run(progress, began)
        (run,) = ascent.runs(status)
        model.load(run.state)
        if status is Status.INTERRUPTED:
            return run, model
        at_rest = None if nodes else run
    raise NumericalError(
        f"sites {listed([repr(name) for name in model.nodes])}: q has no place that a quadrature holds after "
        f"{MOST_PLACES} tries: the posterior may be improper, or an expectation of these sites infinite. "
        "Give them tighter priors."
    )
