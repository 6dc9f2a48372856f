"""The command line. Importing this package imports neither torch nor Pyro."""

import io
import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""Exit code, the one that shells give a process which Ctrl-C ended."""

TERMINATED = 143
"""The same of SIGTERM, by which schedulers end a job: what is finished is kept as at Ctrl-C."""


def main() -> None:
    """Run ``vitools``; exit code 0 fine, 1 a fit failed, 2 bad usage or input, 130 interrupted."""
    process, is_terminated = os.getpid(), False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal is_terminated
        if os.getpid() != process:  # a worker, which inherited this
            os._exit(TERMINATED)
        is_terminated = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        from vitools.cli.app import app

        for stream in (sys.stdout, sys.stderr):
            if isinstance(
                stream, io.TextIOWrapper
            ):  # a terminal without k̂ must not cost the report
                stream.reconfigure(errors="replace")
        app()
    except KeyboardInterrupt:
        sys.exit(TERMINATED if is_terminated else INTERRUPTED)
    except SystemExit as stop:
        if is_terminated and stop.code == INTERRUPTED:
            sys.exit(TERMINATED)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
