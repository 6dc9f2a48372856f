"""Files that are either whole or absent."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4

from vitools.errors import FileError, OptionError
from vitools.files.ownership import refuse_foreign


def as_path(path: object) -> Path:
    """A path of what was given as one, or an error that says what was."""
    if not isinstance(path, str | os.PathLike):
        raise OptionError(f"path: expected the name of a file or folder, got {path!r}.")
    return Path(path)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed onto it when the block ends without error.

    The suffix is kept, because many writers choose the format by it.
    """
    target = as_path(path)
    if not target.name:
        raise OptionError(f"path: expected the name of a file, got '{path}'.")
    temporary = target.with_name(f".{target.stem}-{uuid4().hex[:12]}{target.suffix}")
    advice = " Choose another folder."
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)  # with the permissions the user's umask gives new files
        advice = ""
        yield temporary
        _onto_disk(
            temporary
        )  # else a machine that stops may keep the new name and lose the contents
        os.replace(temporary, target)
    except OSError as error:
        raise FileError(f"cannot write '{target}': {error.strerror or error}.{advice}") from error
    finally:
        with suppress(OSError):  # below what is no folder, where nothing was made
            temporary.unlink(missing_ok=True)


def _onto_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def check_folder(folder: str | Path, *names: str, force: bool = False) -> None:
    """Refuse, before any work is done, a folder that could not be written to.

    It is tried out, and left as it was: no rule of thumb knows of links that lead nowhere, names
    too long, or disks that take no more files.

    Args:
        names: files that will be written there.
        force: whether those may replace files that vitools did not write.
    """
    folder = as_path(folder)
    made = []
    try:
        for part in reversed([folder, *folder.parents]):
            if not os.path.lexists(part):
                part.mkdir()
                made.append(part)
            elif not part.is_dir():
                raise FileError(
                    f"cannot write into '{folder}': '{part.absolute()}' is not a folder."
                )
        with TemporaryFile(dir=folder):
            pass
        taken = [name for name in names if (folder / name).is_dir()]
    except OSError as error:
        raise FileError(
            f"cannot write into '{folder}': {error.strerror or error}. Choose another folder."
        ) from error
    finally:
        for part in reversed(made):
            with suppress(OSError):  # somebody else has put something into it
                part.rmdir()
    if taken:
        raise FileError(f"cannot write '{folder / taken[0]}': it is a folder. Choose another one.")
    if not force:
        refuse_foreign(folder, *names)
