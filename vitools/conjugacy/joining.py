"""Rules of operations that put alternatives side by side: where, stack, cat, one_hot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from vitools.conjugacy.discrete import Discrete
from vitools.conjugacy.expression import Expression
from vitools.conjugacy.rules import Node, as_discrete, expression, rule, table_only
from vitools.conjugacy.term import Unsupported


@rule("where")
def where(condition: Any, input: object = None, other: object = None) -> Node:
    if input is None:
        raise Unsupported("where with one argument")
    if isinstance(condition, Expression):
        raise Unsupported("a condition on a continuous latent")
    case = condition if isinstance(condition, Discrete) else Discrete.data(condition)
    a, b = as_discrete(input), as_discrete(other)
    if a is not None and b is not None and (a.atoms or b.atoms or case.atoms):
        yes, no = _as_integer_pair(a, b)
        return case.combine(
            yes, lambda c, x: torch.where(c.bool(), x, torch.zeros_like(x))
        ).combine(
            case.combine(no, lambda c, x: torch.where(c.bool(), torch.zeros_like(x), x)), torch.add
        )
    holds, fails = case.apply(lambda t: t.bool()), case.apply(torch.logical_not)
    return holds.expression() * expression(input) + fails.expression() * expression(other)


def _as_integer_pair(a: Discrete, b: Discrete) -> tuple[Discrete, Discrete]:
    common = torch.promote_types(a.table.tensor.dtype, b.table.tensor.dtype)
    return a.apply(lambda t: t.to(common)), b.apply(lambda t: t.to(common))


@rule("stack")
def stack(tensors: Sequence[object], dim: int = 0) -> Node:
    parts = [expression(tensor) for tensor in tensors]
    rank = parts[0].dim + 1
    dim %= rank
    total = Expression.constant(0.0)
    for i, part in enumerate(parts):
        position = torch.zeros(len(parts), dtype=torch.float64)
        position[i] = 1
        view = position.reshape([-1] + [1] * (rank - 1 - dim))
        total = total + Expression.constant(view, selects=True) * part.unsqueeze(dim)
    return total if len(parts) > 1 else parts[0].unsqueeze(dim)


@rule("cat", "concat", "concatenate")
def cat(tensors: Sequence[object], dim: int = 0) -> Node:
    parts = [expression(tensor) for tensor in tensors]
    dim %= parts[0].dim
    total_size = sum(part.shape[dim] for part in parts)
    total = Expression.constant(0.0)
    start = 0
    for part in parts:
        size = part.shape[dim]
        place = torch.arange(total_size) - start
        inside = (place >= 0) & (place < size)
        moved = part.take(place.clamp(0, size - 1), dim)
        view = inside.double().reshape([-1] + [1] * (part.dim - 1 - dim))
        total = total + Expression.constant(view, selects=True) * moved
        start += size
    return total


@rule("one_hot")
def one_hot(input: Node, num_classes: int = -1) -> Node:
    value = table_only(input, "one_hot")
    size = num_classes if num_classes > 0 else int(value.table.tensor.max()) + 1
    return value.one_hot(size)
