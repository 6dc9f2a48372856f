"""The command line. Importing this package imports neither torch nor Pyro."""

import sys

from vitools.errors import VitoolsError


def main() -> None:
    """Run ``vitools``; exit code 0 fine, 1 a fit failed its checks, 2 bad usage or input."""
    from vitools.cli.app import app

    try:
        app()
    except VitoolsError as error:
        print(f"vitools: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("vitools: interrupted; nothing was written.", file=sys.stderr)
        sys.exit(1)
