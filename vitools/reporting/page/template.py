"""Filling the page's templates: ``{{name}}`` is escaped, ``{{{name}}}`` is markup already.

The HTML, the style sheet and the script live in ``assets/`` as files of their own.
"""

import html
import re
from functools import cache
from importlib.resources import files

SCRIPTS = ("charts.js", "panels.js", "page.js")


@cache
def asset(name: str) -> str:
    """The text of a file of the page."""
    return files("vitools.reporting.page").joinpath("assets", name).read_text(encoding="utf-8")


def script() -> str:
    """The page's whole script."""
    return "\n".join(map(asset, SCRIPTS))


def fill(template: str, /, **values: object) -> str:
    """Every placeholder replaced, in one pass, so that what is put in is never read again.

    >>> fill("<b>{{name}}</b>{{{rest}}}", name="a < b", rest="<i>{{name}}</i>")
    '<b>a &lt; b</b><i>{{name}}</i>'
    """

    def value(match: re.Match[str]) -> str:
        raw, escaped = match.groups()
        return str(values[raw]) if raw else html.escape(str(values[escaped]))

    return re.sub(r"\{\{\{(\w+)\}\}\}|\{\{(\w+)\}\}", value, template)


def part(name: str, /, **values: object) -> str:
    """A filled part of ``parts.html``."""
    return fill(_parts()[name], **values)


@cache
def _parts() -> dict[str, str]:
    pieces = re.split(r"<!-- part: (\w+) -->\n", asset("parts.html"))[1:]
    return {name: text.rstrip("\n") for name, text in zip(pieces[::2], pieces[1::2], strict=True)}
