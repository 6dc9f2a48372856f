"""One word, one thing: no old names, no address that leads nowhere, one class name for one idea."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"vitools": "vitools", "guides": "vitools.guides", "models": "vitools.models"}

OLD = {
    r"num_draws": "num_samples",
    r"NotConjugate\b(?!Error)": "NotConjugateError",
    r"vitools[./]conjugacy": "vitools.calculus",
    r"\b(?:problem|fit|posterior)\.(?:explain|preflight|to_arviz|save)\(": "functions of the package",
    r"\bhtml_(?:page|report)\b": "reporting.page",
    r"\bclass (?:Ascent|Run|Plan)\b": "GradientAscent, CoordinateAscent, SviRun, CaviRun, StreamPlan",
}
"""What a word is called now, by a pattern for what it was called."""

ADDRESS = re.compile(r"(?<![\w./@-])vitools(?:\.(?!__)[A-Za-z_]\w*)+")


def texts() -> Iterator[tuple[Path, str]]:
    """All that is read: sources, tests, benchmarks, pages."""
    for folder in (*FOLDERS, "tests", "benchmarks", "docs"):
        for path in sorted((ROOT / folder).rglob("*")):
            parts = path.relative_to(ROOT).parts
            if path.suffix in (".py", ".md") and not {
                "_build",
                "reference",
                "repository",
                "results",
            } & set(parts):
                yield path, path.read_text("utf-8")
    for name in ("README.md", "CONTRIBUTING.md"):
        yield ROOT / name, (ROOT / name).read_text("utf-8")


@cache
def modules() -> dict[str, ast.Module]:
    """The tree of each module of the package, by its address."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = ast.parse(
                path.read_text("utf-8")
            )
    return found


def names_in(tree: ast.Module) -> set[str]:
    """What a module defines, imports or exports by a string."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            if type(node.value) is str:
                found.add(node.value)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def lost(text: str, known: dict[str, set[str]]) -> set[str]:
    """Addresses in a text that are no module and no name in one."""
    found = set()
    for address in set(ADDRESS.findall(text)):
        parts = address.split(".")
        end = next(n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in known)
        if end < len(parts) and parts[end] not in known[".".join(parts[:end])]:
            found.add(address)
    return found


def test_no_text_uses_an_old_name():
    found = [
        f"{path.relative_to(ROOT)}: {match.group()} is {now}"
        for path, text in texts()
        if path != Path(__file__).resolve()
        for old, now in OLD.items()
        for match in re.finditer(old, text)
    ]
    assert found == []


def test_every_address_leads_somewhere():
    known = {module: names_in(tree) for module, tree in modules().items()}
    found = {
        str(path.relative_to(ROOT)): sorted(addresses)
        for path, text in texts()
        if not {"tests", "_ext"} & set(path.parts) and (addresses := lost(text, known))
    }
    assert found == {}


def test_an_address_that_leads_nowhere_is_found():
    known = {"vitools": {"svi"}, "vitools.engines": {"exact"}}
    assert lost("vitools.svi, vitools.engines.exact and vitools.conjugacy.term", known) == {
        "vitools.conjugacy.term"
    }


def test_a_room_gives_a_class_name_once():
    found: dict[tuple[str, str], list[str]] = {}
    for module, tree in modules().items():
        room = ".".join(module.split(".")[:2])
        if room != "vitools.models":  # each model stands for itself
            for node in tree.body:
                if isinstance(node, ast.ClassDef):
                    found.setdefault((room, node.name), []).append(module)
    assert {key: where for key, where in found.items() if len(where) > 1} == {}


@pytest.mark.parametrize("old", OLD)
def test_the_patterns_find_what_they_are_for(old):
    samples = (
        "num_draws",
        "NotConjugate(",
        "vitools.conjugacy",
        "fit.to_arviz()",
        "html_page",
        "class Run",
    )
    assert any(re.search(old, sample) for sample in samples)
