"""Plain text for a terminal of 80 columns."""

import math
import textwrap
import unicodedata
from collections.abc import Sequence

from vitools.posterior import Estimate

WIDTH = 80
GAP = "  "
NARROWEST = 8


def estimate_words(estimate: Estimate | None) -> tuple[str, str]:
    """A number to two decimals, or as many as its standard error supports, and that error.

    Blank for ``None``. An error too small to show is rounded up, not to zero.

    >>> estimate_words(Estimate(-3455.8712, 0.0213)), estimate_words(Estimate(-12.7903))
    (('-3455.87', '± 0.02'), ('-12.79', 'exact'))
    """
    if estimate is None:
        return "", ""
    if estimate.is_exact:
        return f"{estimate.value:.2f}", "exact"
    error = estimate.standard_error
    if not math.isfinite(error):
        return f"{estimate.value:.2f}", "± ?"
    digits = 2 if error < 1.0 else 1 if error < 10.0 else 0
    return f"{estimate.value:.{digits}f}", f"± {max(error, 0.01):.{digits}f}"


def seconds_words(seconds: float) -> str:
    """Seconds to two or three significant figures: ``"0.08"``, ``"4.1"``, ``"215"``."""
    digits = 2 if seconds < 1 else 1 if seconds < 100 else 0
    return f"{seconds:.{digits}f}"


Cell = str | tuple[str, str]


def layout(rows: Sequence[Sequence[Cell]], names: Sequence[int] = (0,)) -> list[str]:
    """Columns of text, names and the last aligned left, the others right.

    A cell of two strings is a number and its error: numbers end, and errors begin, below each
    other. Where a line would pass :data:`WIDTH`, the widest column of ``names`` gives way.
    """
    table = [_aligned(column) for column in zip(*rows, strict=True)]
    widths = [max(map(columns, column)) for column in table]
    while sum(widths) + len(GAP) * (len(widths) - 1) > WIDTH:
        widest = max(names, key=lambda i: widths[i])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    for i in names:
        table[i] = [shorten(cell, widths[i]) for cell in table[i]]
    left = {*names, len(table) - 1}
    lines = []
    for cells in zip(*table, strict=True):
        padding = [" " * (width - columns(cell)) for width, cell in zip(widths, cells, strict=True)]
        padded = [
            cell + space if i in left else space + cell
            for i, (cell, space) in enumerate(zip(cells, padding, strict=True))
        ]
        lines.append(GAP.join(padded).rstrip())
    return lines


def _aligned(column: Sequence[Cell]) -> list[str]:
    pairs = [cell for cell in column if isinstance(cell, tuple) and any(cell)]
    value, error = (max((columns(pair[i]) for pair in pairs), default=0) for i in (0, 1))
    return [
        cell if isinstance(cell, str) else f"{cell[0]:>{value}} {cell[1]:<{error}}"
        for cell in column
    ]


def paragraph(text: str) -> list[str]:
    """``text`` in lines of at most :data:`WIDTH` columns, continued with an indent."""
    indent = " " * (len(text) - len(text.lstrip()))
    return textwrap.wrap(
        text.strip(), WIDTH, initial_indent=indent, subsequent_indent=indent + "    "
    )


def columns(text: str) -> int:
    """The columns text takes: combining marks, such as the hat of k̂, take none."""
    return sum(not unicodedata.combining(character) for character in text)


def shorten(text: str, width: int) -> str:
    """``text`` with its middle left out where it takes more than ``width`` columns.

    >>> shorten("a_long_name_of_a_site[12]", 16)
    'a_long_…site[12]'
    """
    if columns(text) <= width:
        return text
    start = (width - 1) // 2
    return f"{text[:start]}…{text[len(text) - (width - 1 - start) :]}"
