"""The type of a column of text: what its cells look like, and the array they stand for.

A column is of one kind: booleans, integers, real numbers or words. A mixture is refused rather than
guessed at: a word turned into a code among numbers is an error nobody sees later.

:class:`Seen` adds up over the pieces of a file, so that a reader that never holds a whole column
decides on its kind as one that does.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np

from vitools.errors import DataError

MISSING = frozenset(
    ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "nan", "NaN", "NAN", "null", "NULL", "None", ".", "?")
)
"""Cells that stand for no value."""

SAFE_DIGITS = 18
"""As many digits fit an int64, whichever they are."""

_MARKS = r"[\d.,_'\s]*"
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_UNMARKED = re.compile(r"[+-]?\d+(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_REAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+", re.ASCII)
_COMMA = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}([-/.])\d{1,2}\2\d{2,4})([T ]\d{1,2}:\d{2}.*)?"
    r"|\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?",
    re.ASCII,
)
_SIGN = "[+\\-\N{MINUS SIGN}\N{EN DASH}]?"  # what typesetters and spreadsheets make of a hyphen
_ODD = re.compile(
    rf"{_SIGN}[$€£]?\s?\d{_MARKS}\s?[%$€£]?|{_SIGN}\d{_MARKS}e{_SIGN}\d+|.*\0.*",
    re.IGNORECASE | re.DOTALL,
)


class Form(Enum):
    """What one cell looks like."""

    BOOLEAN = auto()
    INTEGER = auto()
    REAL = auto()
    UNMARKED = auto()  # 1e3, or more digits than an int64 holds: neither point nor comma
    COMMA = auto()  # a decimal comma
    THOUSANDS = auto()  # 1,234: the comma may be either
    INFINITE = auto()
    ODD = auto()  # a number to the eye only (1_000, 5 %, 1.234,5), or no text at all
    DATE = auto()
    WORD = auto()


NUMBERS = frozenset((Form.INTEGER, Form.UNMARKED, Form.REAL, Form.COMMA, Form.THOUSANDS))


class Kind(Enum):
    """What a column holds."""

    NOTHING = auto()
    BOOLEANS = auto()
    INTEGERS = auto()
    REALS = auto()
    WORDS = auto()


def form_of(cell: str) -> Form:
    """The form of a cell that is not missing, stripped of spaces.

    >>> [form_of(cell).name for cell in ("7", "1e3", "1.5", "1,5", "True", "2020-01-02", "7 %", "oak")]
    ['INTEGER', 'UNMARKED', 'REAL', 'COMMA', 'BOOLEAN', 'DATE', 'ODD', 'WORD']
    """
    if cell.casefold() in ("true", "false"):
        return Form.BOOLEAN
    is_short = len(cell) < 100  # int() raises for thousands of digits
    if is_short and _INTEGER.fullmatch(cell) and -(2**63) <= int(cell) < 2**63:
        return Form.INTEGER
    for pattern, form in (
        (_UNMARKED, Form.UNMARKED),
        (_REAL, Form.REAL),
        (_INFINITE, Form.INFINITE),
        (_THOUSANDS, Form.THOUSANDS),
        (_COMMA, Form.COMMA),
        (_DATE, Form.DATE),
        (_ODD, Form.ODD),
    ):
        if pattern.fullmatch(cell):
            is_number = form in (Form.UNMARKED, Form.REAL, Form.COMMA)
            return Form.INFINITE if is_number and math.isinf(_number(cell)) else form
    return Form.WORD


def _number(cell: str) -> float:
    """A cell with a decimal point or comma; infinite where a double cannot hold it."""
    return float(cell.replace(",", "."))


@dataclass
class Seen:
    """The forms of a column's cells, with the first cell of each and where it stood."""

    first: dict[Form, tuple[str, str]] = field(default_factory=dict)
    paths: dict[Form, object] = field(default_factory=dict)

    def add(self, cells: Sequence[str], places: Sequence[str], path: object = None) -> None:
        """Take in more cells, none of them missing; ``places`` are words such as ``line 3``.

        Args:
            path: the file that they stand in, where the column is that of several.
        """
        known = set(self.first)
        self._add(cells, places)
        self.paths.update(dict.fromkeys(self.first.keys() - known, path))

    def _add(self, cells: Sequence[str], places: Sequence[str]) -> None:
        quick = _plain_form(cells)
        if quick is not None:
            self.first.setdefault(quick, (places[0], cells[0]))
            return
        forms = {cell: form_of(cell) for cell in set(cells)}
        for form in set(forms.values()) - self.first.keys():
            index = next(i for i, cell in enumerate(cells) if forms[cell] is form)
            self.first[form] = places[index], cells[index]

    def kind(self, path: object, column: str) -> Kind:
        """What the column holds; a :class:`DataError` names the cell that does not fit."""
        numbers = self.first.keys() & NUMBERS

        def refusal(form: Form, words: str) -> DataError:
            place, cell = self.first[form]
            file = self.paths.get(form) or path
            return DataError(f"{file}, {place}, column {column!r}: {words.format(cell=repr(cell))}")

        if Form.DATE in self.first:
            raise refusal(
                Form.DATE,
                "{cell} is a date or a time, which no model takes; give a number in its place, such "
                "as days since the first row, or the year",
            )
        if Form.WORD in self.first and not numbers and Form.ODD not in self.first:
            return Kind.WORDS
        if Form.INFINITE in self.first:
            raise refusal(
                Form.INFINITE, "{cell} is not finite; remove the row or fill the value in"
            )
        if Form.ODD in self.first:
            raise refusal(
                Form.ODD,
                "expected a number, got {cell}; write it with digits, a plain minus sign and a decimal point alone",
            )
        for other in (Form.WORD, Form.BOOLEAN):
            if other in self.first and numbers:
                raise refusal(
                    other,
                    "expected a number as in other rows, got {cell}; mend the cell, or give every "
                    "row a word if these are labels",
                )
        if Form.COMMA in self.first and Form.REAL in self.first:
            raise refusal(
                Form.COMMA, "{cell} has a decimal comma, other rows a decimal point; write one"
            )
        if Form.THOUSANDS in self.first and Form.COMMA not in self.first:
            raise refusal(
                Form.THOUSANDS,
                "the comma of {cell} may be a decimal mark or part thousands; write numbers with a "
                "decimal point and nothing else",
            )
        if not self.first:
            return Kind.NOTHING
        if numbers:
            return Kind.INTEGERS if numbers == {Form.INTEGER} else Kind.REALS
        return Kind.BOOLEANS


