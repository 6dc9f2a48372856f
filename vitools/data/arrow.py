"""Columns of parquet and Arrow files, by pyarrow, where that is installed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitools.data.column import Column, column_of_array
from vitools.errors import DataError, NotSupportedError


class ArrowSource:
    """A file that says of each column what type it has."""

    noun = "column"
    kind: str
    names: Sequence[str]

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow import ArrowException
        except ImportError as error:
            raise NotSupportedError(
                f"{path}: reading {self.kind} needs the package pyarrow: pip install "
                "'vitools[data]', or save the table as csv or npz."
            ) from error
        self.path = path
        self._errors = (ArrowException, OSError)
        try:
            self.names, num_rows = self._open()
        except self._errors as error:
            raise self._damaged(error) from error
        if not num_rows:
            raise DataError(f"{path} has no rows: expected at least one row of values")

    def _open(self) -> tuple[Sequence[str], int]:
        """The columns' names and the number of rows."""
        raise NotImplementedError

    def _tables(self, wanted: Sequence[str], rows: int) -> Iterator[Any]:
        """Tables of these columns and at most this many rows."""
        raise NotImplementedError

    def _damaged(self, error: Exception) -> DataError:
        return DataError(f"{self.path} is not a {self.kind} file, or damaged: {error}")

    def pieces(self, wanted: Sequence[str], rows: int) -> Iterator[dict[str, Column]]:
        """Each column in the type it is stored in; nulls and NaN count as missing."""
        start = 0
        tables = iter(self._tables(list(dict.fromkeys(wanted)), rows))
        while True:
            try:
                table = next(tables, None)
            except self._errors as error:
                after = f", after row {start - 1}" if start else ""
                raise DataError(f"{self._damaged(error)}{after}") from error
            if table is None:
                return
            yield {name: self._column(name, table.column(name), start) for name in wanted}
            start += len(table)

    def read(self, wanted: Sequence[str]) -> dict[str, Column]:
        """The whole file."""
        try:
            (table,) = self._tables(list(dict.fromkeys(wanted)), 0)
        except self._errors as error:
            raise self._damaged(error) from error
        return {name: self._column(name, table.column(name), 0) for name in wanted}

    def _column(self, name: str, column: Any, start: int) -> Column:
        import pyarrow
        from pyarrow import types

        def place(index: int) -> str:
            return f"row {start + index} (counting from 0)"

        if types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if types.is_decimal(column.type):
            column = column.cast(pyarrow.float64())
        missing = np.asarray(column.is_null().to_numpy(), dtype=bool)
        present = column.drop_null()
        if types.is_temporal(column.type):
            found = np.array([], "M8[s]")  # what is refused says its type, not its values
        elif types.is_string(column.type) or types.is_large_string(column.type):
            words = np.zeros(len(missing), dtype=object)
            words[~missing] = present.to_pylist()
            return Column(words, missing, place)
        else:
            found = present.to_numpy()
        checked = column_of_array(
            self.path, "column", name, found, lambda i: place(int(np.flatnonzero(~missing)[i]))
        )
        values = np.zeros(len(missing), found.dtype)
        values[~missing] = checked.values
        nan = np.zeros_like(missing)
        nan[~missing] = checked.missing
        return Column(values, missing | nan, place)


class Parquet(ArrowSource):
    """A parquet file."""

    kind = "parquet"

    def _open(self) -> tuple[Sequence[str], int]:
        from pyarrow import parquet

        self._file = parquet.ParquetFile(self.path)
        return self._file.schema_arrow.names, self._file.metadata.num_rows

    def _tables(self, wanted: Sequence[str], rows: int) -> Iterator[Any]:
        import pyarrow

        if not rows:
            yield self._file.read(columns=wanted)
            return
        for batch in self._file.iter_batches(rows, columns=wanted):
            yield pyarrow.Table.from_batches([batch])


class ArrowFile(ArrowSource):
    """A file of Arrow's own format (Feather's second version)."""

    kind = "Arrow"

    def _open(self) -> tuple[Sequence[str], int]:
        import pyarrow

        self._reader = pyarrow.ipc.open_file(pyarrow.memory_map(str(self.path)))
        batches = map(self._reader.get_batch, range(self._reader.num_record_batches))
        return self._reader.schema.names, sum(len(batch) for batch in batches)

    def _tables(self, wanted: Sequence[str], rows: int) -> Iterator[Any]:
        import pyarrow

        if not rows:
            yield self._reader.read_all().select(wanted)
            return
        for number in range(self._reader.num_record_batches):
            batch = self._reader.get_batch(number)
            for start in range(0, len(batch), rows):
                part = batch.slice(start, rows)
                yield pyarrow.Table.from_batches([part]).select(wanted)
