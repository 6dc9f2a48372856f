"""One line that updates in place while an engine works; silent when not on a terminal."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from vitools.engines.loop import Progress


@contextmanager
def progress_line(label: str, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A callback for an engine that rewrites one line on standard error."""
    console = Console(stderr=True, highlight=False)
    if quiet or not sys.stderr.isatty():
        yield None
        return
    with console.status(label) as status:

        def show(progress: Progress) -> None:
            rate = progress.step / max(progress.seconds, 1e-9)
            bound = "" if math.isnan(progress.elbo) else f"  bound {progress.elbo:.1f}"
            status.update(
                f"{label}  step {progress.step} of at most {progress.max_steps}{bound}  "
                f"{rate:.0f} steps/s"
            )

        yield show
