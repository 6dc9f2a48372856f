"""The reference has every public name, once; docstrings in the house's style become what Sphinx reads."""

import importlib
import re
import sys
from types import ModuleType

import pytest

import vitools

pytest.importorskip("sphinx")
reference = pytest.importorskip("api_reference")
docstrings = pytest.importorskip("docstrings")

ENTRY = re.compile(r"^\.\. auto(?:class|function|data):: (\S+)$", re.MULTILINE)
ROOMS = (
    "problem",
    "engines",
    "engines.objectives",
    "posterior",
    "guides",
    "distributions",
    "diagnostics",
    "reporting",
    "families",
    "data",
    "calculus",
    "models.vae",
    "models.two_dice",
    "models.bayesian_regression",
)


def listed() -> list[str]:
    return [address for text in reference.pages().values() for address in ENTRY.findall(text)]


def test_every_exported_name_is_there_once_and_under_an_address_that_imports():
    addresses = listed()
    assert len(set(addresses)) == len(addresses)
    values: dict[str, list[object]] = {}
    for address in addresses:
        room, _, name = address.rpartition(".")
        values.setdefault(name, []).append(getattr(importlib.import_module(room), name))
    for room in ("vitools", *(f"vitools.{room}" for room in ROOMS)):
        module = importlib.import_module(room)
        missing = [
            name
            for name in module.__all__
            if not name.startswith("_")
            and not any(value is getattr(module, name) for value in values.get(name, []))
        ]
        assert not missing, room


def test_errors_and_models_that_ship_are_there():
    addresses = set(listed())
    assert {"vitools.VitoolsError", "vitools.errors.NotConjugateError"} <= addresses
    assert {"vitools.models.groups.mixed.model", "vitools.models.coin.simulate"} <= addresses
    assert "vitools.models.SHIPPED" in addresses


def test_names_of_the_front_door_stand_under_their_short_address():
    assert {f"vitools.{name}" for name in vitools.__all__ if name != "__version__"} <= set(listed())


def test_a_new_room_gets_a_page_of_its_own(monkeypatch):
    room = ModuleType("vitools.telescopes", "Telescopes see far.\n\nMore of them.")

    def look(far: float) -> float:
        """Look."""
        return far

    room.__all__, room.look = ["look"], look
    monkeypatch.setitem(sys.modules, "vitools.telescopes", room)
    monkeypatch.setattr(
        reference,
        "entries",
        lambda: (reference.Entry("vitools.telescopes.look", "vitools.telescopes", look),),
    )
    pages = {path.stem: text for path, text in reference.pages().items()}
    assert "Telescopes see far." in pages["telescopes"]
    assert ".. autofunction:: vitools.telescopes.look" in pages["telescopes"]
    assert pages["index"].index("   telescopes") < pages["index"].index("   models")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("shape ``[*batch, T]``", "shape ``[*batch, T]``"),
        ("shape [*batch, T, *event]", r"shape [\*batch, T, \*event]"),
        ("seen through |ψ|²", r"seen through \|ψ\|²"),
        ("that is *not* so, **never**", "that is *not* so, **never**"),
        ("2 * 3 and :attr:`a`", r"2 \* 3 and :attr:`a`"),
    ],
)
def test_a_lone_star_or_bar_is_itself(line, expected):
    assert docstrings.escaped(line) == expected


def test_code_in_a_docstring_is_left_alone():
    lines = ["So::", "", "    a * b", "", "then a * b", ">>> a * b", "c * d", "", "e * f"]
    assert docstrings.prose(lines) == [
        *lines[:4],
        r"then a \* b",
        *lines[5:8],
        r"e \* f",
    ]
