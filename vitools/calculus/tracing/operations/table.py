"""Torch operations on latents, each with its rule in the calculus.

One table: the name of a torch function → a function of the same arguments, in which latents stand
as :class:`Expression` or :class:`Discrete`. To add an operation, write its rule in the file of its
kind and a line in that file's table. An operation that is not in the table has no rule; the model
can then not be fitted in closed form, and the refusal names the operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vitools.calculus.tracing.operations import arithmetic, indexing, joining, matrices, shapes
from vitools.calculus.tracing.operations.rules import Node

__all__ = ["RULES", "Node", "function_name"]

RULES: dict[str, Callable[..., Any]] = {
    **arithmetic.RULES,
    **indexing.RULES,
    **joining.RULES,
    **matrices.RULES,
    **shapes.RULES,
}


def function_name(function: Any) -> str:
    """The bare name of a torch function, method or property getter."""
    name = getattr(function, "__name__", str(function))
    if name == "__get__":
        name = getattr(function.__self__, "__name__", name)
    return name.strip("_")
