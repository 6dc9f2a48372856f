"""The command line. Importing this package imports neither torch nor Pyro."""

import io
import sys


def main() -> None:
    """Run ``vitools``; exit code 0 fine, 1 a fit failed, 2 bad usage or input, 130 interrupted."""
    try:
        from vitools.cli.app import app
    except KeyboardInterrupt:
        sys.exit(130)

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without k̂ must not cost the report
            stream.reconfigure(errors="replace")
    app()
