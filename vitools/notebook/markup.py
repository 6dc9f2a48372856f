"""How things look in a notebook: tables and preformatted text as HTML, without style sheet or script of their own.

What a class prints and what it shows are made of the same rows; here is only the markup.
"""

from collections.abc import Iterable, Sequence
from html import escape

_LEFT = 'style="text-align:left"'


class Text(str):
    """A string that a notebook, and a prompt, show as it is printed: lines as lines, no quotes.

    >>> Text("two\\nlines")
    two
    lines
    """

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return preformatted(self)


def preformatted(text: str) -> str:
    """Text as it stands, in a fixed width."""
    return f"<pre>{escape(text)}</pre>"


def paragraphs(lines: Iterable[str]) -> str:
    """Each line a paragraph."""
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first of them the head; names in the first column.

    >>> table([["site", "mean"], ["a<b", "1"]])[-59:]
    'text-align:left">a&lt;b</th><td>1</td></tr></tbody></table>'
    """
    head, *body = ([escape(cell) for cell in row] for row in rows)
    titles = "".join(f'<th scope="col" {_LEFT}>{cell}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row" {_LEFT}>{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for name, *cells in body
    )
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>"
