"""``pyro.factor``: log p is the factor itself. A flat prior: log p is 0, whatever the value."""

from typing import Any

from vitools.calculus.algebra.expression import Expression


def unit(x: Expression, log_factor: Expression) -> Expression:
    return log_factor


def flat(x: Expression, **_: Any) -> Expression:
    return Expression([], x.shape[: x.dim])
