"""Text with a column name on its first line: cells between commas, semicolons or tabs."""

import csv
import re
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

from vitools.data.cells import NUMBERS, form_of
from vitools.data.column import Cells, Column, column_of_cells
from vitools.errors import DataError

DELIMITERS = ",;\t"

BINARY = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b", b"PAR1", b"SQLite", b"%PDF")
"""How workbooks (.xlsx, .ods, .xls), archives and other files begin that are no text."""


class Delimited:
    """A csv or tsv file. UTF-8, with or without a byte-order mark; cells may be quoted."""

    noun = "column"

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as stream:
            if stream.read(8).startswith(BINARY):
                raise DataError(
                    f"{path} is not text, whatever its name: a workbook, an archive or another binary "
                    "file; open it in its own program and save the table as csv."
                )
        with self._rows() as rows:
            self.names: Sequence[str] = self._header(next(rows, []))

    @contextmanager
    def _rows(self) -> Iterator[Any]:
        rows: Any = None
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as stream:
                bare = re.sub(r'"[^"]*"?', "", stream.readline())  # a quoted name may hold any mark
                stream.seek(0)
                rows = csv.reader(stream, delimiter=max(DELIMITERS, key=bare.count), strict=True)
                yield rows
        except UnicodeDecodeError as error:
            with self.path.open("rb") as raw:
                kind = "UTF-16" if raw.read(2) in (b"\xff\xfe", b"\xfe\xff") else "latin-1, perhaps"
            raise DataError(
                f"{self.path} is not UTF-8 text ({kind}; {error.reason}): save it as UTF-8"
            ) from error
        except csv.Error as error:
            raise DataError(
                f"{self.path}, line {rows.line_num}: not valid csv ({error})"
            ) from error

    def _header(self, cells: list[str]) -> list[str]:
        names = [cell.strip() for cell in cells]
        if not any(names):
            raise DataError(
                f"{self.path}, line 1: expected the names of the columns, got a blank line"
            )
        if all(form_of(name) in NUMBERS for name in names if name):
            raise DataError(
                f"{self.path}, line 1: expected the names of the columns, got numbers; "
                "add a first line with a name for each column"
            )
        return names

    def pieces(self, wanted: Sequence[str], rows: int) -> Iterator[dict[str, Cells]]:
        """The columns, this many rows at a time; other columns may hold anything."""
        pick = itemgetter(*(self.names.index(name) for name in wanted), 0)  # 0: always a tuple
        picked: list[tuple[str, ...]] = []
        skips: list[tuple[int, int]] = []  # from this row on, its index and this is the line
        blank = done = 0
        with self._rows() as found:
            next(found)
            for row in found:
                if not row:
                    blank += 1
                    continue
                if blank and len(self.names) == 1:  # a blank line between rows is a blank cell
                    if not skips:
                        skips.append((0, found.line_num - blank))
                    picked += [("", "")] * blank
                blank = 0
                if len(row) != len(self.names):
                    raise DataError(
                        f"{self.path}, line {found.line_num}: {len(row)} cells, expected "
                        f"{len(self.names)} (one for each of {', '.join(self.names)})"
                    )
                offset = found.line_num - len(picked)
                if not skips or offset != skips[-1][1]:
                    skips.append((len(picked), offset))
                picked.append(pick(row))
                if len(picked) >= rows:
                    yield _cells(wanted, picked, skips)
                    done += len(picked)
                    picked, skips = [], []
        if picked:
            yield _cells(wanted, picked, skips)
        elif not done:
            raise DataError(
                f"{self.path} has column names but no rows: expected at least one row of values"
            )

    def read(self, wanted: Sequence[str]) -> dict[str, Column]:
        """Each as a column of one type."""
        (whole,) = self.pieces(wanted, sys.maxsize)
        return {
            name: column_of_cells(self.path, name, piece.cells, piece.place)
            for name, piece in whole.items()
        }


def _cells(
    wanted: Sequence[str], picked: list[tuple[str, ...]], skips: list[tuple[int, int]]
) -> dict[str, Cells]:
    def place(index: int) -> str:
        _, offset = skips[bisect_right(skips, index, key=itemgetter(0)) - 1]
        return f"line {index + offset}"

    columns = zip(wanted, zip(*picked, strict=True), strict=False)  # but that for the tuple
    return {name: Cells.of(cells, place) for name, cells in columns}
