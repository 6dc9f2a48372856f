"""Gamma and its relatives: log Gamma(x | a, b) = a log b + (a-1) log x - b x - log Γ(a)."""

from vitools.calculus.algebra.expression import Expression
from vitools.calculus.densities.rules.functions import log_gamma


def gamma(x: Expression, concentration: Expression, rate: Expression) -> Expression:
    a = concentration.folded()
    return a * rate.log() + (a - 1).folded() * x.log() - rate * x - log_gamma(a)


def inverse_gamma(x: Expression, concentration: Expression, rate: Expression) -> Expression:
    """log p = a log b - (a+1) log x - b / x - log Γ(a)."""
    a = concentration.folded()
    return a * rate.log() - (a + 1).folded() * x.log() - rate * x.power(-1) - log_gamma(a)


def exponential(x: Expression, rate: Expression) -> Expression:
    return rate.log() - rate * x


def chi2(x: Expression, df: Expression) -> Expression:
    return gamma(x, df * 0.5, Expression.constant(0.5))
