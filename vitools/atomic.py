"""Files that are either whole or absent."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from vitools.errors import FileError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed onto it when the block ends without error.

    The suffix is kept, because many writers choose the format by it.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}-{uuid4().hex[:12]}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)  # with the permissions the user's umask gives new files
    except OSError as error:
        raise FileError(
            f"cannot write '{target}': {error.strerror or error}. Choose another folder."
        ) from error
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise FileError(f"cannot write '{target}': {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_folder(folder: str | Path) -> None:
    """Refuse, before any work is done, a folder that could not be written to."""
    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise FileError(f"cannot write into '{folder}': '{existing}' is not a folder.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise FileError(f"cannot write into '{folder}': no leave. Choose another folder.")
