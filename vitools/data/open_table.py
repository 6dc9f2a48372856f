"""Tables larger than memory: columns of many files as named tensors that stay on disk."""

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any, get_args

import numpy as np

from vitools.data.conversion import Request, converted
from vitools.data.files import existing_file
from vitools.data.table import Table, chosen_columns
from vitools.errors import DataError, FileError, OptionError
from vitools.missing import MissingPolicy
from vitools.whole_numbers import check_whole

CACHE = ".vitools-cache"
"""The folder beside the files in which they are kept converted."""


@dataclass(frozen=True)
class Origin:
    """Where the rows of a mapped table come from.

    Attributes:
        paths: the files.
        rows: how many rows each has.
        dropped: rows of all files together that were left out, in order.
        first: the row of all that were kept with which this table begins.
    """

    paths: tuple[str, ...]
    rows: tuple[int, ...]
    dropped: np.ndarray
    first: int = 0

    def place(self, row: int) -> str:
        """``rows/part-2.csv, row 17 (counting from 0)`` of a row of the table."""
        # the row of all files: r + how many were left out before it
        row += self.first
        before, found = -1, row
        while before != found:
            before, found = found, row + int(np.searchsorted(self.dropped, found, side="right"))
        ends = np.cumsum(self.rows)
        number = int(np.searchsorted(ends, found, side="right"))
        if row < 0 or number >= len(self.paths):
            raise OptionError(f"row: expected one of the table's, got {row - self.first}.")
        start = int(ends[number]) - self.rows[number]
        return f"{self.paths[number]}, row {found - start} (counting from 0)"


@dataclass(frozen=True)
class MappedTable(Table):
    """What :func:`open_table` returns: a :class:`~vitools.data.Table` whose tensors are mapped files.

    Attributes:
        origin: which file and row each row comes from.
        cache: the folder that the tensors are read from.
    """

    origin: Origin | None = None
    cache: Path | None = None

    def place(self, row: int) -> str:
        """The file and row of a row of the tensors, in words."""
        assert self.origin is not None
        return self.origin.place(row)


