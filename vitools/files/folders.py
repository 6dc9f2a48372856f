"""A folder whose new files appear together or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from vitools.errors import FileError
from vitools.files.atomic import as_path
from vitools.files.ownership import is_own, refuse_foreign


@contextmanager
def whole_folder(
    folder: str | Path, *, force: bool = False, replaces: str | None = None
) -> Iterator[Path]:
    """A folder aside to write into, whose files go to ``folder`` when the block ends without error.

    Whatever else ends it (a full disk, an error, Ctrl-C), ``folder`` is as it was. Other files in it
    stay in any case.

    Args:
        force: overwrite files that vitools did not write.
        replaces: a pattern of names whose files, where vitools wrote them and none is written anew,
            belong to what is replaced, and go.
    """
    folder = as_path(folder)
    is_new = not folder.is_dir()
    name = f".vitools-{uuid4().hex[:12]}"
    aside = folder.with_name(name) if is_new else folder / name
    made: list[Path] = []
    try:
        try:
            for part in reversed([aside, *aside.parents]):
                if not part.exists():
                    part.mkdir()
                    made.append(part)
            yield aside
            written = sorted(path.name for path in aside.iterdir())
            for taken in (folder / name for name in written if (folder / name).is_dir()):
                raise FileError(f"cannot write '{taken}': it is a folder. Choose another one.")
            if not force:
                refuse_foreign(folder, *written)
            if written and is_new and not os.path.lexists(folder):
                os.rename(aside, folder)
                made.clear()  # the parents of what is now there
            elif written:
                old = folder.glob(replaces) if replaces else ()
                gone = [p.name for p in old if p.name not in written and is_own(p)]
                _move(aside, folder, written, gone)
        except OSError as error:
            raise FileError(f"cannot write into '{folder}': {error.strerror or error}.") from error
        except FileError as error:
            raise FileError(str(error).replace(str(aside), str(folder))) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        for part in reversed(made):
            with suppress(OSError):  # gone already, or somebody else has put something into it
                part.rmdir()


def _move(aside: Path, folder: Path, names: list[str], gone: list[str]) -> None:
    """Renames only, which need no room; those done are undone where one fails."""
    kept = aside / ".replaced"
    kept.mkdir()
    done: list[str] = []
    try:
        for name in [*gone, *names]:
            done.append(name)
            if os.path.lexists(folder / name):
                os.replace(folder / name, kept / name)
            if name not in gone:
                os.replace(aside / name, folder / name)
    except BaseException:
        for name in reversed(done):
            if name not in gone and not os.path.lexists(aside / name):
                os.replace(folder / name, aside / name)
            if os.path.lexists(kept / name):
                os.replace(kept / name, folder / name)
        raise
