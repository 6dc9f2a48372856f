"""Docstrings in Google style as reStructuredText.

Napoleon's own reader, but for three habits of this house: a property's docstring is prose (a colon in it
sets off no type), so is what a function returns (its type is in the signature), and a lone star or bar
(``[*batch, T]``, ``|ψ|²``) is itself.
"""

import inspect
import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring

CONFIG = Config(napoleon_use_ivar=True, napoleon_custom_sections=["Returns", "Yields"])
MARKED = re.compile(
    r"``.+?``|(?::[\w:]+:)?`.+?`"  # literals and roles
    r"|(?:(?<=[\s(\[])|^)(\*\*?)[^\s*](?:[^*]*[^\s*])?\1(?!\w)"  # emphasis
)
LONE = re.compile(r"([*|])")


def escaped(line: str) -> str:
    """A line of prose whose lone stars and bars are no markup."""
    pieces, end = [], 0
    for marked in MARKED.finditer(line):
        pieces += [LONE.sub(r"\\\1", line[end : marked.start()]), marked[0]]
        end = marked.end()
    return "".join([*pieces, LONE.sub(r"\\\1", line[end:])])


def prose(lines: list[str]) -> list[str]:
    """All lines with those of literal blocks and of examples left alone."""
    found, literal, example = [], None, False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip() and literal is not None and indent <= literal:
            literal = None
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        as_it_is = literal is not None or example or line.lstrip().startswith(("..", ":"))
        found.append(line if as_it_is else escaped(line))
        if literal is None and line.rstrip().endswith("::"):
            literal = indent
    return found


def convert(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """A docstring's lines, changed in place."""
    if what == "data" and "\n".join(lines).strip() == (inspect.getdoc(type(obj)) or "").strip():
        lines.clear()  # that of its type, not its own
    kind = "method" if what in ("attribute", "property", "data") else what
    text = GoogleDocstring(prose(lines), CONFIG, app, kind, name, obj, options)
    lines[:] = text.lines()


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry."""
    app.connect("autodoc-process-docstring", convert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
