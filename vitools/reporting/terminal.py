"""Plain text for a terminal of 100 columns."""

import math
import textwrap
import unicodedata
from collections.abc import Sequence

from vitools.posterior import Estimate

WIDTH = 100
GAP = "  "


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


def layout(rows: Sequence[Sequence[Cell]]) -> list[str]:
    """Columns of text, the first and the last aligned left, the others right.

    A cell of two strings is a number and its error: numbers end, and errors begin, below each
    other. The first column gives way where a line would pass :data:`WIDTH`.
    """
    table = [_aligned(column) for column in zip(*rows, strict=True)]
    widths = [max(map(columns, column)) for column in table]
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - WIDTH
    widths[0] = max(8, widths[0] - max(0, excess))
    lines = []
    for first, *middle, last in zip(*table, strict=True):
        cells = [_shorten(first, widths[0]), *middle, last]
        padding = [" " * (w - columns(cell)) for w, cell in zip(widths, cells, strict=True)]
        padded = [cells[0] + padding[0]]
        padded += [space + cell for space, cell in zip(padding[1:-1], middle, strict=True)]
        lines.append(GAP.join([*padded, last]).rstrip())
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


def _shorten(text: str, width: int) -> str:
    return text if columns(text) <= width else text[: width - 1] + "…"
