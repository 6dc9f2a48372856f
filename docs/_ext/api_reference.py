"""The reference of the package: a page for each topic, made from what its packages export.

Nothing here names a function. A public name is one that a room (``vitools.X``), a room of models
(``vitools.models.X``) or one of ``ROOMS_WITHIN`` exports by its ``__all__``, or that a module of ``MODULES`` or one that
ships a model defines; it stands once, under its shortest address. A room that no topic claims gets a
page of its own.
"""

import ast
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from docutils import nodes
from repository import DOCS, write_if_new
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

PAGES = DOCS / "reference"
MACHINERY = ("vitools.elimination",)  # exports for rooms of the house, not for its users
ROOMS_WITHIN = ("vitools.engines.objectives",)
MODULES = (
    "vitools.errors",
    "vitools.isolation",
    "vitools.guides.family",
    "vitools.guides.mean_field.families",
    "vitools.reporting.plots.calibration",
    "vitools.models.pictures",
)


@dataclass(frozen=True)
class Topic:
    """A page: rooms whose names stand there, and what a reader wants to know first."""

    page: str
    title: str
    about: str
    rooms: tuple[str, ...]


TOPICS = (
    Topic(
        "problem",
        "Problems",
        "A :class:`~vitools.Problem` is a Pyro model bound to its data: everything begins with one.",
        ("vitools.problem",),
    ),
    Topic(
        "engines",
        "Engines",
        "Functions from a problem to a posterior, with their objectives and optimisers.",
        ("vitools.engines",),
    ),
    Topic(
        "posteriors",
        "Posteriors",
        "What every engine returns. They draw, weigh, summarise, are saved and loaded.",
        ("vitools.posterior",),
    ),
    Topic(
        "guides",
        "Guides",
        "Families of distributions for ``svi``, and for ``pyro.infer.SVI`` as well.",
        ("vitools.guides",),
    ),
    Topic(
        "calculus",
        "Coordinate ascent in words",
        "What ``cavi`` derives from a model.",
        ("vitools.calculus", "vitools.families"),
    ),
    Topic(
        "diagnostics",
        "Diagnostics",
        "One judge for every fit, whichever engine made it.",
        ("vitools.diagnostics",),
    ),
    Topic(
        "reporting",
        "Reporting",
        "Comparisons, ArviZ, pictures, pages.",
        ("vitools.reporting",),
    ),
    Topic(
        "distributions",
        "Distributions",
        "Distributions that torch lacks or gets wrong.",
        ("vitools.distributions",),
    ),
    Topic("data", "Data", "Readers of tables, and the data sets that ship.", ("vitools.data",)),
    Topic(
        "models",
        "Models that ship",
        "Ordinary Pyro models, each with data and pictures.",
        ("vitools.models",),
    ),
    Topic(
        "errors",
        "Errors, randomness",
        "What a user can meet, and the one way to seed.",
        ("vitools.errors", "vitools.isolation"),
    ),
)
LAST = ("models", "errors")  # pages of rooms without a topic stand before these


def _modules(package: ModuleType, depth: int) -> Iterator[str]:
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        yield found.name
        if depth > 1 and found.ispkg:
            yield from _modules(import_module(found.name), depth - 1)


def _is_public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split("."))


@cache
def rooms() -> dict[str, tuple[str, ...]]:
    """The public names of each public package and module."""
    import vitools
    import vitools.models

    found: dict[str, tuple[str, ...]] = {}
    shipped = {row.module for row in vitools.models.SHIPPED.values()}
    folders = {"vitools.guides", "vitools.models"}  # beside vitools, where it is not installed
    names = {*_modules(vitools, 1), *_modules(vitools.models, 1), *ROOMS_WITHIN, *MODULES, *shipped}
    names |= folders
    for name in sorted(filter(_is_public, names)):
        if name.startswith(MACHINERY) or name == "vitools.cli":
            continue
        module = import_module(name)
        exported = getattr(module, "__all__", None)
        if exported is not None:
            found[name] = tuple(exported)
        elif name in MODULES or name in shipped or name == "vitools.models":
            found[name] = tuple(_defined_in(module))
    return found


