"""Beta: log p = (a-1) log x + (b-1) log(1-x) - log B(a, b); the uniform on (0, 1) is Beta(1, 1)."""

from vitools.conjugacy.expression import Expression
from vitools.conjugacy.factors.functions import constant, log_gamma
from vitools.conjugacy.term import Unsupported


def beta(x: Expression, concentration1: Expression, concentration0: Expression) -> Expression:
    a = constant(concentration1, "concentration")
    b = constant(concentration0, "concentration")
    kernel = Expression.constant(a - 1) * x.log() + Expression.constant(b - 1) * (1 - x).log()
    return kernel + log_gamma(a + b) - log_gamma(a) - log_gamma(b)


def uniform(x: Expression, low: Expression, high: Expression) -> Expression:
    bounds = constant(low, "lower bound"), constant(high, "upper bound")
    if bool((bounds[0] != 0).any()) or bool((bounds[1] != 1).any()):
        raise Unsupported("a uniform density on an interval other than (0, 1)")
    return Expression.constant(0.0) * x if x.is_constant else Expression.constant(0.0)
