"""Imports point downwards only, in-function imports and constant ``import_module`` included."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "vitools": ROOT / "vitools",
    "vitools.models": ROOT / "models",
    "vitools.guides": ROOT / "guides",
}

GROUND = {
    "_version",
    "errors",
    "distributions",
    "data",
    "isolation",
    "mappable",
    "graphs",
    "vectorise",
    "draws",
    "atomic",
    "archive",
    "supports",
    "sites",
    "rules",
    "observations",
    "fitness",
    "inspection",
    "dry_run",
    "runs",
    "side_effects",
    "shared_logits",
    "bound_model",
    "improper",
    "enumeration",
    "agreement",
    "discrete",
    "program",
    "units",
    "values",
    "forward",
}
CORE = {"problem", "density", "unconstrained", "posterior"}

MAY_IMPORT = {
    **dict.fromkeys(GROUND, GROUND),
    "families": GROUND | {"families"},
    **dict.fromkeys(CORE, GROUND | {"families"} | CORE),
    "conjugacy": GROUND | CORE | {"families", "conjugacy"},
    "engines": GROUND | CORE | {"families", "conjugacy", "engines"},
    "diagnostics": GROUND | CORE | {"diagnostics"},
    "reporting": GROUND | CORE | {"diagnostics", "reporting"},
    "guides": {
        "guides",
        "distributions",
        "errors",
        "isolation",
        "sites",
        "improper",
        "supports",
        "problem",
        "density",
    },
    "models": {"models", "distributions", "errors", "data", "isolation"},
    "cli": None,  # everything
    "": None,  # vitools/__init__.py, which loads on first use
}
"""What each layer may import from vitools; ``None`` for anything."""

UPWARD_CALLS = {
    ("vitools.posterior.base", "vitools"),
    ("vitools.bound_model", "vitools"),
    ("vitools.bound_model", "vitools.engines.preflight"),
}
"""Posterior.to_arviz, Problem.explain and Problem.preflight are conveniences."""


def may_import_library(library: str, module: str) -> bool:
    """Third-party packages that are kept to one place."""
    layer = layer_of(module)
    if library.startswith("matplotlib.pyplot"):
        return False  # it keeps global state
    if library.split(".")[0] == "matplotlib":
        return layer == "reporting" or (layer == "models" and module.endswith(".pictures"))
    if library.split(".")[0] == "arviz":
        return module.startswith("vitools.reporting.arviz_")
    if library.split(".")[0] in ("typer", "rich", "click"):
        return layer == "cli"
    return True


def layer_of(module: str) -> str:
    """``"engines"`` for ``"vitools.engines.svi"``; empty for the top level."""
    return (module.split(".") + [""])[1]


def modules(folders: dict[str, Path]) -> dict[str, Path]:
    """Every module of the package by name."""
    found = {}
    for package, folder in folders.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(path: Path, module: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports, wherever in the file it does."""
    is_package = path.name == "__init__.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                above = parts[: len(parts) - node.level + is_package]
                base = ".".join([*above, base] if base else above)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _calls(node.func, ("import_module", "__import__")):
            argument = node.args[0] if node.args else None
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield node.lineno, argument.value
            elif isinstance(argument, ast.JoinedStr) and isinstance(
                argument.values[0], ast.Constant
            ):
                yield node.lineno, str(argument.values[0].value).rstrip(".")


def _calls(function: ast.expr, names: tuple[str, ...]) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in names


def violations(folders: dict[str, Path]) -> list[str]:
    """Every forbidden import as ``module:line imports name``."""
    known = modules(folders)
    found = []
    for module, path in known.items():
        allowed = MAY_IMPORT[layer_of(module)]
        for line, name in imports(path, module):
            if name.split(".")[0] != "vitools":
                ok = may_import_library(name, module)
            else:
                ok = (
                    allowed is None
                    or layer_of(name) in allowed
                    or (module, name) in UPWARD_CALLS
                    or name == "vitools.__version__"
                )
            if not ok:
                found.append(f"{module}:{line} imports {name}")
    return found