def _plain_form(cells: Sequence[str]) -> Form | None:
    """The form of a long column of plain numbers, without a look at each cell."""
    if not cells:
        return None
    characters = set().union(*cells)
    if characters <= set("0123456789") and max(map(len, cells)) <= SAFE_DIGITS:
        return Form.INTEGER
    if characters <= set("0123456789.+-eE") and "." in characters:
        try:
            finite = all(map(math.isfinite, map(float, cells)))
        except ValueError:
            return None
        return Form.REAL if finite else None
    return None


def values_of(cells: Sequence[str], kind: Kind) -> np.ndarray:
    """The cells as an array ``[rows]``: bool, int64 or float64. Words stay words."""
    if kind is Kind.BOOLEANS:
        return np.array([cell.casefold() == "true" for cell in cells], dtype=bool)
    if kind is Kind.INTEGERS:
        return np.array([int(cell) for cell in cells], dtype=np.int64)
    if kind is Kind.WORDS:
        return np.array(cells, dtype=object)
    return np.array([_number(cell) for cell in cells], dtype=np.float64)


def codes_of(words: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Words as int64 codes of the same shape, and the label of each code.

    Labels are in alphabetical order; where no word comes twice they stand in the order of the rows,
    so that label ``i`` is that of row ``i``.

    >>> codes_of(np.array(["oak", "ash", "oak"], dtype=object))
    (array([1, 0, 1]), ('ash', 'oak'))
    """
    flat = [str(word) for word in words.ravel()]
    distinct = set(flat)
    labels = tuple(flat) if len(distinct) == len(flat) else tuple(sorted(distinct))
    code = {label: i for i, label in enumerate(labels)}
    return np.array([code[word] for word in flat], dtype=np.int64).reshape(words.shape), labels