def _defined_in(module: ModuleType) -> Iterator[str]:
    """Names without an underscore that the module itself gives a meaning to."""
    for name, value in list(vars(module).items()):
        own = getattr(value, "__module__", None) == module.__name__
        if (
            not name.startswith("_")
            and not isinstance(value, TypeVar)
            and (own or name in getattr(module, "__annotations__", ()))
        ):
            yield name


@dataclass(frozen=True)
class Entry:
    """A public name.

    Attributes:
        address: where a reader imports it from, the shortest.
        room: the room it belongs to.
    """

    address: str
    room: str
    value: Any

    @property
    def name(self) -> str:
        return self.address.rpartition(".")[2]

    @property
    def kind(self) -> str:
        """autodoc's directive for it."""
        if inspect.isclass(self.value):
            return "autoclass"
        return "autofunction" if callable(self.value) else "autodata"


@cache
def entries() -> tuple[Entry, ...]:
    """Every public name once, in the order of its room's list."""
    import vitools

    top = {name: getattr(vitools, name) for name in vitools.__all__ if _is_public(name)}
    found, seen = [], set()
    for room, names in rooms().items():
        for name in names:
            value = getattr(import_module(room), name)
            known = (name, id(value))
            if known in seen:
                continue
            seen.add(known)
            at_top = top.get(name) is value
            found.append(Entry(f"vitools.{name}" if at_top else f"{room}.{name}", room, value))
    return tuple(found)


def topics() -> tuple[Topic, ...]:
    """The topics, with one for each room that none of them claims."""
    claimed = tuple(room for topic in TOPICS for room in topic.rooms)
    new = sorted({e.room for e in entries() if not _within(e.room, claimed)})
    own = []
    for room in new:
        about = inspect.getdoc(import_module(room)) or ""
        title = room.rpartition(".")[2].replace("_", " ").capitalize()
        own.append(Topic(room.rpartition(".")[2], title, about.partition("\n\n")[0], (room,)))
    first = tuple(t for t in TOPICS if t.page not in LAST)
    return (*first, *own, *(t for t in TOPICS if t.page in LAST))


def _within(room: str, parents: tuple[str, ...]) -> bool:
    return any(room == parent or room.startswith(f"{parent}.") for parent in parents)


def _heading(text: str, line: str) -> list[str]:
    return [text, line * len(text), ""]


def page_of(topic: Topic) -> str:
    """A topic's page, in reStructuredText: a table of its names for each room, and all of them in full."""
    lines = [*_heading(topic.title, "="), topic.about, ""]
    mine = [entry for entry in entries() if _within(entry.room, topic.rooms)]
    by_room: dict[str, list[Entry]] = {}
    for entry in mine:
        by_room.setdefault(entry.room, []).append(entry)
    for room, found in by_room.items():
        lines += _heading(f"``{room}``", "-")
        if room not in topic.rooms or len(topic.rooms) > 1:
            about = (inspect.getdoc(import_module(room)) or "").partition("\n\n")[0]
            lines += [about, ""]
        lines += [".. autosummary::", "   :nosignatures:", ""]
        lines += [f"   ~{entry.address}" for entry in found] + [""]
        for entry in found:
            lines += [f".. {entry.kind}:: {entry.address}"]
            if entry.kind == "autoclass":
                lines += ["   :members:"]
                if entry.value.__bases__ != (object,):
                    lines += ["   :show-inheritance:"]
            elif entry.kind == "autodata":
                lines += ["   :no-value:"]
            lines += [""]
    return "\n".join(lines)


