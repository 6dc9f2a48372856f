"""A file of lines that a long run appends to as it goes, and that a second run goes on with."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from vitools.errors import FileError
from vitools.files.atomic import check_folder


def resumed_lines(path: Path, settings: Mapping[str, object], run: str) -> list[str]:
    """Lines already in the file below its header, which is written where there is none.

    A line that an interruption cut short is removed.

    Args:
        settings: what the lines depend on, in words and numbers: the header. A file with others is refused, and
            those that differ are named.
        run: what the file holds, in a few words.
    """
    header = json.dumps(settings)
    try:
        whole = path.read_text("utf-8") if path.exists() else ""
        if header.startswith(whole):  # not there yet, or ended before its first line was whole
            check_folder(path.parent)
            path.parent.mkdir(parents=True, exist_ok=True)
            append_line(path, header[len(whole) :])
            return []
        kept = whole[: whole.rfind("\n") + 1]
        lines = kept.splitlines()
        if not lines or lines[0] != header:
            raise FileError(
                f"'{path}' {_difference(lines, settings, run)}. Choose another path, or remove the file."
            )
        if kept != whole:
            with path.open("r+", encoding="utf-8") as file:
                file.truncate(len(kept.encode("utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        what = "is a folder" if path.is_dir() else getattr(error, "strerror", None) or "is no text"
        raise FileError(f"cannot go on with '{path}': {what}. Choose another path.") from error
    return lines[1:]


def _difference(lines: list[str], settings: Mapping[str, object], run: str) -> str:
    """What the file is in place of the run with these settings."""
    try:
        found = json.loads(lines[0]) if lines else None
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        return f"is not {run}"
    others = [
        f"{name} {found.get(name, 'not told')} (now {now})"
        for name, now in settings.items()
        if name not in found or found[name] != now
    ]
    return f"holds {run} with {', '.join(others) or 'more settings than are known'}"


def append_line(path: Path, line: str) -> None:
    """One line, on the disk when this returns."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise FileError(f"cannot write '{path}': {error.strerror}.") from error
