"""Rules of sums and matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vitools.calculus.algebra.atoms import Unsupported
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.products import product
from vitools.calculus.tracing.operations.rules import Node, dims_of, expression
from vitools.calculus.tracing.operations.shapes import move


def sum_(
    input: Node, dim: object = None, keepdim: bool = False, *, axis: object = None, **_: object
) -> Node:
    result = expression(input)
    dims = dims_of(dim if dim is not None else axis, result.dim)
    for d in sorted(dims, reverse=True):
        result = result.sum(d)
        if keepdim:
            result = result.unsqueeze(d)
    return result


def mean(input: Node, dim: object = None, keepdim: bool = False, **_: object) -> Node:
    total = expression(input)
    count = 1
    for d in dims_of(dim, total.dim):
        count *= total.shape[d]
    result = sum_(total, dim, keepdim)
    assert isinstance(result, Expression)
    return result * (1.0 / count)


def cumsum(input: Node, dim: int, **_: object) -> Node:
    value = expression(input)
    size = value.shape[dim]
    lower = torch.ones(size, size, dtype=torch.float64).tril()
    moved = move(value, dim, -1)
    return move(matmul_expressions(moved, Expression.constant(lower.T)), -1, dim)


def cumprod(input: Node, dim: int, **_: object) -> Node:
    value = expression(input)
    if value.is_constant:
        return Expression.constant(value.value().cumprod(dim))
    return product(expression(cumsum(value.log(), dim)), "cumprod")


def prod(input: Node, dim: int, keepdim: bool = False, **_: object) -> Node:
    value = expression(input)
    return product(expression(sum_(value.log(), dim, keepdim)), "prod")


def matmul(input: object, other: object) -> Node:
    return matmul_expressions(expression(input), expression(other))


def reversed_matmul(input: object, other: object) -> Node:
    return matmul(other, input)


def matmul_expressions(a: Expression, b: Expression) -> Expression:
    if b.dim == 1:
        return (a * b).sum(-1)
    if a.dim == 1:
        return (a.unsqueeze(-1) * b).sum(-2)
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)


def outer(input: object, vec2: object) -> Node:
    return expression(input).unsqueeze(-1) * expression(vec2).unsqueeze(-2)


def add_matmul(
    input: object, mat1: object, mat2: object, *, beta: float = 1, alpha: float = 1
) -> Node:
    return expression(input) * beta + expression(matmul(mat1, mat2)) * alpha


def linear(input: object, weight: object, bias: object = None) -> Node:
    right = expression(weight)
    order = [*range(right.dim - 2), right.dim - 1, right.dim - 2] if right.dim > 1 else [0]
    result = matmul_expressions(expression(input), right.permute(order))
    return result if bias is None else result + expression(bias)


def einsum(equation: str, *operands: Any) -> Node:
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    names = inputs.split(",")
    if not arrow or "." in equation or any(len(set(n)) < len(n) for n in names):
        raise Unsupported(
            "einsum without '->', with '...' or with a repeated letter in one operand"
        )
    every = sorted(set("".join(names)), key=lambda c: (c not in output, output.find(c), c))
    result = Expression.constant(1.0)
    for name, operand in zip(names, operands, strict=True):
        part = expression(operand)
        part = part.permute([name.index(c) for c in every if c in name])
        for i, c in enumerate(every):
            if c not in name:
                part = part.unsqueeze(i)
        result = result * part
    return result.sum_right(len(every) - len(output))


def log_softmax(input: Node, dim: int | None = None, **_: object) -> Node:
    value = expression(input)
    if dim is None or dim % value.dim != value.dim - 1:
        raise Unsupported("log_softmax over another dim than the last")
    return value - value.log_sum_exp().unsqueeze(-1)


def softmax(input: Node, dim: int | None = None, **_: object) -> Node:
    return product(expression(log_softmax(input, dim)), "softmax")


def logsumexp(input: Node, dim: int, keepdim: bool = False) -> Node:
    value = expression(input)
    if dim % value.dim != value.dim - 1:
        raise Unsupported("logsumexp over another dim than the last")
    total = value.log_sum_exp()
    return total.unsqueeze(-1) if keepdim else total


RULES: dict[str, Callable[..., Any]] = {
    "log_softmax": log_softmax,
    "logsumexp": logsumexp,
    "softmax": softmax,
    "sum": sum_,
    "mean": mean,
    "cumsum": cumsum,
    "cumprod": cumprod,
    "prod": prod,
    "matmul": matmul,
    "mv": matmul,
    "mm": matmul,
    "bmm": matmul,
    "dot": matmul,
    "inner_product": matmul,
    "vdot": matmul,
    "rmatmul": reversed_matmul,
    "outer": outer,
    "ger": outer,
    "addmm": add_matmul,
    "addmv": add_matmul,
    "linear": linear,
    "einsum": einsum,
}
