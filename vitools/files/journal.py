"""A file of lines that a long run appends to as it goes, and that a second run goes on with."""

import os
from pathlib import Path

from vitools.errors import FileError


def resumed_lines(path: Path, header: str, otherwise: str) -> list[str]:
    """Lines already in the file below its header, which is written where there is none.

    A line that an interruption cut short is removed.

    Args:
        otherwise: the words of the error for a file with another header.
    """
    whole = path.read_text("utf-8") if path.exists() else ""
    if header.startswith(whole):  # not there yet, or ended before its first line was whole
        path.parent.mkdir(parents=True, exist_ok=True)
        append_line(path, header[len(whole) :])
        return []
    kept = whole[: whole.rfind("\n") + 1]
    lines = kept.splitlines()
    if not lines or lines[0] != header:
        raise FileError(f"'{path}' {otherwise}. Choose another path, or remove the file.")
    if kept != whole:
        with path.open("r+", encoding="utf-8") as file:
            file.truncate(len(kept.encode("utf-8")))
    return lines[1:]


def append_line(path: Path, line: str) -> None:
    """One line, on the disk when this returns."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise FileError(f"cannot write '{path}': {error.strerror}.") from error
