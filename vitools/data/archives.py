"""Arrays of any shape, each with its own type: several in an npz file, one in an npy file."""

import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

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
            return {name: _column(self.path, name, self._array(archive, name)) for name in wanted}

    def pieces(self, wanted: Sequence[str], rows: int) -> Iterator[dict[str, Column]]:
        """The arrays, this many entries of their first dim at a time."""
        with ExitStack() as stack:
            archive = stack.enter_context(self._archive())
            try:
                opened = {
                    name: StoredRows(stack.enter_context(archive.zip.open(f"{name}.npy")))
                    for name in wanted
                }
            except (KeyError, ValueError, zipfile.BadZipFile, EOFError, OSError) as error:
                raise DataError(
                    f"{self.path}: an array is damaged or no array of numbers ({error}); write the "
                    "file again with numpy.savez"
                ) from error
            length = _common_length(self.path, {name: rows.shape for name, rows in opened.items()})
            for start in range(0, length, rows):
                piece = {}
                for name, source in opened.items():
                    try:
                        part = source.take(min(rows, length - start))
                    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
                        raise DataError(
                            f"{self.path}, array {name!r}: damaged after row {start - 1}; write the "
                            "file again"
                        ) from error
                    piece[name] = _column(self.path, name, part, start)
                yield piece

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


class SingleArray:
    """An npy file: one array, called after its file less the numbers at the end of its name."""

    noun = "array"

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise DataError(
                f"{path} is not an npy file of numbers, or cut short: write it with numpy.save"
            ) from error
        self.names: Sequence[str] = [re.sub(r"[-_.]?\d+$", "", path.stem) or path.stem]

    def pieces(self, wanted: Sequence[str], rows: int) -> Iterator[dict[str, Column]]:
        """The array, this many entries of its first dim at a time."""
        (name,) = self.names
        length = _common_length(self.path, {name: self._values.shape})
        for start in range(0, length, rows):
            part = np.array(self._values[start : start + rows])
            yield {name: _column(self.path, name, part, start)}

    def read(self, wanted: Sequence[str]) -> dict[str, Column]:
        """The whole array."""
        (name,) = self.names
        return {name: _column(self.path, name, np.array(self._values), 0)}


class StoredRows:
    """An array in the npy format, read from its first dim on.

    Reference: NumPy Enhancement Proposal 1.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        version = np.lib.format.read_magic(stream)
        header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        self.shape, is_fortran, self.dtype = header(stream)
        if self.dtype.hasobject:
            raise ValueError("Python objects")
        self._whole: np.ndarray | None = None
        if is_fortran and len(self.shape) > 1:  # its rows lie apart: read at once
            flat = self._numbers(math.prod(self.shape))
            self._whole = flat.reshape(self.shape[::-1]).transpose()
        self._done = 0

    def take(self, rows: int) -> np.ndarray:
        """The next rows."""
        self._done += rows
        if self._whole is not None:
            return self._whole[self._done - rows : self._done].copy()
        width = math.prod(self.shape[1:])
        return self._numbers(rows * width).reshape(rows, *self.shape[1:])

    def _numbers(self, count: int) -> np.ndarray:
        size = count * self.dtype.itemsize
        content = self._stream.read(size)
        if len(content) < size:
            raise EOFError
        return np.frombuffer(content, self.dtype)


def _common_length(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The rows that arrays have in common, which are to be read side by side."""
    lengths = {shape[0] if shape else None for shape in shapes.values()}
    if len(lengths) > 1 or None in lengths:
        raise DataError(
            f"{path}: arrays of different lengths have no rows in common "
            f"({', '.join(f'{name} {list(shape)}' for name, shape in shapes.items())}); choose those "
            "of one length by columns=, and give the others to the model by hand"
        )
    (length,) = lengths
    if not length:
        raise DataError(f"{path} has no rows: expected at least one row of values")
    return int(length or 0)


def _column(path: Path, name: str, values: np.ndarray, start: int = 0) -> Column:
    """An array, or its rows from ``start`` on."""
    if not values.size:
        raise DataError(f"{path}, array {name!r} has no values (shape {values.shape})")
    place = _place(values.shape, start)
    if values.dtype.kind == "U":
        flat = column_of_cells(path, name, values.ravel().tolist(), place)
        shape = values.shape
        return Column(flat.values.reshape(shape), flat.missing.reshape(shape), flat.place)
    return column_of_array(path, "array", name, values, place)


def _place(shape: tuple[int, ...], start: int = 0) -> Callable[[int], str]:
    def place(index: int) -> str:
        where = [int(i) for i in np.unravel_index(index, shape)]
        where[:1] = [where[0] + start] if where else []
        return f"[{', '.join(map(str, where))}] (counting from 0)"

    return place
