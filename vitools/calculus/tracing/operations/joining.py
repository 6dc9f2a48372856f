"""Rules of operations that put alternatives side by side: where, stack, cat, one_hot."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import LOG_ZERO, Unsupported
from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.products import Product, product
from vitools.calculus.tracing.operations.rules import Node, as_discrete, expression, table_only


def where(condition: Any, input: object = None, other: object = None) -> Node:
    if input is None:
        raise Unsupported("where with one argument")
    if isinstance(condition, Expression):
        raise Unsupported("a condition on a continuous latent")
    if isinstance(condition, Tensor):
        input, other = _chosen(condition, input), _chosen(~condition.bool(), other)
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


def _chosen(condition: Tensor, value: object) -> object:
    """Data where they are chosen, zero elsewhere: what is missing there may be nan."""
    if not isinstance(value, Tensor):
        return value
    return torch.where(condition.bool(), value, torch.zeros_like(value))


def _as_integer_pair(a: Discrete, b: Discrete) -> tuple[Discrete, Discrete]:
    common = torch.promote_types(a.table.tensor.dtype, b.table.tensor.dtype)
    return a.apply(lambda t: t.to(common)), b.apply(lambda t: t.to(common))


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


def cat(tensors: Sequence[object], dim: int = 0) -> Node:
    parts = [expression(tensor) for tensor in tensors]
    dim %= parts[0].dim
    if any(isinstance(part, Product) for part in parts):
        return product(expression(cat([part.log() for part in parts], dim)), "cat")
    total_size = sum(part.shape[dim] for part in parts)
    total = Expression.constant(0.0)
    start = 0
    for part in parts:
        total = total + placed(part, dim, start, total_size)
        start += part.shape[dim]
    return total


def placed(part: Expression, dim: int, start: int, size: int) -> Expression:
    """The part's elements at ``start`` along an axis of ``size``, zero elsewhere."""
    place = torch.arange(size) - start
    length = part.shape[dim]
    moved = part.take(place.clamp(0, length - 1), dim)
    view = ((place >= 0) & (place < length)).double()
    return Expression.constant(_along(view, part.dim - dim), selects=True) * moved


def _along(vector: Tensor, dims: int) -> Tensor:
    """A vector as an axis with ``dims - 1`` dims behind it."""
    return vector.reshape([-1] + [1] * (dims - 1))


def pad(
    input: Node, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Node:
    result, fill = expression(input), float(value or 0.0)
    if mode != "constant":
        raise Unsupported(f"padding in mode {mode!r}")
    if isinstance(result, Product):
        if fill < 0:
            raise Unsupported("padding a product with a negative number")
        log = math.log(fill) if fill else LOG_ZERO
        return product(expression(padded(result.log(), pad, log)), result.origin)
    return padded(result, pad, fill)


def padded(result: Expression, widths: Sequence[int], fill: float) -> Expression:
    """Torch's padding: pairs (before, after) from the last dim on."""
    if any(width < 0 for width in widths):
        raise Unsupported("padding by a negative number of elements")
    for i in range(len(widths) // 2):
        before, after = widths[2 * i], widths[2 * i + 1]
        dim = result.dim - 1 - i
        length = result.shape[dim]
        outside = torch.ones(before + length + after, dtype=torch.float64)
        outside[before : before + length] = 0
        inner = placed(result, dim, before, len(outside))
        if fill and bool(outside.any()):
            edge = Expression.constant(_along(outside, result.dim - dim), selects=True)
            inner = inner + edge * fill
        result = inner
    return result


def one_hot(input: Node, num_classes: int = -1) -> Node:
    value = table_only(input, "one_hot")
    size = num_classes if num_classes > 0 else int(value.table.tensor.max()) + 1
    return value.one_hot(size)


RULES: dict[str, Callable[..., Any]] = {
    "where": where,
    "stack": stack,
    "cat": cat,
    "concat": cat,
    "concatenate": cat,
    "pad": pad,
    "one_hot": one_hot,
}
