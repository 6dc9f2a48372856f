"""The house's floors: imports point downwards only, between packages and between their rooms.

Counted are imports inside functions, under ``TYPE_CHECKING`` and constant ``import_module`` too. A name
that a package hands on (``from vitools.problem import Problem``) counts as an import of the module
that defines it.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "vitools": ROOT / "vitools",
    "vitools.models": ROOT / "models",
    "vitools.guides": ROOT / "guides",
}

ORDER = {
    "vitools": [
        {"_version", "errors", "elimination", "missing"},
        {"distributions", "whole_numbers"},
        {"isolation", "jobs"},
        {"families", "graphs", "supports", "files", "data", "notebook"},
        {"problem", "models"},
        {"calculus", "posterior", "guides"},
        {"engines", "diagnostics", "information"},
        {"learned"},
        {"reporting", "design", "formula"},
        {"inference"},
        {"__init__"},
        {"cli"},
        {"__main__"},
    ],
    "vitools.distributions": [
        {"within_ends"},
        {
            "joint_normal",
            "last_draw",
            "layers",
            "log_space",
            "markov_chains",
            "mixture",
            "newton",
            "shaped_normal",
        },
        {"dirichlet", "free_form", "gaussian", "rounding", "concrete", "kumaraswamy"},
        {"boxed"},
        {"logistic_normal", "stick_breaking"},
        {"mv_kumaraswamy", "simplex_map"},
    ],
    "vitools.families": [
        {"family", "quadrature"},
        {"categorical", "dirichlet", "free_form", "gamma", "moments", "normal", "wishart"},
        {
            "beta",
            "gated_normal",
            "inverse_gamma",
            "markov_chain",
            "multivariate_normal",
            "tree_normal",
        },
    ],
    "vitools.graphs": [
        {"loops", "mutation", "noise", "inductor"},
        {"numbers"},
        {"functional"},
        {"compiled"},
        {"over_draws"},
    ],
    "vitools.problem": [
        {"ends"},
        {"sites"},
        {"density", "dims", "sequences"},
        {"reading"},
        {"bound_model"},
        {"factored"},
        {"problem"},
        {"check", "coordinates", "new_data", "rows"},
    ],
    "vitools.problem.density": [
        {
            "counted",
            "draws",
            "factors",
            "improper",
            "mappable",
            "moving_ends",
            "placing",
            "plate_reads",
        },
        {"gathering", "trajectories", "vectorise"},
        {"enumeration", "forward"},
        {"discrete", "units"},
        {"values"},
    ],
    "vitools.calculus": [
        {"algebra"},
        {"tracing"},
        {"densities"},
        {"reduction"},
        {"curved"},
        {"blocks"},
        {"streams", "values"},
        {"messages"},
        {"compiled"},
        {"model"},
        {"start", "needed_values", "lattices", "recession"},
        {"words"},
    ],
    "vitools.calculus.blocks": [
        {"block", "cells", "grouping"},
        {
            "allocation",
            "dependence",
            "free_form",
            "gaussian",
            "levels",
            "predictor",
            "single",
            "trajectory",
        },
        {"gates", "markov_chain", "nodes", "schedule", "tree"},
        {"links", "plan"},
    ],
    "vitools.calculus.densities": [
        {"rules"},
        {"by_cases", "surrogates", "tabled", "whole"},
        {"closed_terms"},
        {"log_joint"},
        {"masks"},
    ],
    "vitools.calculus.tracing": [
        {"operations"},
        {"symbolic"},
        {"constructors"},
        {"trace"},
        {"alternatives", "inner", "steps"},
        {"components", "hidden_chains", "stacking"},
        {"augmentation"},
        {"rolling"},
    ],
    "vitools.engines": [
        {"progress"},
        {"checkpoint", "loop", "smooth", "objectives", "held_params", "start_values", "edges"},
        {"preflight"},
        {"sharding"},
        {"cavi", "svi", "nuts", "dadvi", "laplace", "exact", "hand_derived"},
        {"update"},
    ],
    "vitools.engines.cavi": [
        {"batch", "repeated", "squarem", "starting", "steps"},
        {"moves"},
        {"coordinate_ascent"},
        {"kept", "nested", "training"},
        {"outcome"},
        {"digits", "on_lattice", "placing", "restarts", "values"},
        {"minibatches", "options"},
        {"sharded"},
        {"cavi"},
    ],
    "vitools.engines.svi": [
        {"optimisers", "culprit", "stopping"},
        {"compiling", "kept", "sharded", "starts"},
        {"svi_run"},
        {"svi"},
        {"validation", "warm_up"},
    ],
    "vitools.diagnostics": [
        {"reference"},
        {"weights"},
        {"evidence", "convergence"},
        {"calibration", "predictive", "modes"},
        {"verdict"},
    ],
    "vitools.reporting": [
        {"terminal"},
        {"comparison", "graph", "arviz"},
        {"plots"},
        {"page"},
        {"report"},
        {"held_out"},
    ],
    "vitools.guides": [
        {"family"},
        {"starts"},
        {"base"},
        {"mean_field", "joint"},
        {"flow", "default"},
    ],
    "vitools.models": [
        {"__init__", "columns", "facts", "pictures"},
        {
            "coin",
            "bayesian_regression",
            "two_dice",
            "vae",
            "wave_packets",
            "topic_judgement",
            "factors",
            "groups",
            "mixtures",
            "physics",
            "series",
        },
        {"autoencoder", "conditional_vae", "hierarchical_vae", "topic_words"},
        {"topic_vae"},
    ],
    "vitools.models.vae": [
        {"networks", "weights", "folders"},
        {"base", "images"},
        {"model"},
        {"evaluation"},
        {"pictures"},
    ],
}
"""Of each package that has rooms, its members from the ground up; those in one set are strangers.

