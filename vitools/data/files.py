"""Finding a data file, and saying what is wrong when it cannot be opened."""

import difflib
import os
from pathlib import Path

from vitools.errors import FileError, OptionError


def existing_file(path: str | os.PathLike[str]) -> Path:
    """The path, once it is known to be a file that can be read and is not empty."""
    if not isinstance(path, str | os.PathLike):
        raise OptionError(f"path: expected the name of a data file, got {path!r}.")
    path = Path(path)
    if path.is_dir():
        raise FileError(f"{path} is a folder: expected a data file; name a file inside it")
    if not path.exists():
        raise FileError(f"{path} does not exist{_suggestion(path)}")
    try:
        with path.open("rb") as stream:
            first_byte = stream.read(1)
    except OSError as error:
        raise FileError(
            f"{path} cannot be read: {error.strerror}; check its permissions"
        ) from error
    if not first_byte:
        raise FileError(f"{path} is empty: expected data; was its download or export interrupted?")
    return path


def _suggestion(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f": there is no folder {folder}; check the path (now in {Path.cwd()})"
    try:
        names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    except OSError:
        names = []
    near = difflib.get_close_matches(path.name, names, n=1)
    if near:
        return f"; did you mean {folder / near[0]}?"
    return f"; check the name (the folder {folder.resolve()} holds no similar one)"
