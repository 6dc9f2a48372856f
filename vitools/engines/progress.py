"""How a run goes: what an engine reports, in which words, and to whom.

A caller's own function is told a few times a second; ``progress=True`` shows a line that updates in place, in a
notebook and on a terminal. Where there is neither, and the logger ``vitools`` is on for INFO, that gets a line a
minute:

    logging.basicConfig(level=logging.INFO)
"""

import logging
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from vitools.errors import OptionError
from vitools.notebook.line import line_in_place
from vitools.posterior import Estimate

LOGGER = logging.getLogger("vitools")

EVERY = 60.0
"""Seconds between two lines where nothing can be updated in place."""


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


Listener = Callable[[Progress], None]
"""Told how a run goes."""

ProgressCallback = Listener | bool
"""``True`` for a line that updates in place, ``False`` for a run that tells nobody, not even the logger."""


def is_logging() -> bool:
    """Whether the logger is on, and heard."""
    return LOGGER.isEnabledFor(logging.INFO) and LOGGER.hasHandlers()


def listener(progress: ProgressCallback | None) -> Listener | None:
    """Who is to be told: the caller's function, a line in place, else the logger where it is on, else nobody.

    Raises:
        OptionError: ``progress`` is neither a function nor True, False or None.
    """
    if progress is None:
        return _now_and_then(LOGGER.info) if is_logging() else None
    if progress is False:
        return None
    if progress is True:
        line = line_in_place()
        return _now_and_then(to_stderr) if line is None else _at_once(line)
    if not callable(progress):
        raise OptionError(
            f"progress: expected a function of one report, True for a line, or False for none, got {progress!r}."
        )
    return progress


def _at_once(say: Callable[[str], None]) -> Listener:
    """Every report."""
    last: Progress | None = None

    def tell(progress: Progress) -> None:
        nonlocal last
        before = last if last is not None and last.engine == progress.engine else None
        say(words(progress.engine, progress, before))
        last = progress

    return tell


def _now_and_then(write: Callable[[str], None]) -> Listener:
    """At most one line in :data:`EVERY` seconds."""
    written = time.monotonic()
    say = _at_once(write)

    def tell(progress: Progress) -> None:
        nonlocal written
        if time.monotonic() - written >= EVERY:
            written = time.monotonic()
            say(progress)

    return tell


def to_stderr(text: str) -> None:
    """A line of its own."""
    print(text, file=sys.stderr, flush=True)


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
        parts.append(f"stops in about {duration(now.steps_left / max(rate, 1e-9))}")
    else:
        parts.append(f"at most {duration(left / max(rate, 1e-9))} more")
    return "  ".join(parts)


def _spaced(number: int) -> str:
    """``12400`` as ``12 400``."""
    return f"{number:,}".replace(",", "\N{NO-BREAK SPACE}")


def duration(seconds: float) -> str:
    """In whole seconds, minutes or tenths of hours."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
