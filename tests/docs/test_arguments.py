"""Every argument of a public function is documented: in its docstring, in that of its class, or, where it means the
same everywhere, in the table of the reference's own page."""

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from typing import Any

import pytest

pytest.importorskip("sphinx")
reference = pytest.importorskip("api_reference")

ROOMS = (
    "vitools",
    *(
        f"vitools.{room}"
        for room in (
            "guides",
            "diagnostics",
            "information",
            "design",
            "formula",
            "learned",
            "data",
            "distributions",
            "families",
            "engines.objectives",
            "reporting",
        )
    ),
)
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def public() -> Iterator[tuple[str, Any, list[type]]]:
    """Address, function and its classes, of every function, class and method that a room exports."""
    seen = set()
    for room in ROOMS:
        module = import_module(room)
        for name in module.__all__:
            value = getattr(module, name)
            home = str(getattr(value, "__module__", ""))
            if not callable(value) or not home.startswith("vitools") or id(value) in seen:
                continue
            seen.add(id(value))
            if not inspect.isclass(value):
                yield f"{room}.{name}", value, []
            elif not issubclass(value, Enum):
                kinds = [c for c in value.__mro__ if c.__module__.startswith("vitools")]
                yield f"{room}.{name}", value, kinds
                for method, made in vars(value).items():
                    function = getattr(made, "__func__", made)
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield f"{room}.{name}.{method}", function, kinds


def undocumented(function: Any, kinds: list[type], known: set[str]) -> list[str]:
    """Arguments that neither the docstrings nor the table name."""
    texts = [function.__doc__ or "", *((kind.__doc__ or "") for kind in kinds)]
    if inspect.isclass(function):
        texts += [kind.__init__.__doc__ or "" for kind in kinds]
    words = set(re.findall(r"\w+", " ".join(texts)))
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind not in VARIADIC
        and name not in words | known | {"self", "cls"}
        and not name.startswith("_")
    ]


def test_every_argument_is_documented():
    known = set(reference.EVERYWHERE)
    missing = {where: undocumented(f, kinds, known) for where, f, kinds in public()}
    assert {where: names for where, names in missing.items() if names} == {}


def test_an_argument_without_a_word_is_found():
    def function(told, untold, seed):
        """Of what is told."""

    assert undocumented(function, [], {"seed"}) == ["untold"]


def test_the_reference_s_own_page_shows_the_table():
    page = reference.index_page()
    assert all(f"``{name}``" in page for name in reference.EVERYWHERE)