``__init__`` is a package's own file where others are handed something by it that stands nowhere else.
"""

NEVER = {
    "engines": {"models"},
    "reporting": {"engines", "guides", "models"},
    "diagnostics": {"guides", "models", "calculus"},
    "models": {"graphs", "supports"},
}
"""Contracts beyond the floors: one judge for all engines, engines that know no model."""

MOST_MODULES, MOST_AT_THE_ROOT, MOST_LINES = 16, 9, 400


def may_import_library(library: str, module: str) -> bool:
    """Third-party packages that are kept to one place."""
    room = module.split(".")[1] if "." in module else ""
    if library.startswith("matplotlib.pyplot"):
        return False  # it keeps global state
    if library.split(".")[0] == "matplotlib":
        return (
            room == "reporting"
            or (room == "models" and module.endswith(".pictures"))
            or module == "vitools.notebook.picture"
        )
    if library.split(".")[0] == "arviz":
        return module.startswith("vitools.reporting.arviz.")
    if library.split(".")[0] in ("typer", "rich", "click"):
        return room == "cli"
    return True


class Package:
    """The source of each module by name, packages among them, and what each imports."""

    def __init__(self, sources: dict[str, str], packages: set[str]):
        self.packages = packages
        self.trees = {module: ast.parse(source) for module, source in sources.items()}
        self._handed_on = {
            (package, alias.asname or alias.name): (node.module, alias.name)
            for package in self.packages
            for node in ast.walk(self.trees[package])
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vitools.")
            for alias in node.names
        }

    def imports(self, module: str) -> Iterator[tuple[int, str]]:
        """Line and full name of everything a file imports, wherever in the file it does."""
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = module.split(".")
                    above = parts[: len(parts) - node.level + (module in self.packages)]
                    base = ".".join([*above, base] if base else above)
                for alias in node.names:
                    yield node.lineno, self._defined_at(base, alias.name)
            elif isinstance(node, ast.Call) and _calls(node.func, ("import_module", "__import__")):
                argument = node.args[0] if node.args else None
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield node.lineno, argument.value
                elif isinstance(argument, ast.JoinedStr) and isinstance(
                    argument.values[0], ast.Constant
                ):
                    yield node.lineno, str(argument.values[0].value).rstrip(".")

    def _defined_at(self, base: str, name: str) -> str:
        """The full name of what ``from base import name`` gives, where it is defined."""
        while f"{base}.{name}" not in self.trees and (base, name) in self._handed_on:
            base, name = self._handed_on[base, name]
        return f"{base}.{name}"

    def module_of(self, name: str) -> str:
        """The module of a full name, which may be that of something in it."""
        while name and name not in self.trees:
            name = name.rpartition(".")[0]
        return name

    def dependencies(self, module: str) -> set[str]:
        """The modules of the house that a module imports, itself left out."""
        found = {self.module_of(name) for _, name in self.imports(module)}
        return {m for m in found if m not in ("", module)}


@cache
def house() -> Package:
    """The package as it stands."""
    sources, packages = {}, set()
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            module = ".".join(parts).removesuffix(".__init__")
            sources[module] = path.read_text("utf-8")
            if path.name == "__init__.py":
                packages.add(module)
    return Package(sources, packages)


def _calls(function: ast.expr, names: tuple[str, ...]) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in names


def _paths_down(module: str, packages: set[str]) -> list[tuple[str, str]]:
    """(package, member) for each package that holds the module, the outermost first."""
    parts = module.split(".")
    pairs = [(".".join(parts[:i]), parts[i]) for i in range(1, len(parts))]
    return pairs + [(module, "__init__")] if module in packages else pairs


def _height(package: str, member: str) -> int | None:
    """On which floor of a package a member stands; None for one that is not listed."""
    for height, members in enumerate(ORDER[package]):
        if member in members:
            return height
    return None


def is_upward(module: str, target: str, packages: set[str]) -> bool:
    """Whether an import leaves its place for one that is not below it."""
    here, there = dict(_paths_down(module, packages)), dict(_paths_down(target, packages))
    for package in here:  # the first where they part decides
        if package not in there or here[package] == there[package]:
            continue
        if package not in ORDER:
            return False
        a, b = _height(package, here[package]), _height(package, there[package])
        if package == "vitools" and b is None:  # a name of the top level
            b = _height(package, "__init__")
        if here[package] == "__init__" and package != "vitools":  # a package's face shows its rooms
            return a is not None and (b is None or b >= a)
        if there[package] == "__init__" and b is None:
            return False
        forbidden = NEVER.get(here[package], set()) if package == "vitools" else set()
        return a is None or b is None or b >= a or there[package] in forbidden
    return False


def violations(package: Package) -> list[str]:
    """Every forbidden import as ``module:line imports name``."""
    found = []
    for module in package.trees:
        for line, name in package.imports(module):
            if name.split(".")[0] != "vitools":
                ok = may_import_library(name, module)
            elif name == "vitools.__version__":
                ok = True
            else:
                target = package.module_of(name) if package.module_of(name) != "vitools" else name
                ok = not is_upward(module, target, package.packages)
            if not ok:
                found.append(f"{module}:{line} imports {name}")
    return found


def circles(package: Package) -> list[list[str]]:
    """Strongly connected components of more than one module (Tarjan 1972).

    A package's own file is no knot here: Python runs it before its members whoever asks, and what
    it hands on is counted where it is defined. The top level is one, as it reaches everything.
    """
    knots = {m for m in package.trees if m not in package.packages or m == "vitools"}
    arrows = {m: sorted(package.dependencies(m) & knots) for m in knots}
    arrows["vitools"] = sorted(
        m for m in knots - {"vitools", "vitools.__main__"} if not m.startswith("vitools.cli")
    )
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for target in arrows[module]:
            if target not in number:
                visit(target)
                lowest[module] = min(lowest[module], lowest[target])
            elif target in stack:
                lowest[module] = min(lowest[module], number[target])
        if lowest[module] == number[module]:
            component = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(component) > 1:
                found.append(sorted(component))

    for module in sorted(knots):
        if module not in number:
            visit(module)
    return found


def test_every_import_points_down():
    assert violations(house()) == []


def test_no_imports_run_in_a_circle():
    assert circles(house()) == []


def test_every_package_with_rooms_is_ordered_and_every_member_has_its_place():
    package = house()
    members: dict[str, set[str]] = {}
    for module in package.trees:
        for owner, member in _paths_down(module, set()):
            members.setdefault(owner, set()).add(member)
    with_rooms = {m.rpartition(".")[0] for m in package.packages if "." in m}
    assert with_rooms == set(ORDER)
    for owner, order in ORDER.items():
        assert set().union(*order) - {"__init__"} == members[owner], owner
        assert sum(map(len, order)) == len(set().union(*order)), owner


def test_no_room_is_crowded():
    package = house()
    crowd: dict[str, int] = {}
    for module in set(package.trees) - package.packages:
        owner = module.rpartition(".")[0]
        crowd[owner] = crowd.get(owner, 0) + 1
    assert {room: count for room, count in crowd.items() if count > MOST_MODULES} == {}
    assert crowd["vitools"] <= MOST_AT_THE_ROOT


def test_no_file_is_long():
    """Beyond so many lines it is more than one idea."""
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for folder in FOLDERS.values()
        for path in folder.rglob("*.py")
    }
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}


PLANTED = [
    ("vitools.diagnostics.weights.khat", "from vitools.engines.loop import iterate"),
    ("vitools.engines.exact", "def f():\n    import vitools.reporting.report"),
    ("vitools.engines.exact", "from ..reporting import report"),
    ("vitools.posterior.base", "from vitools import svi"),
    ("vitools.posterior.base", "import_module('vitools')"),
    ("vitools.posterior.base", "import importlib\nimportlib.import_module('vitools.engines')"),
    ("vitools.problem.problem", "import_module(f'vitools.reporting.{x}')"),
    ("vitools.problem.sites", "from vitools.problem.reading.runs import run"),
    ("vitools.problem.sites", "from vitools.problem import Problem"),
    ("vitools.engines.cavi.cavi", "from vitools.engines.svi.svi import svi"),
    ("vitools.calculus.algebra.term", "from vitools.calculus.blocks.block import Block"),
    ("vitools.models.coin", "from vitools.engines.exact import exact"),
    ("vitools.models.coin", "import vitools"),
    ("vitools.families.normal", "from vitools.problem.problem import Problem"),
    (
        "vitools.errors",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vitools.problem.sites import Site",
    ),
    ("vitools.posterior.base", "import arviz as az"),
    ("vitools.reporting.plots.plots", "import matplotlib.pyplot as plt"),
    ("vitools.reporting.plots.plots", "from matplotlib import pyplot"),
    ("vitools.diagnostics.weights.khat", "from matplotlib.figure import Figure"),
    ("vitools.reporting.terminal", "def f():\n    import rich"),
]


def planted(**sources: str) -> Package:
    """The house with nothing in it but what one package hands on, and these sources."""
    whole = house()
    empty = dict.fromkeys(whole.trees, "")
    faces = {"vitools.problem": "from vitools.problem.problem import Problem"}
    return Package(empty | faces | sources, whole.packages)


@pytest.mark.parametrize(("module", "source"), PLANTED)
def test_planted_violations_are_found(module, source):
    (found,) = violations(planted(**{module: source}))
    assert found.startswith(f"{module}:{len(source.splitlines())} imports ")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vitools.engines.exact", "from vitools.posterior import Posterior\nfrom . import loop"),
        ("vitools.reporting.arviz.export", "import arviz"),
        ("vitools.reporting.plots.plots", "from matplotlib.figure import Figure"),
        ("vitools.models.vae.pictures", "import matplotlib"),
        ("vitools.cli.app", "import rich\nfrom vitools import svi\nimport vitools.models.coin"),
        ("vitools.posterior.base", "from vitools.problem import Problem"),
        ("vitools.engines.exact", "import torch, pyro\n'import vitools.reporting'"),
    ],
)
def test_what_is_allowed_passes(module, source):
    assert violations(planted(**{module: source})) == []


def test_a_planted_circle_is_found():
    sources = {
        "vitools.errors": "def f():\n    import vitools.isolation",
        "vitools.isolation": "from vitools import errors",
    }
    assert circles(planted(**sources)) == [["vitools.errors", "vitools.isolation"]]
