"""How a run goes: one line that updates in place on a terminal, now and then a line elsewhere.

Where the logger ``vitools`` is on for INFO, it is told instead.
"""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from vitools.engines.loop import Progress
from vitools.posterior import Estimate

LOGGER = logging.getLogger("vitools")

EVERY = 60.0
"""Seconds between two lines where nothing can be updated in place."""

QUICK = 10.0
"""Seconds that a run may take without a line about its end."""


@contextmanager
def progress_line(label: str, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A callback for an engine; ``None`` where nobody is to be told."""
    with status_line(label, quiet) as say:
        last: list[Progress] = []

        def show(progress: Progress) -> None:
            assert say is not None
            say(words(label, progress, last[0] if last else None))
            last[:] = [progress]

        yield None if say is None else show


@contextmanager
def status_line(label: str, quiet: bool) -> Iterator[Callable[[str], None] | None]:
    """A function that says in words how far a run is; ``None`` where nobody is to be told."""
    if LOGGER.isEnabledFor(logging.INFO) and LOGGER.hasHandlers():
        with _lines(LOGGER.info) as say:
            yield say
    elif quiet:
        yield None
    elif not sys.stderr.isatty():
        with _lines(_to_stderr) as say:
            yield say
    else:
        with Console(stderr=True, highlight=False).status(label) as status:
            yield status.update


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _lines(write: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """At most one line in :data:`EVERY` seconds, and the last one unless it was quick."""
    began = written = time.monotonic()
    unsaid: list[str] = []

    def say(text: str) -> None:
        nonlocal written
        unsaid[:] = [text]
        if time.monotonic() - written >= EVERY:
            written = time.monotonic()
            write(unsaid.pop())

    try:
        yield say
    finally:
        seconds = time.monotonic() - began
        if unsaid and seconds >= QUICK:
            write(f"{unsaid[0]}  ended after {_duration(seconds)}")


def words(label: str, now: Progress, before: Progress | None = None) -> str:
    """``SVI  step 12 400  bound -8123.4 ± 1.2  3 100 steps/s (compiled)  stops in about 9 s``."""
    steps, seconds = now.step, now.seconds
    if before is not None and now.seconds > before.seconds:  # the present pace, not the mean
        steps, seconds = now.step - before.step, now.seconds - before.seconds
    rate = steps / max(seconds, 1e-9)
    parts = [label, f"step {_spaced(now.step)}"]
    if not math.isnan(now.elbo):
        known = not math.isnan(now.standard_error) and now.standard_error > 0
        bound = str(Estimate(now.elbo, now.standard_error)) if known else f"{now.elbo:.1f}"
        parts.append(f"bound {bound}")
    parts.append(f"{_spaced(round(rate))} steps/s" + (f" ({now.note})" if now.note else ""))
    left = now.max_steps - now.step
    if now.steps_left is not None and now.steps_left <= left:
        parts.append(f"stops in about {_duration(now.steps_left / max(rate, 1e-9))}")
    else:
        parts.append(f"at most {_duration(left / max(rate, 1e-9))} more")
    return "  ".join(parts)


def _spaced(number: int) -> str:
    """``12400`` as ``12 400``."""
    return f"{number:,}".replace(",", "\N{NO-BREAK SPACE}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
