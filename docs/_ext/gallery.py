"""A page of cards: every notebook of a folder with its picture, level and topics.

``{gallery}`` stands where the cards shall be. A notebook says in its front matter ``level``, ``topics`` and
``order``; the picture is that of its cell tagged ``thumbnail`` (where nothing was executed there is none). The
cards are made when all pages have been read.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

LEVELS = ("first steps", "practice", "advanced")
log = logging.getLogger(__name__)


class Cards(nodes.General, nodes.Element):
    """The place of the cards until all pages are read."""


class Gallery(SphinxDirective):
    """``{gallery}``, without arguments."""

    def run(self) -> list[nodes.Node]:
        """The place."""
        return [Cards(folder=self.env.docname.rpartition("/")[0])]


def notebooks(env: BuildEnvironment, folder: str) -> list[str]:
    """The documents of a folder that give a level, in their order."""
    found = [
        name
        for name, about in env.metadata.items()
        if name.rpartition("/")[0] == folder and "level" in about
    ]
    return sorted(found, key=lambda name: int(env.metadata[name]["order"]))


def thumbnail(env: BuildEnvironment, name: str) -> nodes.image | None:
    """The picture of the tagged cell, ``None`` where it was not executed."""
    for cell in env.get_doctree(name).findall(nodes.container):
        if "tag_thumbnail" in cell.get("classes", ()):
            return next(iter(cell.findall(nodes.image)), None)
    return None


def _link(app: Sphinx, here: str, name: str) -> nodes.reference:
    address = app.builder.get_relative_uri(here, name)
    return nodes.reference("", "", internal=True, refuri=address)


def card(app: Sphinx, here: str, name: str) -> nodes.container:
    """One notebook: picture, title, level, topics."""
    env = app.env
    about = env.metadata[name]
    title = env.titles[name].astext()
    box = nodes.container(classes=["gallery-card"])
    picture = thumbnail(env, name)
    if picture is not None:
        shown = nodes.image(
            "", uri=picture["uri"], candidates={"*": picture["uri"]}, alt=f"A picture of: {title}"
        )
        box += nodes.paragraph("", "", _around(_link(app, here, name), shown))
    link = _link(app, here, name)
    link += nodes.strong("", title)
    box += nodes.paragraph("", "", link)
    box += nodes.paragraph("", str(about["topics"]), classes=["gallery-topics"])
    return box


def _around(link: nodes.reference, child: nodes.Node) -> nodes.reference:
    link += child
    return link


def fill(app: Sphinx, doctree: nodes.document, here: str) -> None:
    """Cards in their places, a heading for each level."""
    for place in list(doctree.findall(Cards)):
        names = notebooks(app.env, place["folder"])
        unknown = {str(app.env.metadata[name]["level"]) for name in names} - set(LEVELS)
        if unknown:
            log.warning("levels %s: expected one of %s", unknown, LEVELS, location=place)
        found: list[nodes.Node] = []
        for level in LEVELS:
            cards = [name for name in names if app.env.metadata[name]["level"] == level]
            if cards:
                found.append(nodes.rubric("", level.capitalize()))
                grid = nodes.container(classes=["gallery-grid"])
                grid += [card(app, here, name) for name in cards]
                found.append(grid)
        place.replace_self(found)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry."""
    app.add_node(Cards)
    app.add_directive("gallery", Gallery)
    app.connect("doctree-resolved", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
