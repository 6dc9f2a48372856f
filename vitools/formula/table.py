"""The user's table as a frame: columns by name, numbers or words, nothing missing."""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from torch import Tensor

from vitools.data.columns import column_names, read_columns
from vitools.errors import DataError, OptionError
from vitools.problem.sites import listed, nearest

MissingRows = Literal["refuse", "drop"]


def as_frame(data: Any, wanted: Collection[str] | None = None) -> pd.DataFrame:
    """A data frame, a mapping of columns or the path of a file, as a frame of its own index.

    Args:
        wanted: of a file, the columns that are read; those that it lacks are left out.
    """
    if isinstance(data, str | os.PathLike):
        in_file = column_names(data)
        names = [n for n in in_file if wanted is None or n in wanted]
        found = read_columns(data, names) if names else {}
        columns = {}
        for name, column in found.items():
            if column.values.ndim != 1:
                raise DataError(
                    f"{data}, column '{name}': expected a column, got an array {list(column.values.shape)}."
                )
            values = column.values
            if column.missing.any():
                is_words = values.dtype == object
                values = np.array(values, dtype=object if is_words else float)
                values[column.missing] = None if is_words else np.nan
            columns[name] = values
        frame = _of_columns(columns, str(data))
        frame.attrs["columns"] = in_file
        return frame
    if isinstance(data, pd.DataFrame):
        if not data.columns.is_unique:
            twice = data.columns[data.columns.duplicated()][0]
            raise DataError(f"data: column name '{twice}' appears twice; rename one.")
        return data.reset_index(drop=True)
    if isinstance(data, Mapping):
        return _of_columns(
            {k: v.detach().cpu().numpy() if isinstance(v, Tensor) else v for k, v in data.items()},
            "data",
        )
    raise OptionError(
        f"data: expected a pandas DataFrame, a mapping of columns or the path of a file, got {type(data).__name__}."
    )


def _of_columns(columns: Mapping[str, Any], title: str) -> pd.DataFrame:
    lengths = {}
    for name, column in columns.items():
        if not isinstance(name, str):
            raise OptionError(f"{title}: expected names of columns, got {name!r}.")
        if isinstance(column, str) or not hasattr(column, "__len__") or np.ndim(column) != 1:
            raise DataError(f"{title}, column '{name}': expected one value for each row.")
        lengths[name] = len(column)
    if len(set(lengths.values())) > 1:
        words = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"{title}: the columns differ in length ({words}).")
    return pd.DataFrame({k: _plain(v) for k, v in columns.items()})


def _plain(column: Any) -> Any:
    return (
        column.to_numpy()
        if isinstance(column, pd.Series) and column.dtype != "category"
        else column
    )


def checked_rows(
    frame: pd.DataFrame, names: Sequence[str], missing: MissingRows, title: str = "data"
) -> tuple[pd.DataFrame, int]:
    """The columns that a formula names, whole rows only, and how many were left out.

    Raises:
        DataError: a column is not there, a value is missing or not finite, no row is left.
    """
    if missing not in get_args(MissingRows):
        raise OptionError(f"missing: expected 'refuse' or 'drop', got {missing!r}.")
    for name in names:
        if name not in frame.columns:
            columns = [str(column) for column in frame.attrs.get("columns", frame.columns)]
            raise DataError(
                f"{title} has no column '{name}', which the formula names (columns: {listed(columns, 12)})."
                f"{nearest(name, columns)}"
            )
    frame = frame[list(dict.fromkeys(names))]
    if not len(frame):
        raise DataError(f"{title}: no rows.")
    for name in frame.columns:
        _refuse_odd(frame[name], name, title)
    frame = frame.assign(**{name: _simple(frame[name]) for name in frame.columns})
    gaps = frame.isna()
    lacking = gaps.any(axis=1).to_numpy()
    if not lacking.any():
        return frame, 0
    counts = ", ".join(f"{name} {int(gaps[name].sum())}" for name in frame if gaps[name].any())
    if missing == "refuse":
        row = int(np.flatnonzero(lacking)[0])
        name = next(name for name in frame if gaps[name][row])
        raise DataError(
            f"{title}, column '{name}': missing in row {row} (counting from 0); in all {counts}. Fill "
            "it in, or leave out rows that lack a value: missing='drop' (--missing drop).",
            row=row,
        )
    if lacking.all():
        raise DataError(f"{title}: every row lacks a value ({counts}), so none is left to fit.")
    kept = frame[~lacking].reset_index(drop=True)
    for name in kept:
        if isinstance(kept[name].dtype, pd.CategoricalDtype):
            kept[name] = kept[name].cat.remove_unused_categories()
    return kept, int(lacking.sum())


def _simple(column: pd.Series) -> pd.Series:
    """Numbers as numpy's own, words as objects."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column
    if pd.api.types.is_numeric_dtype(column):
        whole = pd.api.types.is_integer_dtype(column) and not column.isna().any()
        return column.astype("int64" if whole else "float64")
    return column.astype(object)


def _refuse_odd(column: pd.Series, name: str, title: str) -> None:
    """Raise for what is neither numbers nor words."""
    kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(column):
        return
    if pd.api.types.is_numeric_dtype(column):
        values = column.to_numpy(dtype=float, na_value=np.nan)
        if np.isinf(values).any():
            row = int(np.flatnonzero(np.isinf(values))[0])
            raise DataError(
                f"{title}, column '{name}': not a finite number in row {row} (counting from 0).",
                row=row,
            )
        return
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        raise DataError(
            f"{title}, column '{name}': dates, which no term takes; give numbers in their place, such "
            "as days since the first row, or the year."
        )
    given = column.dropna()
    odd = [v for v in given if not isinstance(v, str)]
    if odd:
        raise DataError(
            f"{title}, column '{name}': expected numbers or words throughout, got {odd[0]!r} among "
            "others."
        )
