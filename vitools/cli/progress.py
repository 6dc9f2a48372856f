"""One line that updates in place while an engine works; silent when not on a terminal."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from vitools.engines.loop import Progress
from vitools.posterior import Estimate


@contextmanager
def progress_line(label: str, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A callback for an engine that rewrites one line on standard error."""
    console = Console(stderr=True, highlight=False)
    if quiet or not sys.stderr.isatty():
        yield None
        return
    with console.status(label) as status:
        last: list[Progress] = []

        def show(progress: Progress) -> None:
            status.update(words(label, progress, last[0] if last else None))
            last[:] = [progress]

        yield show


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
