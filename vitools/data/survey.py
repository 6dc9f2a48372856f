"""What the columns of many files hold, found in one pass that holds a few thousand rows at a time.

Types are those of all rows together: whole numbers in one file and fractions in the next are numbers
with a fraction; words in one and numbers in the next are refused, by file and row.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitools.data.cells import Kind, Seen
from vitools.data.column import Cells, Column, Piece
from vitools.data.columns import Source, checked_names, open_source
from vitools.errors import DataError

CELLS = 2**18
"""Values that are looked at together."""
MOST_LABELS = 2**20
"""Words that a column may be made of: their labels stay in memory."""

NUMBERS = (Kind.INTEGERS, Kind.REALS)
NOUNS = {
    Kind.BOOLEANS: "booleans",
    Kind.INTEGERS: "numbers",
    Kind.REALS: "numbers",
    Kind.WORDS: "words",
}
KINDS = {
    "b": Kind.BOOLEANS,
    "i": Kind.INTEGERS,
    "u": Kind.INTEGERS,
    "f": Kind.REALS,
    "O": Kind.WORDS,
}

Watch = Callable[[int, int], None]
"""Told how many rows and files are done."""


@dataclass
class Found:
    """What one column holds.

    Attributes:
        dtype: of its values; words are codes.
        shape: of one row's value.
        gaps: how many values are missing.
        first_gap: where the first of them would stand.
        stand_in: the first value there is.
        words: the words there are, in the order of their first appearance.
    """

    name: str
    kind: Kind = Kind.NOTHING
    dtype: np.dtype | None = None
    shape: tuple[int, ...] | None = None
    gaps: int = 0
    first_gap: str = ""
    stand_in: object = None
    words: dict[str, int] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)
    is_repeating: bool = False
    since: Path | None = None  # the first file that says what kind it is
    given: tuple[str, ...] | None = None  # the only labels that there may be
    _codes: dict[str, int] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of each code: alphabetical, or in the order of the rows where no word comes twice."""
        if self.given is not None:
            return self.given
        return tuple(sorted(self.words) if self.is_repeating else self.words)

    @property
    def stored(self) -> np.dtype:
        """The type that its values are kept in."""
        assert self.dtype is not None
        return np.dtype(np.int64) if self.kind is Kind.WORDS else self.dtype

    def add(self, piece: Piece, path: Path) -> None:
        """Take in more rows."""
        if piece.missing.any():
            if not self.gaps:
                self.first_gap = f"{path}, {piece.place(int(np.flatnonzero(piece.missing)[0]))}"
            self.gaps += int(piece.missing.sum())
        if isinstance(piece, Cells):
            self._add_cells(piece, path)
            return
        self._set_kind(KINDS[piece.values.dtype.kind], piece, path)
        shape = piece.values.shape[1:]
        if self.shape not in (None, shape):
            raise DataError(
                f"{path}, column {self.name!r}: rows of shape {list(shape)}, those of {self.since} "
                f"have {list(self.shape or ())}; give all files one shape"
            )
        self.shape = shape
        dtype = piece.values.dtype.newbyteorder("=")
        self.dtype = dtype if self.dtype is None else np.result_type(self.dtype, dtype)
        given = piece.values[~piece.missing]
        if self.stand_in is None and given.size:
            self.stand_in = given.flat[0]
        if self.kind is Kind.WORDS:
            present = np.flatnonzero(~piece.missing)
            words = [str(word) for word in given.ravel()]
            self._add_words(words, path, lambda i: piece.place(int(present[i])))

    def _add_cells(self, piece: Cells, path: Path) -> None:
        given = piece.given
        self.shape = ()
        if not given:
            return
        own = Seen()
        own.add(given, piece.places)
        kind = own.kind(path, self.name)
        self._set_kind(kind, piece, path)
        self.seen.add(given, piece.places, path)
        self.kind = self.seen.kind(path, self.name)
        self.dtype = np.dtype({Kind.BOOLEANS: bool, Kind.INTEGERS: np.int64, Kind.WORDS: object}.get(
            self.kind, np.float64
        ))  # fmt: skip
        if self.stand_in is None:
            self.stand_in = piece.column(kind).values[~piece.missing][0]
        if self.kind is Kind.WORDS:
            self._add_words(given, path, piece.places.__getitem__)

    def _add_words(self, words: Sequence[str], path: Path, place: Callable[[int], str]) -> None:
        if self.given is not None:
            unseen = set(words).difference(self.given)
            if unseen:
                first = next(i for i, word in enumerate(words) if word in unseen)
                raise DataError(
                    f"{path}, {place(first)}, column {self.name!r}: {words[first]!r} is none of the "
                    f"{len(self.given)} labels given ({_listed(self.given)}); mend the cell, or fit anew "
                    "with the new label"
                )
        before = len(self.words)
        for word in words:
            self.words.setdefault(word, len(self.words))
        self.is_repeating |= len(self.words) - before < len(words)
        if len(self.words) > MOST_LABELS:
            raise DataError(
                f"{path}, column {self.name!r}: more than {MOST_LABELS} different words, whose labels "
                "would fill the memory; give numbers in their place"
            )

    def _set_kind(self, kind: Kind, piece: Piece, path: Path) -> None:
        """Refuse rows of another kind than those before."""
        if self.kind is Kind.NOTHING:
            self.kind, self.since = kind, path
        elif {kind, self.kind} <= set(NUMBERS):
            self.kind = Kind.REALS if Kind.REALS in (kind, self.kind) else Kind.INTEGERS
        elif kind is not self.kind:
            place = piece.place(int(np.flatnonzero(~piece.missing)[0]) if piece.missing.size else 0)
            raise DataError(
                f"{path}, {place}, column {self.name!r}: {NOUNS[kind]} from here on, "
                f"{NOUNS[self.kind]} in {self.since}; write one type in all files"
            )

    def codes_of(self, words: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """The code of each word; that of the stand-in where one is missing."""
        if not self._codes:
            self._codes = {label: code for code, label in enumerate(self.labels)}
        codes, other = self._codes, self._codes[str(self.stand_in)]
        pairs = zip(words.ravel(), missing.ravel(), strict=True)
        flat = [other if gap else codes[str(word)] for word, gap in pairs]
        return np.array(flat, np.int64).reshape(words.shape)


@dataclass(frozen=True)
class Survey:
    """What chosen columns of all files hold, and how many rows each file has."""

    paths: tuple[Path, ...]
    columns: dict[str, Found]
    rows: tuple[int, ...]


def opened(paths: Sequence[Path], names: Sequence[str] | None) -> Iterator[tuple[Path, Source]]:
    """Each file with its reader, once it is known to have these columns."""
    for path in paths:
        source = open_source(path)
        checked_names(path, source, names)
        yield path, source


def pieces_of(
    source: Source, names: Sequence[str], cells: int = CELLS
) -> Iterator[Mapping[str, Piece]]:
    """The rows of a file, as many at a time as there is room for."""
    rows = max(1, cells // max(1, len(names)))
    if source.noun == "array":
        for first in source.pieces(names, 1):  # whose rows may be wide
            width = sum(max(1, piece.missing.size) for piece in first.values())
            rows = max(1, cells // width)
            break
    yield from source.pieces(names, rows)


def _listed(words: Sequence[str], most: int = 6) -> str:
    shown = list(words[:most])
    return ", ".join(shown) + (f", and {len(words) - most} more" if len(words) > most else "")


def survey(
    paths: Sequence[Path],
    names: Sequence[str],
    watch: Watch | None = None,
    labels: Mapping[str, tuple[str, ...]] | None = None,
) -> Survey:
    """One pass over the files.

    Args:
        labels: the only words that columns may hold, in the order of their codes.

    Raises:
        DataError: files that differ in their columns or types, and cells that no model takes, by file
            and row.
    """
    for _ in opened(paths, names):  # what a file lacks is told before an hour of reading
        pass
    columns = {name: Found(name, given=(labels or {}).get(name)) for name in names}
    rows: list[int] = []
    for number, (path, source) in enumerate(opened(paths, names)):
        rows.append(0)
        for piece in pieces_of(source, names):
            for name, part in piece.items():
                columns[name].add(part, path)
            rows[-1] += length_of(piece)
            if watch is not None:
                watch(sum(rows), number)
    for found in columns.values():
        if found.kind is Kind.NOTHING or found.stand_in is None:
            where = os.fspath(paths[0]) if len(paths) == 1 else f"{paths[0].parent}"
            raise DataError(f"{where}, column {found.name!r}: blank throughout; fill it in")
        if found.given is not None and found.kind is not Kind.WORDS:
            raise DataError(
                f"{found.since}, column {found.name!r}: {NOUNS[found.kind]}, where labels are given "
                f"({_listed(found.given)}); leave labels out, or give words"
            )
    return Survey(tuple(paths), columns, tuple(rows))


def length_of(piece: Mapping[str, Piece]) -> int:
    """The number of its rows."""
    return len(next(iter(piece.values())).missing)


def stored_values(piece: Piece, found: Found) -> np.ndarray:
    """The rows in the type that all are kept in, a value that the model can take where one is missing."""
    column: Column = piece.column(found.kind) if isinstance(piece, Cells) else piece
    values = column.values
    if found.kind is Kind.WORDS:
        return found.codes_of(values, column.missing)
    if column.missing.any():
        values = np.where(column.missing, np.asarray(found.stand_in, values.dtype), values)
    return values.astype(found.stored, copy=False)
