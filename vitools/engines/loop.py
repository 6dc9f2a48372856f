"""The loop of every iterative engine: step, keep, stop, report, call back.

Ctrl-C falls between any two lines. So an engine works on a state that may be found half changed, and
after each round of steps keeps, by one assignment, a record that no later step changes: what an
interrupted run returns, and what it goes on from, is read from that record alone.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from vitools.engines.progress import Listener, Progress
from vitools.posterior import Status

REPORT_EVERY = 0.2
"""Seconds between two reports, at least."""


class Keep(Protocol):
    """Keeps what a round of steps gave, its bounds and the seconds so far; ``None`` means go on."""

    def __call__(self, bounds: Sequence[float], seconds: float) -> Status | None: ...


def iterate(
    advance: Callable[[int], Sequence[float]],
    keep: Keep,
    *,
    max_steps: int,
    engine: str,
    done: int = 0,
    began: float,
    progress: Listener | None = None,
    after: Callable[[int], None] | None = None,
    describe: Callable[[Progress], Progress] | None = None,
) -> Status:
    """Call ``advance(done) -> bounds`` until ``keep`` says so, the limit is met, or Ctrl-C is pressed.

    Ctrl-C ends the loop with INTERRUPTED, and the engine has what it kept last.

    Args:
        advance: takes at least one step after the ``done`` first ones and returns the bound after
            each step it took (an unrolled graph or an accelerated sweep takes several at once).
        keep: takes in those bounds and says whether they end the run.
        done: steps that an earlier part of the run took.
        began: the ``time.perf_counter()`` from which seconds count.
        after: called with the number of steps done after each ``advance`` that did not end the
            run (to write checkpoints, say).
        describe: adds to a report what only the engine knows.
    """
    last_report = time.perf_counter()
    status = None
    try:
        while status is None and done < max_steps:
            bounds = advance(done)
            now = time.perf_counter()
            status = keep(bounds, now - began)
            done += len(bounds)
            is_last = status is not None or done >= max_steps
            if progress and (now - last_report > REPORT_EVERY or is_last):
                report = Progress(engine, done, max_steps, bounds[-1], now - began)
                progress(report if describe is None else describe(report))
                last_report = now
            if after is not None and status is None:
                after(done)
    except KeyboardInterrupt:
        status = Status.INTERRUPTED
    return status or Status.STOPPED_AT_LIMIT
