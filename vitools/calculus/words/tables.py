"""The table that ``explain`` prints; sites numbered alike (the states of a chain) take one row."""

from __future__ import annotations

import re
from itertools import groupby

Row = tuple[str, str, str, str]
"""Site, family, parents, update."""

COLUMNS: Row = ("site", "family", "parents", "update")
ALIKE = 4
"""Rows alike from which only the first is printed."""


def table(rows: list[Row]) -> str:
    """Columns side by side; an update may go on over several lines."""
    cells = [COLUMNS, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    lines = []
    for row in cells:
        start = "  ".join(text.ljust(w) for text, w in zip(row[:3], widths, strict=True)) + "  "
        lines.append(start + row[3].replace("\n", "\n" + " " * len(start)))
    return "\n".join(line.rstrip() for text in lines for line in text.split("\n"))


def folded(rows: list[Row]) -> list[Row]:
    """The rows, runs of four and more that differ in their numbers alone shown by their first."""
    found: list[Row] = []
    for _, group in groupby(rows, key=_pattern):
        run = list(group)
        if len(run) < ALIKE:
            found += run
        else:
            _, family, parents, update = run[0]
            also = f"\n(that of {run[0][0]}; the others likewise, with numbers of their own)"
            found.append((span([row[0] for row in run]), family, parents, update + also))
    return found


def span(names: list[str], between: str = ", ") -> str:
    """``z0 … z39``; short lists in full."""
    return f"{names[0]} … {names[-1]}" if len(names) >= ALIKE else between.join(names)


def shortened(words: list[str], names: list[str]) -> list[str]:
    """The summands, long runs of those over sites numbered alike written ``a + b + … + z``.

    Args:
        names: what each summand is told apart by, its coefficient left out.
    """
    found: list[str] = []
    kinds = [re.sub(r"(?<=[A-Za-z_])\d+\b", "#", name) for name in names]
    for _, group in groupby(zip(kinds, words, strict=True), key=lambda pair: pair[0]):
        run = [word for _, word in group]
        found += run if len(run) <= ALIKE else [*run[:2], "+ …", run[-1]]
    return found


def _pattern(row: Row) -> object:
    """What rows alike have in common: numbers in names relative to the site's, others left out."""
    number = re.search(r"\d+$", row[0])
    if number is None:
        return row
    stem, at = row[0][: number.start()], int(number[0])

    def relative(match: re.Match[str]) -> str:
        return f"{match[1]}<{int(match[2]) - at}>"

    text = re.sub(r"\b([A-Za-z_]\w*?)(\d+)\b", relative, "\n".join(row[1:]))
    text = re.sub(r"(?<![\w<.])-?\d+(\.\d+)?(e[+-]\d+)?(?![\w>]) ?", "", text)
    return stem, re.sub(r"(?<=[ (])[+-] |(?<=\()-", "± ", text).replace("(± ", "(")
