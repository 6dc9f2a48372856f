"""Products of matrices and vectors: which are loops, and which a library's."""

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from vitools.graphs.loops.emission import Emitter
from vitools.graphs.loops.operations import name_of
from vitools.graphs.loops.values import Formula, Value

PRODUCTS = {"mv", "mm", "bmm", "dot"}
LARGE = 32_768  # multiplications; below, a library's call takes longer than the loops
THIN = 2  # a side of a product that is bound by memory, not by arithmetic
WIDEST = 64  # columns
LONG = 16  # times as many rows
HEAVIEST = 1 << 28  # bytes that may be copied


def is_for_library(node: Node, name: str) -> bool:
    """Whether cache blocking pays: all sides of the product are long."""
    if name in ("mv", "dot"):
        return False
    left, right = (argument.meta["val"].shape for argument in node.args)  # type: ignore[union-attr]
    m, k, n = left[-2], left[-1], right[-1]
    return bool(prod(left) * n > LARGE and min(m, k, n) > THIN)


def product(emitter: Emitter, name: str, left: Value, right: Value, dtype: torch.dtype) -> Value:
    """The product as the sum over a dimension of an elementwise one."""
    a, b = left.meta(), right.meta()
    if name in ("mv", "dot"):
        b = b.expand(a.shape)
    else:  # [… i, k, j]
        a, b = a.unsqueeze(-1), b.unsqueeze(-3)
        a, b = torch.broadcast_tensors(a, b)
    shape = tuple(a.shape)
    factors = [left.seen_as(a).expression(), right.seen_as(b).expression()]
    products = Formula.of("({0} * {1})", dtype, shape, factors)
    summed = len(shape) - 1 if name in ("mv", "dot") else len(shape) - 2
    made = shape[:summed] + shape[summed + 1 :]
    return emitter.reduced("sum", products, {summed}, made)


def lies_better_in_columns(node: Node, data: Tensor) -> bool:
    """Whether a data matrix [N, K], K small, or its transpose is used by thin products alone.

    Row by row, the K products of a row fill few vectors; column by column, all loops run over
    rows.
    """
    if data.ndim != 2 or not data.is_floating_point():
        return False
    rows = data if data.shape[0] > data.shape[1] else data.t()
    n, k = rows.shape
    shaped = 1 < k <= WIDEST and n >= LONG * k and data.numel() * data.itemsize <= HEAVIEST
    return shaped and rows.is_contiguous() and all(_is_thin_product(u) for u in node.users)


def in_columns(data: Tensor) -> Tensor:
    """The same matrix with its longer side contiguous."""
    return data.t().contiguous().t() if data.shape[0] > data.shape[1] else data.contiguous()


def _is_thin_product(user: Any) -> bool:
    name = name_of(user.target)
    if name in ("t", "transpose", "permute"):
        return all(_is_thin_product(u) for u in user.users)
    return name in PRODUCTS - {"bmm"} and not is_for_library(user, name)
