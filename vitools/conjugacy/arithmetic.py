"""Rules of elementwise operations: arithmetic, powers, logarithms, and functions of tables."""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch import Tensor

from vitools.conjugacy.discrete import Discrete
from vitools.conjugacy.expression import Expression
from vitools.conjugacy.products import Product, product
from vitools.conjugacy.rules import RULES, Node, as_discrete, expression, rule, table_only
from vitools.conjugacy.term import Unsupported


def _binary(
    left: object,
    right: object,
    on_tables: Callable[[Tensor, Tensor], Tensor],
    on_expressions: Callable[[Expression, Expression], Expression],
) -> Node:
    if isinstance(left, Discrete) or isinstance(right, Discrete):
        a, b = as_discrete(left), as_discrete(right)
        if a is not None and b is not None:
            return a.combine(b, on_tables)
    return on_expressions(expression(left), expression(right))


@rule("add", "radd")
def add(input: object, other: object, *, alpha: float = 1) -> Node:
    if alpha != 1:
        other = multiply(other, alpha)
    return _binary(input, other, torch.add, operator.add)


@rule("sub", "subtract")
def subtract(input: object, other: object, *, alpha: float = 1) -> Node:
    if alpha != 1:
        other = multiply(other, alpha)
    return _binary(input, other, torch.sub, operator.sub)


@rule("rsub")
def reversed_subtract(input: object, other: object, *, alpha: float = 1) -> Node:
    if alpha != 1:
        raise Unsupported("rsub with alpha")
    return subtract(other, input)


@rule("mul", "rmul", "multiply")
def multiply(input: object, other: object) -> Node:
    return _binary(input, other, torch.mul, operator.mul)


@rule("div", "truediv", "true_divide", "divide")
def divide(input: object, other: object, *, rounding_mode: str | None = None) -> Node:
    def on_tables(a: Tensor, b: Tensor) -> Tensor:
        return torch.div(a, b, rounding_mode=rounding_mode)

    if rounding_mode is not None and not (
        isinstance(input, Discrete) and as_discrete(other) is not None
    ):
        raise Unsupported("rounding division of a continuous latent")
    return _binary(input, other, on_tables, operator.truediv)


@rule("rdiv", "rtruediv")
def reversed_divide(input: object, other: object) -> Node:
    return divide(other, input)


@rule("neg", "negative")
def negate(input: Node) -> Node:
    return input.apply(torch.neg) if isinstance(input, Discrete) else -input


@rule("pos", "positive", "clone", "detach", "contiguous", "cpu", "requires_grad_")
def identity(input: Node, *_: object, **__: object) -> Node:
    return input


@rule("to", "type", "type_as", "double", "float")
def cast(input: Node, *arguments: object, dtype: object = None, **_: object) -> Node:
    target = dtype if dtype is not None else next(iter(arguments), None)
    if isinstance(target, torch.dtype) and not target.is_floating_point:
        return integer(input)
    return input


@rule("long", "int", "bool")
def integer(input: Node) -> Node:
    if isinstance(input, Discrete):
        return input
    raise Unsupported("rounding a continuous latent to an integer")


@rule("pow")
def power(input: object, exponent: object) -> Node:
    if isinstance(input, Discrete) and isinstance(exponent, int | float):
        number = exponent
        return input.apply(lambda table: table**number)
    if isinstance(exponent, Tensor) and exponent.numel() == 1:
        exponent = float(exponent)
    if not isinstance(exponent, int | float):
        raise Unsupported("a power with a varying exponent")
    return expression(input).power(float(exponent))


def _powers() -> None:
    for name, exponent in {"square": 2.0, "sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}.items():
        RULES[name] = lambda input, exponent=exponent: expression(input).power(exponent)


_powers()


@rule("log")
def log(input: Node) -> Node:
    return input.apply(torch.log) if isinstance(input, Discrete) else input.log()


@rule("log1p")
def log1p(input: Node) -> Node:
    return log(add(input, 1.0))


@rule("exp")
def exp(input: Node) -> Node:
    if isinstance(input, Discrete):
        return input.apply(lambda table: table.double().exp())
    if isinstance(input, Product):
        raise Unsupported("the exponential of a product")
    return product(input, "exp")


@rule("logical_not", "bitwise_not", "invert")
def logical_not(input: Node) -> Node:
    return table_only(input, "logical_not").apply(torch.logical_not)


def _elementwise_on_tables() -> None:
    """Functions that act on discrete latents alone: comparisons, logic, rounding."""
    for name in ("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor",
                 "bitwise_and", "bitwise_or", "bitwise_xor", "minimum", "maximum", "remainder",
                 "fmod", "floor_divide"):  # fmt: skip
        function = getattr(torch, name)

        def act(
            input: Node, other: object, name: str = name, function: Callable[..., Tensor] = function
        ) -> Node:
            a, b = as_discrete(input), as_discrete(other)
            if a is None or b is None:
                raise Unsupported(f"{name} of a continuous latent")
            return a.combine(b, function)

        RULES[name] = act
    RULES.update(
        {"and": RULES["logical_and"], "or": RULES["logical_or"], "mod": RULES["remainder"]}
    )
    for name in ("abs", "sigmoid", "floor", "ceil", "round", "sign", "lgamma", "tanh"):
        function = getattr(torch, name)

        def map_table(
            input: Node, name: str = name, function: Callable[..., Tensor] = function
        ) -> Node:
            return table_only(input, name).apply(lambda table: function(table.double()))

        RULES[name] = map_table


_elementwise_on_tables()
