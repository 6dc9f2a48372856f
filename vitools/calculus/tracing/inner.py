"""Distributions that stand in the arguments of others: what each was written with, as expressions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.products import Product
from vitools.calculus.tracing.constructors import base_and_mask, written
from vitools.calculus.tracing.symbolic import SymbolicTensor


class Unread(Exception):
    """A part of a distribution that is none of those known."""


def node_of(value: Any) -> Expression:
    """An argument as an expression."""
    if isinstance(value, Expression):
        return value
    if isinstance(value, SymbolicTensor):
        return node_of(value.node)
    if isinstance(value, Discrete):
        return value.expression()
    if isinstance(value, Tensor | int | float):
        return Expression.constant(value)
    raise Unread


def read_inside(fn: Any) -> tuple[Any, int, dict[str, Any]]:
    """The distribution that was written, how many of its dims are events by declaration, its arguments."""
    base, mask = base_and_mask(fn)
    if mask is not None:
        raise Unread
    arguments = {
        k: x for k, x in written(base)[1].items() if k != "validate_args" and x is not None
    }
    return base, len(fn.event_shape) - len(base.event_shape), arguments


def own_dims(base: Any, key: str) -> int:
    """Dims of a parameter beside those of the batch."""
    constraint = base.arg_constraints.get(key)
    if constraint is None:
        raise Unread
    return int(constraint.event_dim)


def at_cases(node: Expression, own: int, cases: Expression) -> Expression:
    """Σ_k 1[z = k] node_k, k along the axis before the node's last ``own`` dims, where it has one.

    Args:
        cases: 1[z = k], k along the last dim.
    """
    size = cases.shape[-1]
    if isinstance(node, Product):
        return node.map_log(lambda log: at_cases(log, own, cases))
    if node.dim > own and node.shape[-1 - own] == size:
        for _ in range(own):
            cases = cases.unsqueeze(-1)
        return (node * cases).sum(-1 - own)
    return node.take(0, -1 - own) if node.dim > own and node.shape[-1 - own] == 1 else node
