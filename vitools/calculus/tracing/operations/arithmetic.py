"""Rules of elementwise operations: arithmetic, powers, logarithms, and functions of tables."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Unsupported, is_open
from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.functions import ELEMENTWISE
from vitools.calculus.algebra.products import Product, product
from vitools.calculus.tracing.operations.rules import (
    Node,
    as_discrete,
    as_function_of_discrete,
    expression,
    table_only,
)


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


def add(input: object, other: object, *, alpha: float = 1) -> Node:
    if alpha != 1:
        other = multiply(other, alpha)
    return _binary(input, other, torch.add, operator.add)


def subtract(input: object, other: object, *, alpha: float = 1) -> Node:
    if alpha != 1:
        other = multiply(other, alpha)
    return _binary(input, other, torch.sub, operator.sub)


def reversed_subtract(input: object, other: object, *, alpha: float = 1) -> Node:
    if alpha != 1:
        raise Unsupported("rsub with alpha")
    return subtract(other, input)


def multiply(input: object, other: object) -> Node:
    return _binary(input, other, torch.mul, operator.mul)


def divide(input: object, other: object, *, rounding_mode: str | None = None) -> Node:
    def on_tables(a: Tensor, b: Tensor) -> Tensor:
        return torch.div(a, b, rounding_mode=rounding_mode)

    if rounding_mode is not None and not (
        isinstance(input, Discrete) and as_discrete(other) is not None
    ):
        raise Unsupported("rounding division of a continuous latent")
    return _binary(input, other, on_tables, operator.truediv)


def reversed_divide(input: object, other: object) -> Node:
    return divide(other, input)


def negate(input: Node) -> Node:
    return input.apply(torch.neg) if isinstance(input, Discrete) else -input


def identity(input: Node, *_: object, **__: object) -> Node:
    return input


def cast(input: Node, *arguments: object, dtype: object = None, **_: object) -> Node:
    target = dtype if dtype is not None else next(iter(arguments), None)
    if isinstance(target, torch.dtype) and not target.is_floating_point:
        return integer(input)
    return input


def integer(input: Node) -> Node:
    if isinstance(input, Discrete):
        return input
    raise Unsupported("rounding a continuous latent to an integer")


def promoted(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    common = torch.promote_types(a.dtype, b.dtype)
    return a.to(common), b.to(common)


def extreme(name: str) -> Callable[..., Node]:
    """``max`` and ``min`` of two functions of discrete latents, element by element."""
    pairwise = _of_tables({"max": "maximum", "min": "minimum"}[name])

    def act(input: Node, other: object = None) -> Node:
        if isinstance(other, Tensor | Discrete | Expression):
            return pairwise(input, other)
        raise Unsupported(f"{name} along a dim")

    return act


def clamp(input: Node, min: object = None, max: object = None) -> Node:
    """Of a function of discrete latents."""
    result: Node = input
    if min is not None:
        result = _of_tables("maximum")(result, min)
    return result if max is None else _of_tables("minimum")(result, max)


def power(input: object, exponent: object) -> Node:
    if isinstance(exponent, Discrete):
        return _of_tables("pow")(input, exponent)  # type: ignore[arg-type]
    if isinstance(input, Discrete) and isinstance(exponent, int | float):
        number = exponent
        return input.apply(lambda table: table**number)
    if isinstance(exponent, Tensor) and exponent.numel() == 1 and not is_open(exponent):
        exponent = float(exponent)
    if not isinstance(exponent, int | float):
        raise Unsupported("a power with a varying exponent")
    return expression(input).power(float(exponent))


def _fixed_power(exponent: float) -> Callable[[object], Node]:
    return lambda input: expression(input).power(exponent)


def log(input: Node) -> Node:
    return input.apply(torch.log) if isinstance(input, Discrete) else input.log()


def log1p(input: Node) -> Node:
    return log(add(input, 1.0))


def exp(input: Node) -> Node:
    if isinstance(input, Discrete):
        return input.apply(lambda table: table.double().exp())
    if isinstance(input, Product):
        raise Unsupported("the exponential of a product")
    return product(input, "exp")


def logical_not(input: Node) -> Node:
    return table_only(input, "logical_not").apply(torch.logical_not)


def _of_tables(name: str) -> Callable[[Node, object], Node]:
    """A torch function of two arguments that acts on discrete latents alone."""
    function: Callable[..., Tensor] = getattr(torch, name)

    def act(input: Node, other: object) -> Node:
        a, b = as_function_of_discrete(input), as_function_of_discrete(other)
        if a is None or b is None:
            raise Unsupported(f"{name} of a continuous latent")
        return a.combine(b, lambda x, y: function(*promoted(x, y)))

    return act


def _of_table(name: str) -> Callable[[Node], Node]:
    """A torch function of one argument that acts on discrete latents alone."""
    function: Callable[..., Tensor] = getattr(torch, name)
    return lambda input: table_only(input, name).apply(lambda table: function(table.double()))


def _elementwise(name: str) -> Callable[[Node], Node]:
    """A function of one argument: of a table of cases, or of one element of a continuous latent."""
    compute = ELEMENTWISE[name][0]

    def act(input: Node) -> Node:
        if isinstance(input, Discrete):
            return input.apply(lambda table: compute(table.double()))
        return input.elementwise(name)

    return act


def error_function(input: Node) -> Node:
    """erf x = 2 Φ(√2 x) - 1, so that ½ (1 + erf(x/√2)), which loses its tail, is Φ(x) again."""
    inside = multiply(input, math.sqrt(2))
    return subtract(multiply(_elementwise("ndtr")(inside), 2.0), 1.0)


POWERS = {"square": 2.0, "sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}
ON_TWO_TABLES = (
    "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor", "bitwise_and",
    "bitwise_or", "bitwise_xor", "minimum", "maximum", "remainder", "fmod", "floor_divide",
)  # fmt: skip
SPELLINGS = {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "mod": "remainder"}
ON_A_TABLE = ("floor", "ceil", "round", "sign")
OF_ONE_ELEMENT = [name for name in ELEMENTWISE if name not in ("exp", "log", "log1p")]

RULES: dict[str, Callable[..., Any]] = {
    "add": add,
    "radd": add,
    "sub": subtract,
    "subtract": subtract,
    "rsub": reversed_subtract,
    "mul": multiply,
    "rmul": multiply,
    "multiply": multiply,
    "div": divide,
    "truediv": divide,
    "true_divide": divide,
    "divide": divide,
    "rdiv": reversed_divide,
    "rtruediv": reversed_divide,
    "neg": negate,
    "negative": negate,
    "pos": identity,
    "positive": identity,
    "clone": identity,
    "detach": identity,
    "contiguous": identity,
    "cpu": identity,
    "requires_grad_": identity,
    "to": cast,
    "type": cast,
    "type_as": cast,
    "double": cast,
    "float": cast,
    "long": integer,
    "int": integer,
    "bool": integer,
    "pow": power,
    "max": extreme("max"),
    "min": extreme("min"),
    "clamp": clamp,
    "clip": clamp,
    "log": log,
    "log1p": log1p,
    "exp": exp,
    "erf": error_function,
    "special_erf": error_function,
    "special_expit": _elementwise("sigmoid"),
    "logical_not": logical_not,
    "bitwise_not": logical_not,
    "invert": logical_not,
    **{name: _fixed_power(exponent) for name, exponent in POWERS.items()},
    **{name: _of_tables(name) for name in ON_TWO_TABLES},
    **{name: _of_tables(meant) for name, meant in SPELLINGS.items()},
    **{name: _of_table(name) for name in ON_A_TABLE},
    **{name: _elementwise(name) for name in OF_ONE_ELEMENT},
    **{f"special_{name}": _elementwise(name) for name in ("log_ndtr", "ndtr")},
}
