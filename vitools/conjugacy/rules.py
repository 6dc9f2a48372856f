"""The table of operations: the name of a torch function → its rule in the calculus.

A rule takes the arguments of the torch function, in which latents stand as :class:`Expression` or
:class:`Discrete`. Add one with ``@rule("name")`` in the file of its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vitools.conjugacy.discrete import Discrete
from vitools.conjugacy.expression import Expression
from vitools.conjugacy.term import Unsupported

Node = Expression | Discrete
RULES: dict[str, Callable[..., Any]] = {}


def rule(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            RULES[name] = function
        return function

    return register


def function_name(function: Any) -> str:
    """The bare name of a torch function, method or property getter."""
    name = getattr(function, "__name__", str(function))
    if name == "__get__":
        name = getattr(function.__self__, "__name__", name)
    return name.strip("_")


def expression(value: object) -> Expression:
    return value.expression() if isinstance(value, Discrete) else Expression.constant(value)


def as_discrete(value: object) -> Discrete | None:
    """A discrete function, or data that can be combined with one; None for an expression."""
    if isinstance(value, Discrete):
        return value
    if isinstance(value, bool | int | float):
        return Discrete.data(torch.as_tensor(value))
    return Discrete.data(value) if isinstance(value, Tensor) else None


def table_only(value: Node, name: str) -> Discrete:
    """The value, which must be a function of discrete latents."""
    if isinstance(value, Discrete):
        return value
    raise Unsupported(f"{name} of a continuous latent")


def dims_of(dim: object, rank: int) -> list[int]:
    """The ``dim`` of a reduction as a list of dims counted from the front."""
    if dim is None or dim == () or dim == []:
        return list(range(rank))
    if isinstance(dim, int):
        return [dim % rank]
    assert isinstance(dim, Sequence)
    return [d % rank for d in dim]
