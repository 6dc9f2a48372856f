"""Functions of one scalar latent: what an atom may carry besides a power or a logarithm.

A function is known by what it computes, so that any of torch's elementwise operations, a product of
functions at one place, or a whole log density can be a statistic: its expectation is a
one-dimensional integral (:mod:`vitools.families.free_form`). Data may stand inside, as the counts in
log Γ(y_n + r).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Constant, Function, Unsupported

PLAIN = {"log": torch.log, "log1m": lambda x: torch.log1p(-x)}
"""What the atoms with these names are functions of, beside powers."""

ELEMENTWISE: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "abs": (torch.abs, "|{}|"),
    "atan": (torch.atan, "atan {}"),
    "cos": (torch.cos, "cos {}"),
    "exp": (torch.exp, "exp {}"),
    "expm1": (torch.expm1, "expm1 {}"),
    "lgamma": (torch.lgamma, "log Γ({})"),
    "log": (torch.log, "log {}"),
    "log1p": (torch.log1p, "log(1 + {})"),
    "log1p_square": (lambda x: torch.log1p(x**2), "log(1 + {}²)"),
    "log_ndtr": (torch.special.log_ndtr, "log Φ({})"),
    "log_sigmoid": (torch.nn.functional.logsigmoid, "log σ({})"),
    "logit": (torch.logit, "logit {}"),
    "ndtr": (torch.special.ndtr, "Φ({})"),
    "relu": (torch.relu, "max({}, 0)"),
    "sigmoid": (torch.sigmoid, "σ({})"),
    "sin": (torch.sin, "sin {}"),
    "sinh": (torch.sinh, "sinh {}"),
    "cosh": (torch.cosh, "cosh {}"),
    "stirling_error": (lambda x: _stirling_error(x), "δ({})"),
    "softplus": (lambda x: -torch.nn.functional.logsigmoid(-x), "softplus({})"),
    "tanh": (torch.tanh, "tanh {}"),
}
"""Torch's elementwise functions: how each is computed, and its words. A new one is one line.

Softplus by log σ: torch's own is cut off at 20.
"""


def _stirling_error(x: Tensor) -> Tensor:
    """log Γ(x) - (x - ½) log x + x - ½ log 2π, of order 1 / 12x."""
    small = x.clamp(max=STIRLING)
    direct = torch.lgamma(small) - (small - 0.5) * small.log() + small - 0.5 * math.log(2 * math.pi)
    inverse = 1 / x.clamp(min=STIRLING)
    terms = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)
    series = sum(c * inverse ** (2 * i + 1) for i, c in enumerate(terms))
    return torch.where(x < STIRLING, direct, series)


STIRLING = 16.0
"""From where on five terms of the series are exact to rounding."""

LOGARITHMS = {"ndtr": "log_ndtr", "sigmoid": "log_sigmoid"}
"""Distribution functions, symmetric about zero, and their logarithms, which do not underflow."""


def as_function(function: float | str | Function) -> Function:
    """Any atom's function as one that can be computed."""
    if isinstance(function, Function):
        return function
    if isinstance(function, str):
        if function not in PLAIN:
            raise Unsupported(f"{function} as a function of one number")
        words = "log {}" if function == "log" else "log(1 - {})"
        return Function(function, PLAIN[function], words)
    if function == 1:
        return Function(1.0, lambda x: x, "{}")
    return Function(function, lambda x: x**function, f"{{}}^{function:g}")


def composed(name: str, inner: float | str | Function) -> float | str | Function:
    """name(inner(x)); a logarithm undoes an exponential and the other way round."""
    if inner == 1.0 and name == "log":
        return name
    f = as_function(inner)
    compute, words = ELEMENTWISE[name]
    if name == "exp" and f.name == "log":
        return 1.0
    outer = f.name[0] if isinstance(f.name, tuple) else None
    if {name, outer} == {"exp", "log"} and f.inner is not None:
        return f.inner
    if name == "log" and outer in LOGARITHMS and f.inner is not None:
        return composed(LOGARITHMS[outer], f.inner)
    if words.endswith(" {}") and " " in f.words:  # cos(2 x)
        words = words.removesuffix(" {}") + "({})"
    return Function(
        (name, f.name),
        lambda x, *data: compute(f.evaluate(x, *data)),
        words.replace("{}", f.words),
        f.data,
        inner=inner,
    )


def to_power(function: float | str | Function, exponent: float) -> float | Function:
    """function(x) ** exponent."""
    if isinstance(function, float | int):
        if exponent != int(exponent) and function % 2 == 0:  # (x²)^½ is |x|
            return _power_of_size(function * exponent)
        return function * exponent
    f = as_function(function)
    if isinstance(f.name, tuple) and f.name[0] == "abs" and isinstance(f.name[1], float):
        return _power_of_size(f.name[1] * exponent)
    return Function(
        ("power", exponent, f.name),
        lambda x, *data: f.evaluate(x, *data) ** exponent,
        f"({f.words})^{exponent:g}",
        f.data,
    )


