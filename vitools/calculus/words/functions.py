"""Functions of a latent in words: x⁻², log x, log Γ(x)."""

from __future__ import annotations

import re

from vitools.calculus.algebra.atoms import Function
from vitools.calculus.blocks.block import describe_function

SUPERSCRIPTS = str.maketrans("-0123456789.", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹·")
PLACE = "\0"
"""Stands for the latent while powers are raised; its own name may hold a ^."""


def in_words(function: float | str | Function, name: str) -> str:
    """The function of what ``name`` names, its powers raised."""
    words = describe_function(function, PLACE)
    raised = re.sub(r"\^(-?[\d.]+)", lambda match: match[1].translate(SUPERSCRIPTS), words)
    return raised.replace(PLACE, name)
