"""The loop of every iterative engine: step, record, stop, report, call back."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vitools.posterior import History, Status


class StoppingRule(Protocol):
    """Decides after each recorded value; ``None`` means go on."""

    def __call__(self, step: int, elbo: float) -> Status | None: ...


@dataclass(frozen=True)
class Progress:
    """What a progress callback is told, a few times a second.

    Attributes:
        elbo: the bound, a mean over recent steps where it is noisy.
        standard_error: of that mean; NaN where the engine gives none.
        steps_left: what the stopping rule expects; None where it cannot tell.
        note: how the engine is running, in a word or two.
    """

    engine: str
    step: int
    max_steps: int
    elbo: float
    seconds: float
    standard_error: float = math.nan
    steps_left: int | None = None
    note: str = ""


ProgressCallback = Callable[[Progress], None]


def iterate(
    advance: Callable[[int], Sequence[float]],
    stop: StoppingRule,
    *,
    max_steps: int,
    engine: str,
    progress: ProgressCallback | None = None,
    history: History | None = None,
    began: float | None = None,
    after: Callable[[int], None] | None = None,
    describe: Callable[[Progress], Progress] | None = None,
) -> tuple[Status, History]:
    """Call ``advance(done) -> bounds`` until ``stop`` says so, the limit is met, or Ctrl-C is pressed.

    Ctrl-C ends the loop; what was reached is returned as INTERRUPTED. A step cut short is not
    recorded, and must leave a state that can be used.

    Args:
        advance: takes at least one step after the ``done`` first ones and returns the bound after
            each step it took (an unrolled graph or an accelerated sweep takes several at once).
        history: what an earlier part of the run recorded; the loop goes on from its last step.
        began: the ``time.perf_counter()`` from which seconds count; now if omitted.
        after: called with the number of steps done after each ``advance`` that did not end the
            run (to write checkpoints, say).
        describe: adds to a report what only the engine knows.
    """
    history = History() if history is None else history
    done = history.steps[-1] if len(history) else 0
    earlier = history.seconds[-1] if len(history) else 0.0
    now = time.perf_counter()
    start = (now if began is None else began) - earlier
    last_report = now
    status = None
    try:
        while status is None and done < max_steps:
            bounds = advance(done)
            now = time.perf_counter()
            for elbo in bounds:
                done += 1
                history.record(done, elbo, now - start)
                status = stop(done, elbo) or status
            if progress is not None and (now - last_report > 0.2 or status is not None):
                report = Progress(engine, done, max_steps, bounds[-1], now - start)
                progress(report if describe is None else describe(report))
                last_report = now
            if after is not None and status is None:
                after(done)
    except KeyboardInterrupt:
        status = Status.INTERRUPTED
    return status or Status.STOPPED_AT_LIMIT, history
