"""The columns of a file by name: only those that are asked for are read."""

import difflib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from vitools.data.archives import Archive, SingleArray
from vitools.data.arrow import ArrowFile, Parquet
from vitools.data.column import Column, Piece
from vitools.data.delimited import Delimited
from vitools.data.files import existing_file
from vitools.errors import DataError

DELIMITED = (".csv", ".tsv")
ENDINGS = (*DELIMITED, ".npy", ".npz", ".parquet", ".arrow", ".feather")

ADVICE = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods"), ". Save the sheet as csv"),
    **dict.fromkeys(
        (".txt", ".dat"), ". Rename it to .csv if commas, semicolons or tabs divide it"
    ),
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zip"), ". Unpack it first"),
    **dict.fromkeys((".json", ".h5", ".dta"), ". Save it as parquet or csv"),
}
"""What to do with a table of another kind."""


READERS: dict[str, Callable[[Path], "Source"]] = {
    ".npy": SingleArray,
    ".npz": Archive,
    ".parquet": Parquet,
    ".arrow": ArrowFile,
    ".feather": ArrowFile,
}


class Source(Protocol):
    """An open file: its columns' names, as they stand there, and the contents of some."""

    names: Sequence[str]
    noun: str

    def read(self, wanted: Sequence[str]) -> dict[str, Column]: ...

    def pieces(self, wanted: Sequence[str], rows: int) -> Iterator[Mapping[str, Piece]]: ...


def open_source(path: str | os.PathLike[str]) -> Source:
    """The reader of a file, chosen by its ending."""
    suffix = Path(path).suffix.lower() if isinstance(path, str | os.PathLike) else ""
    if not suffix:
        existing_file(path)
    if suffix not in ENDINGS:
        advice = ADVICE.get(suffix, "")
        raise DataError(
            f"{path}: cannot tell a table from the ending {suffix!r}; one of {', '.join(ENDINGS)}"
            f"{advice}."
        )
    path = existing_file(path)
    return READERS.get(suffix, Delimited)(path)


def column_names(path: str | os.PathLike[str]) -> list[str]:
    """The names in a file, in its order; columns without a name are left out.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "heights.csv")
    ...     _ = file.write_text("age,height\\n3,95\\n")
    ...     column_names(file)
    ['age', 'height']
    """
    return list(dict.fromkeys(name for name in open_source(path).names if name))


def read_columns(
    path: str | os.PathLike[str], wanted: Iterable[str] | None = None
) -> dict[str, Column]:
    """The columns of these names; all that have a name if omitted."""
    source = open_source(path)
    return source.read(checked_names(path, source, wanted))


def checked_names(
    path: str | os.PathLike[str], source: Source, wanted: Iterable[str] | None = None
) -> list[str]:
    """The names, each once, if the file has them; all that it has if omitted."""
    counts = Counter(name for name in source.names if name)
    names = list(counts) if wanted is None else list(dict.fromkeys(wanted))
    for name in names:
        if name not in counts:
            folded = {other.casefold(): other for other in counts}
            near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
            raise DataError(
                f"{path} has no {source.noun} {name!r} ({source.noun}s: {', '.join(counts)})."
                + (f" Did you mean {folded[near[0]]!r}?" if near else "")
            )
        if counts[name] > 1:
            raise DataError(f"{path}: {source.noun} name {name!r} appears twice; rename one")
    return names
