"""The package's names: what it loads on first use, what it exports and what type checkers see agree."""

import ast
from importlib import import_module
from pathlib import Path

import vitools


def test_names_are_the_same_to_readers_importers_and_type_checkers():
    tree = ast.parse(Path(vitools.__file__).read_text("utf-8"))
    (guarded,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    typed = {alias.name for found in guarded.body for alias in found.names}
    assert typed == set(vitools._HOME)
    assert set(vitools.__all__) == {*vitools._HOME, "__version__"}
    assert vitools.__all__ == sorted(vitools.__all__)
    for name, home in vitools._HOME.items():
        assert getattr(import_module(home), name) is getattr(vitools, name)