EVERYWHERE = {
    "problem": "a :class:`~vitools.Problem`, a model bound to its data",
    "posterior": "a :class:`~vitools.Posterior`, as every engine returns it",
    "seed": "a whole number, from which all randomness comes: the same seed gives the same numbers",
    "num_samples": "how many draws",
    "progress": "called with what has been done so far; ``False`` for silence",
    "values": "``{site: [*S, *shape]}``, a value of each site at every one of the sample dims S",
    "log_weights": "log p(x, θ) - log q(θ) at draws from q, ``[n]``",
    "path": "the file to read or to write; it is written whole or not at all",
    "comparison": "what :func:`~vitools.compare` returns",
    "value": "where the density is asked for, ``[*S, *batch, *event]``",
    "log_value": "the logarithm of such a ``value``, which may be too small to be a number",
    "validate_args": "torch's: whether arguments are checked",
    "sample_shape": "torch's: how many draws, as the dims on the left",
    "batch_shape": "torch's: how many distributions, as the dims beside those of one draw",
}
"""Arguments that mean the same everywhere."""


def index_page() -> str:
    """The reference's own page."""
    return "\n".join(
        [
            *_heading("Reference", "="),
            "Every public name, by topic. Names of the first rank are imported from ``vitools``, others from the room "
            "that stands above them. Signatures are typed, and the package says so to type checkers (``py.typed``); "
            "examples in docstrings are run by the test suite.",
            "",
            ".. toctree::",
            "   :maxdepth: 1",
            "",
            *(f"   {topic.page}" for topic in topics()),
            "",
            "These arguments mean the same everywhere:",
            "",
            *(f"- ``{name}``: {words}" for name, words in EVERYWHERE.items()),
            "",
        ]
    )


def pages() -> dict[Path, str]:
    """Every page of the reference."""
    found = {PAGES / f"{topic.page}.rst": page_of(topic) for topic in topics()}
    return {PAGES / "index.rst": index_page(), **found}


def write_pages(app: Sphinx, config: Config) -> None:
    """Write the pages, and take away those whose topic is gone."""
    wanted = pages()
    for old in set(PAGES.glob("*.rst")) - set(wanted):
        old.unlink()
    for path, text in wanted.items():
        write_if_new(path, text)


def _resolve(target: str, module: str | None) -> Any:
    """What a docstring means by a name: of its own module, of the package's front door, or in full."""

    for place in filter(None, (module, "vitools", "builtins", "torch", "torch.distributions")):
        value: Any = import_module(place)
        try:
            for part in target.split("."):
                value = getattr(value, part)
            return value
        except AttributeError:
            continue
    parts = target.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value = import_module(".".join(parts[:end]))
        except ImportError:
            continue
        try:
            for part in parts[end:]:
                value = getattr(value, part)
            return value
        except AttributeError:
            return None
    return None


@cache
def defined_names() -> frozenset[str]:
    """What anything in the package is called: functions, classes, attributes, arguments, modules."""
    import vitools.guides
    import vitools.models

    found: set[str] = set()
    for package in (vitools, vitools.guides, vitools.models):
        for path in Path(str(package.__file__)).parent.rglob("*.py"):
            found.add(path.stem)
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    found.add(node.name)
                elif isinstance(node, ast.arg):
                    found.add(node.arg)
                elif isinstance(node, ast.Attribute):
                    found.add(node.attr)
                elif isinstance(node, ast.Name):
                    found.add(node.id)
    return frozenset(found)


def find_target(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element
) -> nodes.Node | None:
    """A cross-reference by the address where a thing is defined, or by a short name.

    It leads to the thing's public address if it has one; what has none, in the package or in another one that
    is installed, stays text. A name that the package does not know is a warning, as of any other page.
    """
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].lstrip(".~").removesuffix("()")
    module = node.get("py:module")
    value = _resolve(target, module)
    if value is None:
        value = next((e.value for e in entries() if e.name == target), None)
    if value is None:
        return contnode if target.rpartition(".")[2] in defined_names() else None
    domain = env.domains["py"]
    for entry in entries():
        owner, _, member = target.rpartition(".")
        if entry.value is value:
            address = entry.address
        elif owner and entry.value is _resolve(owner, module):
            address = f"{entry.address}.{member}"
        else:
            continue
        if address in domain.objects:
            return domain.resolve_xref(
                env, node["refdoc"], app.builder, "obj", address, node, contnode
            )
    return contnode


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry."""
    app.connect("config-inited", write_pages)
    app.connect("missing-reference", find_target)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
