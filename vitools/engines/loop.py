"""The loop of a stochastic ascent: step, record, stop, report."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vitools.posterior import History, Status


class StoppingRule(Protocol):
    """Decides after each recorded value; ``None`` means go on."""

    def __call__(self, step: int, elbo: float) -> Status | None: ...


@dataclass(frozen=True)
class Progress:
    """What a progress callback is told, a few times a second."""

    engine: str
    step: int
    max_steps: int
    elbo: float
    seconds: float


ProgressCallback = Callable[[Progress], None]


def iterate(
    step: Callable[[int], float],
    stop: StoppingRule,
    *,
    max_steps: int,
    engine: str,
    progress: ProgressCallback | None = None,
) -> tuple[Status, History]:
    """Call ``step(i) -> elbo`` until ``stop`` says so, the limit is met, or Ctrl-C is pressed.

    Ctrl-C ends the loop; what was reached is returned as INTERRUPTED. A step cut short is not
    recorded, and must leave a state that can be used.
    """
    history = History()
    start = time.perf_counter()
    last_report = start
    status = None
    try:
        for i in range(max_steps):
            elbo = step(i)
            now = time.perf_counter()
            history.record(i + 1, elbo, now - start)
            status = stop(i + 1, elbo)
            if progress is not None and (now - last_report > 0.2 or status is not None):
                progress(Progress(engine, i + 1, max_steps, elbo, now - start))
                last_report = now
            if status is not None:
                break
    except KeyboardInterrupt:
        status = Status.INTERRUPTED
    return status or Status.STOPPED_AT_LIMIT, history
