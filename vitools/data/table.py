"""From the columns of a file to the arguments of a model: tensors by name, labels, what is missing."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

import numpy as np

from vitools.data.cells import codes_of
from vitools.data.column import Column
from vitools.data.columns import column_names, read_columns
from vitools.errors import DataError, OptionError
from vitools.missing import MissingPolicy

if TYPE_CHECKING:  # the files themselves are read without torch
    from torch import Tensor


@dataclass(frozen=True)
class Table:
    """What :func:`read_table` returns.

    Attributes:
        tensors: ``{argument: [rows]}``, ``[rows, columns]`` for an argument of several columns, of an
            npz file any shape. Integers are int64, numbers with a fraction float64, words int64 codes;
            npz and parquet files keep their own types.
        labels: for each argument that was words, the label of each code, for
            ``Problem.with_coords``.
        missing: how many values of each argument the file lacks; arguments that lack none are left out.
        masks: by argument, of its shape, true where there is a value. Only with ``missing="mask"``.
        dropped: how many rows were left out. Only with ``missing="drop"``.
    """

    tensors: "dict[str, Tensor]"
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    masks: "dict[str, Tensor]" = field(default_factory=dict)
    dropped: int = 0


def read_table(
    path: str | os.PathLike[str],
    columns: Mapping[str, str | Sequence[str]] | None = None,
    *,
    missing: MissingPolicy = "refuse",
) -> Table:
    """Read a csv, tsv, npy, npz, parquet or Arrow file into named tensors.

    csv: the first line names the columns; a comma, a semicolon or a tab separates them; the decimal
    mark is a point or, in a column that has no point, a comma. Each column is booleans
    (``true``/``false``), integers, real numbers or words; a mixture is refused, and so are dates. Blank
    cells and ``NA``, ``NaN``, ``null``, ``None``, ``.``, ``?`` are missing values, as are NaN in npz and
    nulls in parquet files, which need the extra ``vitools[data]``.

    Args:
        columns: ``{argument: column}``, or several columns for an argument, put side by side. Others
            are not looked at. All columns under their own names if omitted.
        missing: ``"refuse"`` raises where a value is missing; ``"drop"`` leaves out rows that lack one;
            ``"mask"`` puts the column's first value there, says so in ``masks``, and leaves it to the
            model to silence it.

    Raises:
        FileError: the file cannot be opened.
        DataError: a column is not there or not of one type, with the line and the column.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "trees.csv")
    ...     _ = file.write_text("kind;height m\\noak;21,5\\nash;\\noak;18\\n")
    ...     table = read_table(file, {"kind": "kind", "y": "height m"}, missing="drop")
    >>> table.tensors["y"], table.labels, table.dropped
    (tensor([21.5000, 18.0000], dtype=torch.float64), {'kind': ('oak',)}, 1)
    """
    if missing not in get_args(MissingPolicy):
        expected = ", ".join(get_args(MissingPolicy))
        raise OptionError(f"missing: expected one of {expected}, got {missing!r}.")
    chosen = chosen_columns(path, columns)
    found = read_columns(path, [name for names in chosen.values() for name in names])
    gaps = {name: int(column.missing.sum()) for name, column in found.items()}
    dropped = 0
    if any(gaps.values()) and missing == "refuse":
        raise _refusal(path, found, gaps)
    if any(gaps.values()) and missing == "drop":
        keep = _whole_rows(path, found)
        dropped = int((~keep).sum())
        found = {
            name: Column(column.values[keep], column.missing[keep], column.place)
            for name, column in found.items()
        }
    tensors, labels, masks = {}, {}, {}
    for argument, names in chosen.items():
        values, own_labels = _values(path, argument, [found[name] for name in names], names)
        tensors[argument] = _tensor(path, argument, values)
        if own_labels:
            labels[argument] = own_labels
        if missing == "mask":
            masks[argument] = _tensor(
                path, argument, ~_side_by_side([found[name].missing for name in names])
            )
    counts = {a: sum(gaps[name] for name in names) for a, names in chosen.items()}
    return Table(tensors, labels, {a: n for a, n in counts.items() if n}, masks, dropped)


def chosen_columns(
    path: str | os.PathLike[str], columns: Mapping[str, str | Sequence[str]] | None
) -> dict[str, tuple[str, ...]]:
    """The columns of each argument; all columns of the file under their own names if omitted."""
    if columns is None:
        return {name: (name,) for name in column_names(path)}
    if not isinstance(columns, Mapping) or not columns:
        raise OptionError(f"columns: expected {{argument: column}}, got {columns!r}.")
    chosen: dict[str, tuple[str, ...]] = {}
    for argument, names in columns.items():
        several = isinstance(names, Sequence) and not isinstance(names, str)
        listed = tuple(names) if several else (names,)
        if not listed or not all(isinstance(name, str) for name in listed):
            raise OptionError(
                f"columns: expected the name of a column for '{argument}', got {names!r}."
            )
        chosen[argument] = tuple(str(name) for name in listed)
    return chosen


def _refusal(
    path: str | os.PathLike[str], found: dict[str, Column], gaps: dict[str, int]
) -> DataError:
    name = next(name for name, count in gaps.items() if count)
    column = found[name]
    place = column.place(int(np.flatnonzero(column.missing)[0]))
    counts = ", ".join(f"{name} {count}" for name, count in gaps.items() if count)
    return DataError(
        f"{path}, {place}, column {name!r}: missing (blank, NA, NaN or the like); in all {counts}. "
        "Fill it in, or choose: --missing drop (missing='drop') leaves out rows that lack a value, "
        "--missing mask tells a model's argument 'mask' where they are"
    )


def _whole_rows(path: str | os.PathLike[str], found: dict[str, Column]) -> np.ndarray:
    """Which rows lack nothing: the rows of npz arrays are entries along their first dim."""
    sizes = {name: column.values.shape[:1] for name, column in found.items()}
    if len(set(sizes.values())) > 1 or () in sizes.values():
        raise DataError(
            f"{path}: rows that lack a value cannot be dropped from arrays of different lengths "
            f"({', '.join(f'{name} {list(size)}' for name, size in sizes.items())})"
        )
    lacking = [c.missing.reshape(len(c.missing), -1).any(1) for c in found.values()]
    keep = ~np.any(lacking, axis=0)
    if not keep.any():
        raise DataError(
            f"{path}: every row lacks a value ({_gaps(found)}), so none is left to fit; leave that "
            "column out, or fill it in"
        )
    return keep


def _gaps(found: dict[str, Column]) -> str:
    return ", ".join(
        f"{name} {int(c.missing.sum())} of {c.missing.size}"
        for name, c in found.items()
        if c.missing.any()
    )


def _values(
    path: str | os.PathLike[str], argument: str, columns: list[Column], names: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    filled = []
    for name, column in zip(names, columns, strict=True):
        values = column.values
        if column.missing.any():
            if column.missing.all():
                raise DataError(f"{path}, column {name!r}: blank throughout; fill it in")
            stand_in = values[~column.missing][0]  # a value the model can take
            values = np.where(column.missing, stand_in, values)
        filled.append(values)
    if len(filled) == 1:
        return codes_of(filled[0]) if filled[0].dtype == object else (filled[0], ())
    for name, values in zip(names, filled, strict=True):
        if values.dtype == object or values.ndim != 1:
            got = "words" if values.dtype == object else f"an array {list(values.shape)}"
            raise DataError(
                f"{path}, column {name!r}: {got}, which cannot stand beside columns of numbers in "
                f"'{argument}'. Name its columns, each by --columns {argument}=COLUMN, or "
                f"columns={{'{argument}': [...]}}"
            )
    if len({len(values) for values in filled}) > 1:
        raise DataError(
            f"{path}: the columns of '{argument}' ({', '.join(names)}) differ in length"
        )
    return _side_by_side(filled), ()


def _side_by_side(arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=-1)


def _tensor(path: str | os.PathLike[str], name: str, array: np.ndarray) -> "Tensor":
    import torch

    try:
        # torch reads the machine's own byte order only, and wants to own what it reads
        return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))
    except TypeError as error:
        raise DataError(
            f"'{path}', column '{name}': torch has no dtype for {array.dtype}. Store it as "
            "float64 or int64."
        ) from error
