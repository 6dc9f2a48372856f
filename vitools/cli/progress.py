"""How a run goes: one line that updates in place on a terminal, now and then a line elsewhere.

Where the logger ``vitools`` is on for INFO, it is told instead.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from vitools.engines.progress import (
    EVERY,
    LOGGER,
    Progress,
    duration,
    is_logging,
    to_stderr,
    words,
)

QUICK = 10.0
"""Seconds that a run may take without a line about its end."""


@contextmanager
def progress_line(label: str, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A callback for an engine; ``None`` where nobody is to be told.

    Reports bear the ``label``; without one, the name of the engine that makes them.
    """
    with status_line(label, quiet) as say:
        last: list[Progress] = []

        def show(progress: Progress) -> None:
            assert say is not None
            before = last[0] if last and last[0].engine == progress.engine else None
            say(words(label or progress.engine, progress, before))
            last[:] = [progress]

        yield None if say is None else show


@contextmanager
def status_line(label: str, quiet: bool) -> Iterator[Callable[[str], None] | None]:
    """A function that says in words how far a run is; ``None`` where nobody is to be told."""
    if is_logging():
        with _lines(LOGGER.info) as say:
            yield say
    elif quiet:
        yield None
    elif not sys.stderr.isatty():
        with _lines(to_stderr) as say:
            yield say
    else:
        with Console(stderr=True, highlight=False).status(label) as status:
            yield status.update


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
            write(f"{unsaid[0]}  ended after {duration(seconds)}")
