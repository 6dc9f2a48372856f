"""Rules of operations that rearrange elements: transposing, reshaping, expanding, diagonals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vitools.calculus.algebra.atoms import Unsupported
from vitools.calculus.algebra.discrete import Discrete, take_discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.tracing.operations.rules import Node, dims_of, expression


def _restructure(value: Node, operation: Callable[[Expression], Expression]) -> Node:
    return value.restructured(operation) if isinstance(value, Discrete) else operation(value)


def move(value: Expression, source: int, target: int) -> Expression:
    order = list(range(value.dim))
    order.insert(target % value.dim, order.pop(source % value.dim))
    return value.permute(order)


def _flat(sizes: tuple[Any, ...]) -> list[Any]:
    if len(sizes) == 1 and isinstance(sizes[0], list | tuple):
        return list(sizes[0])
    return list(sizes)


def unsqueeze(input: Node, dim: int) -> Node:
    return _restructure(input, lambda e: e.unsqueeze(dim))


def squeeze(input: Node, dim: object = None) -> Node:
    result = input
    for d in sorted(dims_of(dim, len(input.shape)), reverse=True):
        result = _restructure(result, lambda e, d=d: e.squeeze(d))  # type: ignore[misc]
    return result


def transpose(input: Node, dim0: int, dim1: int) -> Node:
    order = list(range(len(input.shape)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _restructure(input, lambda e: e.permute(order))


def matrix_transpose(input: Node) -> Node:
    return transpose(input, -2, -1) if len(input.shape) > 1 else input


def permute(input: Node, *dims: Any) -> Node:
    return _restructure(input, lambda e: e.permute(_flat(dims)))


def movedim(input: Node, source: int, destination: int) -> Node:
    return _restructure(input, lambda e: move(e, source, destination))


def expand(input: Node, *sizes: Any, **_: object) -> Node:
    target = _flat(sizes)
    missing = len(target) - len(input.shape)
    target = [
        input.shape[i - missing] if size == -1 else int(size) for i, size in enumerate(target)
    ]
    return _restructure(input, lambda e: e.expand(target))


def expand_as(input: Node, other: Any) -> Node:
    return _restructure(input, lambda e: e.expand(tuple(other.shape)))


def reshape(input: Node, *shape: Any) -> Node:
    target = [int(size) for size in _flat(shape)]
    if -1 in target:
        known = 1
        for size in target:
            known *= size if size != -1 else 1
        total = 1
        for size in input.shape:
            total *= size
        target[target.index(-1)] = total // known
    return _restructure(input, lambda e: e.reshape(target))


def flatten(input: Node, start_dim: int = 0, end_dim: int = -1) -> Node:
    rank = len(input.shape)
    if rank == 0:
        return reshape(input, [1])
    start, end = start_dim % rank, end_dim % rank
    middle = 1
    for size in input.shape[start : end + 1]:
        middle *= size
    return reshape(input, [*input.shape[:start], middle, *input.shape[end + 1 :]])


def unbind(input: Node, dim: int = 0) -> list[Node]:
    return [_restructure(input, lambda e, i=i: e.take(i, dim)) for i in range(input.shape[dim])]  # type: ignore[misc]


def select(input: Node, dim: int, index: int) -> Node:
    return _restructure(input, lambda e: e.take(index, dim))


def narrow(input: Node, dim: int, start: int, length: int) -> Node:
    return _restructure(input, lambda e: e.take(torch.arange(start, start + length), dim))


def diag_embed(input: Node, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Node:
    if offset or (dim1, dim2) != (-2, -1):
        raise Unsupported("diag_embed with an offset or other dims")
    value = expression(input)
    eye = torch.eye(value.shape[-1], dtype=torch.float64)
    return value.unsqueeze(-1) * Expression.constant(eye, selects=True)


def diag(input: Node, diagonal: int = 0) -> Node:
    return diag_embed(input, diagonal) if len(input.shape) == 1 else diagonal_(input, diagonal)


def diagonal_(input: Node, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Node:
    rank = len(input.shape)
    if offset or {dim1 % rank, dim2 % rank} != {rank - 2, rank - 1}:
        raise Unsupported("a diagonal with an offset or of other dims than the last two")
    position = Discrete.data(torch.arange(min(input.shape[-2:])))
    return take_discrete(expression(input), [rank - 2, rank - 1], [position, position])


RULES: dict[str, Callable[..., Any]] = {
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    "transpose": transpose,
    "swapaxes": transpose,
    "swapdims": transpose,
    "t": matrix_transpose,
    "T": matrix_transpose,
    "mT": matrix_transpose,
    "adjoint": matrix_transpose,
    "H": matrix_transpose,
    "mH": matrix_transpose,
    "permute": permute,
    "movedim": movedim,
    "moveaxis": movedim,
    "expand": expand,
    "broadcast_to": expand,
    "expand_as": expand_as,
    "reshape": reshape,
    "view": reshape,
    "unflatten_to": reshape,
    "flatten": flatten,
    "ravel": flatten,
    "unbind": unbind,
    "iter": unbind,
    "select": select,
    "narrow": narrow,
    "diag_embed": diag_embed,
    "diag": diag,
    "diagonal": diagonal_,
}
