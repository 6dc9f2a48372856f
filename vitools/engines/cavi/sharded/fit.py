"""A fit of coordinate ascent in which every process has some of the rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitools.calculus import ConjugateModel
from vitools.calculus.blocks.dependence import kept_apart
from vitools.calculus.recession import check_determined
from vitools.calculus.words.dependence import in_words, switches_in_words
from vitools.engines.cavi.coordinate_ascent import CaviRun, CoordinateAscent, Schedule
from vitools.engines.cavi.digits import MOST_RETURNS, lost, own_points
from vitools.engines.cavi.kept import checkpoint_of
from vitools.engines.cavi.outcome import Outcome
from vitools.engines.cavi.sharded.kept import SharedKeeper
from vitools.engines.cavi.sharded.moves import SharedMoves
from vitools.engines.cavi.sharded.start import Begun, begun
from vitools.engines.progress import Listener
from vitools.engines.sharding.shard import Shard
from vitools.errors import NotConjugateError, clause
from vitools.posterior import FactorisedPosterior, Status
from vitools.problem import Problem


def fit_in_shards(
    problem: Problem,
    plate: str,
    make: Callable[..., ConjugateModel],
    schedule: Schedule,
    seeds: Sequence[int],
    initialise: Callable[[ConjugateModel, int], object],
    began: float,
    progress: Listener | None,
    remarks: Sequence[str],
    checkpoint: str | Path | None,
    resume: bool,
    options: Mapping[str, Any],
) -> FactorisedPosterior:
    """Run to the end and hand out the factors that all share, and those of this process's rows.

    Args:
        make: the conjugate model of a Pyro model, its arguments and what its rows stand for.
        initialise: sets a model to the start of a seed.
        remarks: what ``detail`` says besides.
        options: by which a checkpoint knows the run.
    """
    shard, problem = Shard.of(problem, plate)
    shard.refuse_unlike("what was asked for", str({**options, "max_sweeps": schedule.max_sweeps}))
    digest = shard.fingerprint(problem) if checkpoint is not None else ""
    first = shard.ranks.rank == 0
    file = shard.ranks.each(
        lambda: checkpoint_of(problem, checkpoint, resume, options, digest) if first else None
    )
    saved = shard.ranks.of_first(
        shard.ranks.each(lambda: file.read() if file is not None and resume else None)
    )
    points = None
    for returns in range(MOST_RETURNS + 1):
        try:
            found = begun(problem, shard, make, seeds, initialise, points)
        except NotConjugateError as refusal:
            raise NotConjugateError(
                f"sharded: {clause(refusal)}. Scalars on nodes and sites on values need all rows in one "
                "process: leave sharded out where the model is one that cavi() takes so."
            ) from refusal
        keeper = SharedKeeper(file, found, saved)
        began -= keeper.seconds
        runs, interrupted = _climb(found, shard, seeds, schedule, progress, began, keeper)
        best = max(runs, key=lambda run: run.bound)
        model = found.model
        model.load(best.state)
        nats = 0.0 if interrupted else lost(model)
        if not nats or returns == MOST_RETURNS:
            break
        points, file, saved = own_points(model), None, None
    check_determined(model)
    made = Outcome(problem, model, [run.bound for run in runs], seeds[0])
    if interrupted:  # the others may be elsewhere: nothing more is asked of them
        model.together = None
    fit = made.factorised(best.bound)
    words = [_detail(best, runs, shard), *remarks]
    if nats:
        words.append(f"terms that cancel leave the bound accurate to about {nats:.1g} nats")
    words += [in_words(group) for group in kept_apart(model.blocks, model.joint.terms)]
    if model.prior_switches:
        words.append(switches_in_words(model.prior_switches))
    if fit.bound_error:
        words.append(f"integrals in the bound accurate to about {fit.bound_error:.1g} nats")
    fit.part = shard.words
    fit.status = Status.INTERRUPTED if interrupted else best.status
    fit.detail = "; ".join(words)
    fit.history = best.history
    fit.seconds = time.perf_counter() - began
    return fit


def _climb(
    found: Begun,
    shard: Shard,
    seeds: Sequence[int],
    schedule: Schedule,
    progress: Listener | None,
    began: float,
    keeper: SharedKeeper,
) -> tuple[list[CaviRun], bool]:
    """A run from each seed, one after another, and whether there was an interrupt."""
    model = found.model
    runs = keeper.earlier()
    interrupted = False
    try:
        for number in range(len(runs), len(seeds)):
            moves = SharedMoves(model, shard, settled=schedule.inner_sweeps is None)

            def begin(_: int, number: int = number) -> None:
                found.enter(found.starts[number])

            ascent = CoordinateAscent(model, [seeds[number]], schedule, begin, moves)
            keeper.take_up(ascent)
            status = ascent.run(progress, began, keeper.after(ascent, runs))
            keeper.keep(ascent, runs, status)
            runs = runs + ascent.runs(status)
            interrupted = status is Status.INTERRUPTED
            if interrupted:
                break
    except KeyboardInterrupt:  # while a later start was made ready
        interrupted = True
    if not runs:
        raise KeyboardInterrupt  # not one sweep was finished: there is no fit to keep
    return runs, interrupted


def _detail(best: CaviRun, runs: Sequence[CaviRun], shard: Shard) -> str:
    words = f"{len(best.history)} sweeps over {shard.total} rows of '{shard.plate}' on {shard.ranks.size} processes"
    if len(runs) > 1:
        bounds = [run.bound for run in runs]
        words += f", best of {len(runs)} starts (bounds {min(bounds):.1f} to {max(bounds):.1f})"
    return words
