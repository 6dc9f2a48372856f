"""Normal and log-normal: log N(x | μ, σ²) = -½ τ (x-μ)² + ½ log τ - ½ log 2π, with τ = σ⁻²."""

import math

from vitools.calculus.algebra.expression import Expression


def normal(x: Expression, loc: Expression, scale: Expression) -> Expression:
    precision = scale.power(-2)
    error = (x - loc).folded_to_be_squared()  # constants first: their squares apart would cancel
    return -0.5 * precision * error.square() + 0.5 * precision.log() - 0.5 * math.log(2 * math.pi)


def log_normal(x: Expression, loc: Expression, scale: Expression) -> Expression:
    return normal(x.log(), loc, scale) - x.log()
