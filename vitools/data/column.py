"""One column of a file, whichever its format: values, and which of them are missing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from vitools.data.cells import MISSING, Kind, Seen, values_of
from vitools.errors import DataError


@dataclass(frozen=True)
class Column:
    """One column of a file.

    Attributes:
        values: ``[rows]``, of an npz file any shape: bool, integers, floats, or words (dtype object).
            What stands where a value is missing means nothing.
        missing: of the same shape, true where there is no value.
        place: in words, where in the file the value of a flat index stands.
    """

    values: np.ndarray
    missing: np.ndarray
    place: Callable[[int], str]


@dataclass(frozen=True)
class Cells:
    """Some rows of a column of text, of which all rows together decide what type they are.

    Attributes:
        cells: stripped of spaces.
        missing: ``[rows]``, true where there is no value.
        place: in words, where in the file a row of these stands.
    """

    cells: list[str]
    missing: np.ndarray
    place: Callable[[int], str]

    @classmethod
    def of(cls, cells: Sequence[str], place: Callable[[int], str]) -> "Cells":
        stripped = [cell.strip() for cell in cells]
        missing = np.fromiter((cell in MISSING for cell in stripped), bool, len(stripped))
        return cls(stripped, missing, place)

    @property
    def given(self) -> list[str]:
        """The cells that hold a value."""
        if not self.missing.any():
            return self.cells
        return [self.cells[i] for i in np.flatnonzero(~self.missing)]

    @property
    def places(self) -> "Places":
        """Where those stand."""
        return Places(np.flatnonzero(~self.missing), self.place)

    def column(self, kind: Kind) -> Column:
        """As a column of this kind."""
        found = values_of(self.given, kind)
        values = np.zeros(len(self.cells), found.dtype)
        values[~self.missing] = found
        return Column(values, self.missing, self.place)


Piece = Column | Cells
"""Some rows of one column of a file."""


def column_of_cells(
    path: Path, name: str, cells: Sequence[str], places: Callable[[int], str]
) -> Column:
    """A column of text, in the type that its cells agree on."""
    whole = Cells.of(cells, places)
    seen = Seen()
    seen.add(whole.given, whole.places)
    return whole.column(seen.kind(path, name))


class Places(Sequence[str]):
    """Where chosen cells of a column stand, put in words only when asked."""

    def __init__(self, chosen: np.ndarray, place: Callable[[int], str]) -> None:
        self.chosen, self.place = chosen, place

    def __len__(self) -> int:
        return len(self.chosen)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> "Places": ...
    def __getitem__(self, i: int | slice) -> "str | Places":
        if isinstance(i, slice):
            return Places(self.chosen[i], self.place)
        return self.place(int(self.chosen[i]))


def column_of_array(
    path: Path, kind: str, name: str, values: np.ndarray, place: Callable[[int], str]
) -> Column:
    """An array of numbers as a column; NaN is a missing value, infinity is refused."""
    if values.dtype.kind == "M":
        raise DataError(
            f"{path}, {kind} {name!r}: dates ({values.dtype}), which no model takes; give numbers in "
            "their place, such as days since the first row, or the year"
        )
    if values.dtype.kind not in "biuf":
        raise DataError(f"{path}, {kind} {name!r}: expected numbers or words, got {values.dtype}")
    missing = np.isnan(values)
    if not np.isfinite(values[~missing]).all():
        index = int(np.flatnonzero(np.isinf(values))[0])
        raise DataError(
            f"{path}, {kind} {name!r}: not a finite number at {place(index)}; remove it or fill the "
            "value in"
        )
    return Column(values, missing, place)