def open_table(
    path: str | os.PathLike[str],
    columns: Mapping[str, str | Sequence[str]] | None = None,
    *,
    missing: MissingPolicy = "refuse",
    labels: Mapping[str, Sequence[str]] | None = None,
    rank: int = 0,
    num_ranks: int = 1,
    cache: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> MappedTable:
    """Open csv, tsv, parquet, Arrow, npy or npz files of any size as named tensors.

    The big sister of :func:`~vitools.data.read_table`, by the same rules for types, words and missing
    values. The files are read twice, a few thousand rows at a time: what they hold, then their values
    into flat files, from which the tensors are mapped (reading a row brings its page into memory, which
    the system takes back when it needs it). The next call finds these and reads nothing.

    Args:
        path: a file, or a pattern such as ``"rows/*.parquet"``, whose files follow one another by name.
        columns: ``{argument: column}``, or several columns for an argument, put side by side. All
            columns under their own names if omitted. The array of an npy file has the file's name less
            the digits at its end.
        missing: ``"refuse"``, ``"drop"`` or ``"mask"``, as of ``read_table``.
        labels: for arguments that are words, the labels of an earlier table in the order of their codes;
            a word that is none of them is refused. By default those that are found.
        rank, num_ranks: which of so many equal parts of the rows; labels are those of all.
        cache: the folder of the flat files; by default ``.vitools-cache`` beside the first file.
        progress: told now and then, in words, how far it is; by default the logger ``vitools``.

    Raises:
        FileError: no file is there, or the cache cannot be written.
        DataError: a file lacks a column, or has another type than those before it, or cells that no model
            takes; with the file and the row.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i, words in enumerate(("oak,21.5", "ash,18", "oak,30")):
    ...         _ = pathlib.Path(folder, f"part-{i}.csv").write_text(f"kind,height\\n{words}\\n")
    ...     table = open_table(f"{folder}/part-*.csv", {"kind": "kind", "y": "height"})
    ...     table.tensors["y"].tolist(), table.tensors["kind"].tolist(), table.labels["kind"]
    ([21.5, 18.0, 30.0], [1, 0, 1], ('ash', 'oak'))
    """
    if missing not in get_args(MissingPolicy):
        expected = ", ".join(get_args(MissingPolicy))
        raise OptionError(f"missing: expected one of {expected}, got {missing!r}.")
    check_whole("num_ranks", num_ranks, 1)
    check_whole("rank", rank, 0)
    if rank >= num_ranks:
        raise OptionError(
            f"rank: expected one from 0 to {num_ranks - 1} (num_ranks - 1), got {rank}."
        )
    paths = files_of(path)
    chosen = chosen_columns(paths[0], columns)
    for argument in chosen:
        if os.sep in argument:
            raise OptionError(f"columns: expected the name of an argument, got {argument!r}.")
    folder = Path(cache) if cache is not None else paths[0].parent / CACHE
    request = Request(tuple(paths), chosen, missing, folder, _of_columns(labels, chosen))
    kept, meta = converted(request, progress or getLogger("vitools").info)
    return _mapped(kept, meta, missing, rank, num_ranks)


def _of_columns(
    labels: Mapping[str, Sequence[str]] | None, chosen: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """The labels given, by the column of their argument."""
    found = {}
    for argument, own in (labels or {}).items():
        if argument not in chosen:
            raise OptionError(
                f"labels: no argument {argument!r} (arguments: {', '.join(chosen)}). Name one of these."
            )
        words = [str(word) for word in own]
        if len(chosen[argument]) > 1 or not words or len(set(words)) < len(words):
            raise OptionError(
                f"labels: expected different words for {argument!r}, an argument of one column, got {own!r}."
            )
        found[chosen[argument][0]] = tuple(words)
    return found


def is_pattern(path: str | os.PathLike[str]) -> bool:
    """Whether it names files by a pattern."""
    return glob.has_magic(os.fspath(path)) and not Path(path).exists()


def files_of(path: str | os.PathLike[str]) -> list[Path]:
    """The files of a path or pattern, in the order of their names."""
    if not isinstance(path, str | os.PathLike) or not is_pattern(path):
        return [existing_file(path)]
    found = [Path(name) for name in sorted(glob.glob(os.fspath(path), recursive=True))]
    files = [file for file in found if not file.is_dir()]
    if not files:
        raise FileError(f"no file matches '{path}': check the pattern (now in {Path.cwd()})")
    return [existing_file(file) for file in files]


def _mapped(
    folder: Path, meta: Mapping[str, Any], missing: MissingPolicy, rank: int, num_ranks: int
) -> MappedTable:
    total = sum(meta["kept"])
    first, last = total * rank // num_ranks, total * (rank + 1) // num_ranks
    if first == last:
        raise OptionError(f"num_ranks: {total} rows are too few for {num_ranks} parts.")
    tensors, masks = {}, {}
    for argument, kept in meta["arguments"].items():
        shape = tuple(kept["shape"])
        file = folder / f"{argument}.values"
        tensors[argument] = _tensor(file, np.dtype(kept["dtype"]), shape)[first:last]
        if missing == "mask":
            mask = folder / f"{argument}.mask"
            masks[argument] = _tensor(mask, np.dtype(bool), shape)[first:last]
    dropped = np.load(folder / "dropped.npy")
    origin = Origin(tuple(meta["paths"]), tuple(meta["rows"]), dropped, first)
    return MappedTable(
        tensors,
        {argument: tuple(labels) for argument, labels in meta["labels"].items()},
        dict(meta["missing"]),
        masks,
        meta["dropped"],
        origin,
        folder,
    )


def _tensor(file: Path, dtype: np.dtype, shape: tuple[int, ...]) -> Any:
    import torch

    try:
        like = torch.from_numpy(np.empty(0, dtype)).dtype
    except TypeError as error:
        raise DataError(
            f"'{file.stem}': torch has no dtype for {dtype}. Store it as float64 or int64."
        ) from error
    size = int(np.prod(shape, dtype=np.int64))
    # not shared: a model that writes into it changes its own copy, not the file
    return torch.from_file(str(file), shared=False, size=size, dtype=like).reshape(shape)
