"""``python -m vitools`` is the command ``vitools``."""

from vitools.cli import main

main()
