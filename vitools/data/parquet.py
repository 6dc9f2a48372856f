"""Columns of a parquet file, by pyarrow, where that is installed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitools.data.column import Column, column_of_array
from vitools.errors import DataError, NotSupportedError


class Parquet:
    """A parquet file; it says of each column what type it has."""

    noun = "column"

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow import ArrowException, parquet
        except ImportError as error:
            raise NotSupportedError(
                f"{path}: reading parquet needs the package pyarrow: pip install 'vitools[data]', "
                "or save the table as csv or npz."
            ) from error
        self.path = path
        self._errors = (ArrowException, OSError)
        try:
            self._file = parquet.ParquetFile(path)
        except self._errors as error:
            raise self._damaged(error) from error
        self.names: Sequence[str] = self._file.schema_arrow.names
        if not self._file.metadata.num_rows:
            raise DataError(f"{path} has no rows: expected at least one row of values")

    def _damaged(self, error: Exception) -> DataError:
        return DataError(f"{self.path} is not a parquet file, or damaged: {error}")

    def read(self, wanted: Sequence[str]) -> dict[str, Column]:
        """Each in the type it is stored in; nulls and NaN count as missing."""
        try:
            table = self._file.read(columns=list(wanted))
        except self._errors as error:
            raise self._damaged(error) from error
        return {name: self._column(name, table.column(name)) for name in wanted}

    def _column(self, name: str, column: Any) -> Column:
        import pyarrow
        from pyarrow import types

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
            return Column(words, missing, _row)
        else:
            found = present.to_numpy()
        checked = column_of_array(self.path, "column", name, found, _row)
        values = np.zeros(len(missing), found.dtype)
        values[~missing] = checked.values
        nan = np.zeros_like(missing)
        nan[~missing] = checked.missing
        return Column(values, missing | nan, _row)


def _row(index: int) -> str:
    return f"row {index} (counting from 0)"
