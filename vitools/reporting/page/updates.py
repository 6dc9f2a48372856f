"""The coordinate updates as a table of the page: what ``explain(problem)`` prints, read back."""

import re
from dataclasses import dataclass, field

from vitools.calculus import explain
from vitools.errors import VitoolsError
from vitools.problem import Problem
from vitools.reporting.page.template import part

COLUMNS = ("site", "family", "parents", "update")


@dataclass
class Row:
    """A site's row: its cells, and lines by which the last one goes on."""

    cells: list[str]
    further: list[str] = field(default_factory=list)

    def markup(self) -> str:
        """The row; a reason for having no update ends with what to use instead, a line of its own."""
        *first, update = self.cells
        *broken, last = [update, *self.further]
        gap = "; " if broken and update.startswith("none:") else " "
        text = gap.join([" ".join(broken), last]) if broken else last
        return part("update", **dict(zip(COLUMNS, [*first, text], strict=True)))


def updates_markup(problem: Problem) -> str:
    """A table where the text is one, else the text itself, or the reason why there is none."""
    try:
        return table_markup(explain(problem))
    except VitoolsError as error:
        return part("note", text=f"No updates: {error}")


def table_markup(text: str) -> str:
    """A table that :func:`~vitools.explain` printed, as one of the page."""
    first, *lines = text.splitlines()
    head = re.fullmatch(r"(site +)(family +)(parents +)update", first)
    if head is None:
        return part("plain", text=text)
    ends = [head.end(1), head.end(2), head.end(3)]
    rows: list[Row] = []
    rest = []
    for line in lines:
        cells = [line[a:b].strip() for a, b in zip([0, *ends], [*ends, None], strict=True)]
        if not all(line[end - 2 : end].isspace() for end in ends):
            rest.append(line)
        elif cells[0]:
            rows.append(Row(cells))
        else:
            rows[-1].further.append(cells[-1])
    return part("updates", rows="\n".join(row.markup() for row in rows), text=" ".join(rest))
