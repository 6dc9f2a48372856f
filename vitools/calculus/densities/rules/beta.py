"""Beta: log p = (a-1) log x + (b-1) log(1-x) - log B(a, b); the uniform on (0, 1) is Beta(1, 1)."""

from vitools.calculus.algebra.atoms import Unsupported, is_open
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.densities.rules.functions import constant, log_gamma


def beta(x: Expression, concentration1: Expression, concentration0: Expression) -> Expression:
    """With a = 1 (or b = 1), 1 / B(a, b) is b (or a): a power of it then, not log Γ."""
    a, b = concentration1, concentration0
    if a.is_constant and b.is_constant:
        both = a.value() + b.value()
        normaliser = log_gamma(both) - log_gamma(a.value()) - log_gamma(b.value())
    elif a.is_constant and is_one(a):
        normaliser = b.log()
    elif b.is_constant and is_one(b):
        normaliser = a.log()
    else:
        normaliser = log_gamma((a + b).folded()) - log_gamma(a) - log_gamma(b)
    powers = (a - 1).folded() * x.log() + (b - 1).folded() * (1 - x).log()
    return powers + normaliser


def is_one(parameter: Expression) -> bool:
    """Whether a constant parameter is 1, and will be."""
    value = parameter.value()
    return not is_open(value) and bool((value == 1).all())


def uniform(x: Expression, low: Expression, high: Expression) -> Expression:
    bounds = constant(low, "lower bound"), constant(high, "upper bound")
    if is_open(bounds[0]) or is_open(bounds[1]):
        raise Unsupported("bounds that move with values")
    if bool((bounds[0] != 0).any()) or bool((bounds[1] != 1).any()):
        raise Unsupported("a uniform density on an interval other than (0, 1)")
    return Expression.constant(0.0) * x if x.is_constant else Expression.constant(0.0)