def _power_of_size(power: float) -> Function:
    """|x|^p; |x| is that of ELEMENTWISE."""
    words = "|{}|" if power == 1 else f"|{{}}|^{power:g}"
    return Function(("abs", power), lambda x: x.abs() ** power, words)


def multiplied(functions: Sequence[float | str | Function]) -> Function:
    """The product of functions at one place."""
    parts = sorted((as_function(f) for f in functions), key=lambda f: str(f.name))
    name: Hashable = ("product", *(f.name for f in parts))
    return Function(
        name,
        lambda x, *data: _product(parts, x, data),
        _product_in_words([f.words for f in parts]),
        tuple(constant for f in parts for constant in f.data),
    )


def _product_in_words(words: Sequence[str]) -> str:
    """Factors side by side; what stands twice is squared."""
    shown = []
    for factor in dict.fromkeys(words):
        count = words.count(factor)
        bracketed = f"({factor})" if " " in factor and len(words) > 1 else factor
        shown.append(bracketed if count == 1 else f"{bracketed}^{count}")
    return " · ".join(shown)


def _product(parts: Sequence[Function], x: Tensor, data: Sequence[Tensor]) -> Tensor:
    total, used = torch.ones((), dtype=x.dtype), 0
    for part in parts:
        total = total * part.evaluate(x, *data[used : used + len(part.data)])
        used += len(part.data)
    return total


def combined(terms: Sequence[tuple[float, Sequence[Constant], Function | None]]) -> Function:
    """Σ coefficient · Π constants · f(x); a term without a function is a number or data."""
    number = sum(c for c, constants, function in terms if not constants and function is None)
    terms = [term for term in terms if term[1] or term[2] is not None]
    if number or not terms:
        terms.insert(0, (number, (), None))
    if len(terms) == 1 and terms[0][0] == 1 and not terms[0][1] and terms[0][2] is not None:
        return terms[0][2]
    complement = _complement(terms)
    if complement is not None:
        return complement
    data: list[Constant] = []
    names, plan = [], []
    words: list[str] = []
    for coefficient, constants, function in terms:
        inner = function.data if function is not None else ()
        plan.append((coefficient, len(constants), function, len(inner)))
        data += [*constants, *inner]
        names.append((coefficient, len(constants), None if function is None else function.name))
        stands = abs(coefficient) != 1 or (function is None and not constants)
        factors = [f"{abs(coefficient):g}"] * stands
        factors += ["data"] * bool(constants) + ([function.words] if function is not None else [])
        sign = ("- " if words else "-") if coefficient < 0 else ("+ " if words else "")
        words.append(sign + " ".join(factors))

    def evaluate(x: Tensor, *values: Tensor) -> Tensor:
        total, used = torch.zeros((), dtype=x.dtype), 0
        for coefficient, count, function, inside in plan:
            part = torch.full((), coefficient, dtype=x.dtype)
            for value in values[used : used + count]:
                part = part * value
            used += count
            if function is not None:
                part = part * function.evaluate(x, *values[used : used + inside])
            used += inside
            total = total + part
        return total

    parts = tuple((number, tuple(constants), function) for number, constants, function in terms)
    return Function(("sum", *names), evaluate, " ".join(words), tuple(data), parts=parts)


def _complement(
    terms: Sequence[tuple[float, Sequence[Constant], Function | None]],
) -> Function | None:
    """1 - F(f) as F(-f) for a symmetric F, which does not cancel; None for another sum."""
    if len(terms) != 2 or any(constants for _, constants, _ in terms):
        return None
    (one, _, nothing), (minus, _, function) = sorted(terms, key=lambda term: term[2] is not None)
    if nothing is not None or function is None or (one, minus) != (1, -1):
        return None
    outer = function.name[0] if isinstance(function.name, tuple) else None
    if outer not in LOGARITHMS or function.inner is None:
        return None
    opposite = composed(outer, combined([(-1.0, (), as_function(function.inner))]))
    assert isinstance(opposite, Function)
    return opposite


def weighted(function: Function, weights: Sequence[Constant]) -> Function:
    """Π weights · f(x), the weights data inside the function."""
    if not weights:
        return function
    name: Hashable = ("weighted", len(weights), function.name)
    count = len(weights)

    def evaluate(x: Tensor, *data: Tensor) -> Tensor:
        value = function.evaluate(x, *data[count:])
        for weight in data[:count]:
            value = value * weight
        return value

    words = f"data · {function.words}"
    return Function(name, evaluate, words, (*weights, *function.data), function.summed)
