"""Tables of numbers: csv, npz and (with pyarrow) parquet, as one array a column.

The readers refuse rather than guess: whatever is not a finite number is named by file, line and
column, because a blank turned into 0 or a word turned into a code is an error nobody sees later.
"""

import csv
import os
import zipfile
import zlib
from array import array
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vitools.data.files import existing_file
from vitools.errors import DataError, NotSupportedError

_DELIMITERS = ",;\t"


def read_table(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a csv, npz or parquet file into ``{column name: array}``.

    csv: the first line names the columns, ``,`` ``;`` or a tab separates them, the decimal mark
    is a point; columns become float64 [rows]. npz: every array, of any shape, with its own dtype.
    parquet needs the extra ``vitools[data]``.

    Raises :class:`FileError` for a file that cannot be opened and :class:`DataError` for contents
    that are not finite numbers, with the line and the column.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "heights.csv")
    ...     _ = file.write_text("age,height\\n3,95\\n4,102.5\\n")
    ...     read_table(file)
    {'age': array([3., 4.]), 'height': array([ 95. , 102.5])}
    """
    path = Path(path)
    suffix = path.suffix.lower()
    readers = {".csv": _read_csv, ".npz": _read_npz, ".parquet": _read_parquet}
    if suffix not in readers:
        expected = ", ".join(readers)
        raise DataError(
            f"{path}: cannot tell a table from the ending {suffix!r}; one of {expected}"
        )
    return readers[suffix](existing_file(path))


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            first_line = stream.readline()
            delimiter = max(_DELIMITERS, key=first_line.count)
            stream.seek(0)
            rows = csv.reader(stream, delimiter=delimiter, strict=True)
            names = _header(path, next(rows, []))
            values = array("d")
            lines = array("q")
            blank_line = 0
            for row in rows:
                if not row:
                    blank_line = blank_line or rows.line_num
                    continue
                # In a table of one column a blank line between rows is a blank cell.
                if blank_line and len(names) == 1:
                    raise _blank(path, blank_line, names[0])
                values.extend(_numbers(path, rows.line_num, names, row))
                lines.append(rows.line_num)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: not valid csv ({error})") from error
    if not lines:
        raise DataError(
            f"{path} has column names but no rows: expected at least one row of numbers"
        )

    table = np.array(values, dtype=np.float64).reshape(len(lines), len(names))
    if not np.isfinite(table).all():
        row_index, column = np.argwhere(~np.isfinite(table))[0]
        raise DataError(
            f"{path}, line {lines[row_index]}, column {names[column]!r}: "
            f"{table[row_index, column]} is not finite; remove the row or fill the value in"
        )
    return {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(names)}


def _header(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not any(names):
        raise DataError(f"{path}, line 1: expected the names of the columns, got a blank line")
    if all(_is_number(name) for name in names):
        raise DataError(
            f"{path}, line 1: expected the names of the columns, got numbers; "
            "add a first line with a name for each column"
        )
    for position, name in enumerate(names, start=1):
        if not name:
            raise DataError(f"{path}, line 1: column {position} has no name; give it one")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"{path}, line 1: column name {repeated[0]!r} appears twice; rename one")
    return names


def _numbers(path: Path, line: int, names: list[str], row: list[str]) -> list[float]:
    if len(row) != len(names):
        raise DataError(
            f"{path}, line {line}: {len(row)} cells, expected {len(names)} "
            f"(one for each of {', '.join(names)})"
        )
    try:
        # Python reads "1_000" as a number; in a data file it is a label.
        if "_" in "".join(row):
            raise ValueError
        return [float(cell) for cell in row]
    except ValueError:
        for name, cell in zip(names, row, strict=True):
            if not cell.strip():
                raise _blank(path, line, name) from None
            if not _is_number(cell):
                raise DataError(
                    f"{path}, line {line}, column {name!r}: expected a number, got {cell!r}; "
                    "write numbers with a decimal point and recode words as numbers"
                ) from None
        raise


def _blank(path: Path, line: int, name: str) -> DataError:
    return DataError(
        f"{path}, line {line}, column {name!r}: blank; remove the row or fill the value in"
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as stream:  # numpy leaves a damaged file open
        return _read_archive(path, stream)


def _read_archive(path: Path, stream: BinaryIO) -> dict[str, np.ndarray]:
    try:
        archive = np.load(stream, allow_pickle=False)
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is not an npz archive: write it with numpy.savez") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(f"{path} is a single array, not an npz archive: write it with numpy.savez")
    arrays = {}
    with archive:
        if not archive.files:
            raise DataError(
                f"{path} holds no arrays: write some with numpy.savez(path, name=array)"
            )
        for name in archive.files:
            try:
                values = archive[name]
            except ValueError as error:
                raise DataError(
                    f"{path}, array {name!r}: Python objects, or damaged; expected numbers "
                    "(object arrays are never unpickled: store numeric arrays)"
                ) from error
            except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
                raise DataError(f"{path}, array {name!r}: damaged; write the file again") from error
            if not isinstance(values, np.ndarray):
                raise DataError(f"{path}, entry {name!r}: not an array; write it with numpy.savez")
            arrays[name] = _checked_array(path, "array", name, values)
    return arrays


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise NotSupportedError(
            f"{path}: reading parquet needs the package pyarrow: pip install 'vitools[data]', or "
            "save the table as csv or npz."
        ) from error
    try:
        table = parquet.ParquetFile(path).read()
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} is not a parquet file, or damaged: {error}") from error
    if not table.num_rows:
        raise DataError(f"{path} has no rows: expected at least one row of numbers")
    repeated = [name for name, count in Counter(table.column_names).items() if count > 1]
    if repeated:
        raise DataError(f"{path}: column name {repeated[0]!r} appears twice; rename one")
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise DataError(
                f"{path}, row {row}, column {name!r}: missing; remove the row or fill the value in"
            )
        columns[name] = _checked_array(path, "column", name, column.to_numpy())
    return columns


def _checked_array(path: Path, kind: str, name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "biuf":
        raise DataError(
            f"{path}, {kind} {name!r}: expected numbers, got {values.dtype}; "
            "recode words or dates as numbers"
        )
    if not np.isfinite(values).all():
        where = ", ".join(str(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise DataError(
            f"{path}, {kind} {name!r}: not a finite number at [{where}] (counting from 0); "
            "remove it or fill the value in"
        )
    return values