def test_every_import_is_allowed():
    assert violations(FOLDERS) == []


def test_every_module_has_a_layer():
    layers = {layer_of(module) for module in modules(FOLDERS)}
    assert layers <= set(MAY_IMPORT)
    assert {"engines", "models", "guides", "posterior", "reporting"} <= layers


def test_the_allowed_upward_call_is_still_made():
    for module, target in UPWARD_CALLS:
        path = modules(FOLDERS)[module]
        assert target in [name for _, name in imports(path, module)]


PLANTED = [
    (
        "vitools/diagnostics/khat.py",
        "from vitools.engines.svi import svi",
        "vitools.engines.svi.svi",
    ),
    (
        "vitools/engines/svi.py",
        "def f():\n    import vitools.reporting.plots",
        "vitools.reporting.plots",
    ),
    ("vitools/engines/svi.py", "from ..reporting import plots", "vitools.reporting.plots"),
    ("vitools/engines/__init__.py", "from ..reporting import plots", "vitools.reporting.plots"),
    ("vitools/posterior/base.py", "from vitools import svi", "vitools.svi"),
    ("vitools/posterior/draws.py", "import_module('vitools')", "vitools"),
    (
        "vitools/posterior/base.py",
        "import importlib\nimportlib.import_module('vitools.engines')",
        "vitools.engines",
    ),
    ("vitools/problem.py", "import_module(f'vitools.reporting.{x}')", "vitools.reporting"),
    ("vitools/problem.py", "from vitools.models.coin import model", "vitools.models.coin.model"),
    ("models/coin.py", "from vitools.engines import svi", "vitools.engines.svi"),
    ("models/coin.py", "import vitools", "vitools"),
    ("guides/normal.py", "from vitools.posterior import Posterior", "vitools.posterior.Posterior"),
    (
        "vitools/families/normal.py",
        "from vitools.problem import Problem",
        "vitools.problem.Problem",
    ),
    (
        "vitools/errors.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vitools.posterior import Status",
        "vitools.posterior.Status",
    ),
    ("vitools/posterior/base.py", "import arviz as az", "arviz"),
    ("vitools/reporting/plots.py", "import matplotlib.pyplot as plt", "matplotlib.pyplot"),
    ("vitools/reporting/plots.py", "from matplotlib import pyplot", "matplotlib.pyplot"),
    (
        "vitools/diagnostics/khat.py",
        "from matplotlib.figure import Figure",
        "matplotlib.figure.Figure",
    ),
    ("vitools/reporting/terminal.py", "def f():\n    import rich", "rich"),
]


@pytest.mark.parametrize(("file", "source", "name"), PLANTED)
def test_planted_violations_are_found(tmp_path, file, source, name):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    folders = {package: tmp_path / folder.name for package, folder in FOLDERS.items()}
    (found,) = violations(folders)
    module = next(iter(modules(folders)))
    assert found == f"{module}:{len(source.splitlines())} imports {name}"


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("vitools/engines/svi.py", "from vitools.posterior import Posterior\nfrom . import loop"),
        ("vitools/reporting/arviz_export.py", "import arviz"),
        ("vitools/reporting/plots.py", "from matplotlib.figure import Figure"),
        ("models/vae/pictures.py", "import matplotlib"),
        ("vitools/cli/app.py", "import rich\nfrom vitools import svi\nimport vitools.models.coin"),
        ("vitools/posterior/base.py", "import_module('vitools')"),
        ("vitools/engines/svi.py", "import torch, pyro\n'import vitools.reporting'"),
    ],
)
def test_what_is_allowed_passes(tmp_path, file, source):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    folders = {package: tmp_path / folder.name for package, folder in FOLDERS.items()}
    assert violations(folders) == []
