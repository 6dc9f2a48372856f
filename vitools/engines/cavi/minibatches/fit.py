"""``cavi`` with ``batch_rows``: runs from all seeds, of which the best is the fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from vitools.calculus import ConjugateModel
from vitools.engines.cavi.coordinate_ascent import Schedule
from vitools.engines.cavi.minibatches.ascent import MinibatchAscent
from vitools.engines.cavi.minibatches.rows import RowBatches
from vitools.engines.checkpoint import Checkpoint
from vitools.engines.progress import Listener
from vitools.errors import NotConjugateError, clause
from vitools.posterior import FactorisedPosterior


def fit_in_batches(
    batches: RowBatches,
    schedule: Schedule,
    seeds: Sequence[int],
    initialise: Callable[[ConjugateModel, int], object],
    began: float,
    progress: Listener | None,
    remarks: Sequence[str],
    file: Checkpoint | None,
    resume: bool,
) -> FactorisedPosterior:
    """Run to the end and hand out the posterior.

    Args:
        remarks: what ``detail`` says besides.
        file: to keep the run in.
        resume: whether to go on from there.
    """
    try:
        ascent = MinibatchAscent(batches, schedule, seeds, initialise)
    except NotConjugateError as refusal:
        raise NotConjugateError(
            f"batch_rows: {clause(refusal)}. Scalars on nodes and sites on values need all rows at once: "
            "leave batch_rows out where the model is one that cavi() takes so."
        ) from refusal
    saved = file.read() if file is not None and resume else None
    status = None
    if saved is not None:
        status = ascent.take_up(*saved)
        began -= ascent.reached.rows[-1][1]
    status = status or ascent.run(progress, began, file)
    if not ascent.reached.rows:
        raise KeyboardInterrupt  # not one pass was finished: there is no fit to keep
    fit = ascent.posterior(status=status)
    fit.detail = "; ".join([fit.detail, *remarks])
    fit.seconds = time.perf_counter() - began
    return fit
