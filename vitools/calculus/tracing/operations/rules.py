"""What rules for torch's operations share: their arguments as expressions or as tables."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Unsupported
from vitools.calculus.algebra.cases import as_table
from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.products import Product

Node = Expression | Discrete


def expression(value: object) -> Expression:
    return value.expression() if isinstance(value, Discrete) else Expression.constant(value)


def as_discrete(value: object) -> Discrete | None:
    """A discrete function, or data that can be combined with one; None for an expression."""
    if isinstance(value, Discrete):
        return value
    if isinstance(value, bool | int | float):
        return Discrete.data(torch.as_tensor(value))
    return Discrete.data(value) if isinstance(value, Tensor) else None


def as_function_of_discrete(value: object) -> Discrete | None:
    """Like :func:`as_discrete`; an expression in which no latents but discrete ones stand is one too."""
    if not isinstance(value, Expression) or isinstance(value, Product):
        return as_discrete(value)
    table = as_table(value.folded().terms)
    return None if table is None else Discrete(table, value.shape)


def table_only(value: Node, name: str) -> Discrete:
    """The value, which must be a function of discrete latents."""
    table = as_function_of_discrete(value)
    if table is not None:
        return table
    raise Unsupported(f"{name} of a continuous latent")


def dims_of(dim: object, rank: int) -> list[int]:
    """The ``dim`` of a reduction as a list of dims counted from the front."""
    if dim is None or dim == () or dim == []:
        return list(range(rank))
    if isinstance(dim, int):
        return [dim % rank]
    assert isinstance(dim, Sequence)
    return [d % rank for d in dim]
