"""Arrays of any shape in an npz file, each with its own type."""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vitools.data.column import Column, column_of_array, column_of_cells
from vitools.errors import DataError


class Archive:
    """An npz file."""

    noun = "array"

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._archive() as archive:
            self.names: Sequence[str] = list(archive.files)
        if not self.names:
            raise DataError(
                f"{path} holds no arrays: write some with numpy.savez(path, name=array)"
            )

    @contextmanager
    def _archive(self) -> Iterator[Any]:
        with self.path.open("rb") as stream:  # numpy leaves a damaged file open
            try:
                archive = np.load(stream, allow_pickle=False)
            except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
                raise DataError(
                    f"{self.path} is not an npz archive: write it with numpy.savez"
                ) from error
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(
                    f"{self.path} is a single array, not an npz archive: write it with numpy.savez"
                )
            with archive:
                yield archive

    def read(self, wanted: Sequence[str]) -> dict[str, Column]:
        """Each as it is; NaN counts as missing."""
        with self._archive() as archive:
            return {name: self._column(name, self._array(archive, name)) for name in wanted}

    def _array(self, archive: Any, name: str) -> np.ndarray:
        try:
            values = archive[name]
        except ValueError as error:
            raise DataError(
                f"{self.path}, array {name!r}: Python objects, or damaged; expected numbers "
                "(object arrays are never unpickled: store numeric arrays)"
            ) from error
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise DataError(
                f"{self.path}, array {name!r}: damaged; write the file again"
            ) from error
        if not isinstance(values, np.ndarray):
            raise DataError(f"{self.path}, entry {name!r}: not an array; write it with numpy.savez")
        return values

    def _column(self, name: str, values: np.ndarray) -> Column:
        if not values.size:
            raise DataError(f"{self.path}, array {name!r} has no values (shape {values.shape})")
        if values.dtype.kind == "U":
            flat = column_of_cells(self.path, name, values.ravel().tolist(), _place(values.shape))
            return Column(
                flat.values.reshape(values.shape), flat.missing.reshape(values.shape), flat.place
            )
        return column_of_array(self.path, "array", name, values, _place(values.shape))


def _place(shape: tuple[int, ...]) -> Callable[[int], str]:
    def place(index: int) -> str:
        return f"[{', '.join(str(i) for i in np.unravel_index(index, shape))}] (counting from 0)"

    return place
