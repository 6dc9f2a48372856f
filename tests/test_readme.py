"""What README promises runs, and what pyproject packages is all there is."""

import re
import tomllib
import warnings
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def python_blocks(markdown: str) -> list[str]:
    """The ```python blocks of a text, in order."""
    return re.findall(r"^```python\n(.*?)^```", markdown, flags=re.DOTALL | re.MULTILINE)


def test_readme_examples_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # files they write go there
    torch.set_default_dtype(torch.float32)  # as a reader has it
    namespace: dict[str, object] = {"__name__": "readme"}
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("error")
            for i, block in enumerate(python_blocks((ROOT / "README.md").read_text("utf-8"))):
                exec(compile(block, f"README.md, python block {i + 1}", "exec"), namespace)
    finally:
        torch.set_default_dtype(torch.float64)


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("no code", []),
        ("```python\na = 1\n```\nthen\n```\nb\n```\n```python\nc = a\n```", ["a = 1\n", "c = a\n"]),
        ("```bash\npython\n```", []),
    ],
)
def test_blocks_are_found(text, blocks):
    assert python_blocks(text) == blocks


def package_folders() -> set[str]:
    """Every folder with an ``__init__.py``, under the name it is installed by."""
    places = {"vitools": "vitools", "models": "vitools.models", "guides": "vitools.guides"}
    return {
        ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
        for folder, package in places.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }


def test_every_package_is_listed_in_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    listed = project["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(package_folders())


def test_every_module_belongs_to_a_package():
    for folder in ("vitools", "models", "guides"):
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), path
