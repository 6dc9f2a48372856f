"""``python -m vitools`` is the command ``vitools``."""

from vitools.cli import main

if __name__ == "__main__":
    main()
