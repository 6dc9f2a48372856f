"""Heavy tails about a location: Student-t, Cauchy, Laplace.

    log St(x | ν, μ, σ) = log Γ((ν+1)/2) - log Γ(ν/2) - ½ log πν - log σ - (ν+1)/2 log(1 + e²),
                                                                  e = (x - μ) / (σ √ν)
    log La(x | μ, b) = -log 2b - |x - μ| / b

With σ and ν known, log(1 + e²) is a curved function of the location; of a Laplace, |x - μ| is one
whatever the scale.
"""

import math

from vitools.calculus.algebra.expression import Expression
from vitools.calculus.densities.rules.functions import constant, log_gamma


def student_t(x: Expression, df: Expression, loc: Expression, scale: Expression) -> Expression:
    freedom = Expression.constant(constant(df, "df"))
    width = constant(scale, "scale")
    error = ((x - loc) * Expression.constant(1 / (width * freedom.value().sqrt()))).folded()
    tail = error.elementwise("log1p_square") * ((freedom + 1.0) * 0.5)
    normaliser = (
        log_gamma((freedom.value() + 1) / 2)
        - log_gamma(freedom.value() / 2)
        - 0.5 * (freedom * math.pi).log()
        - Expression.constant(width).log()
    )
    return normaliser - tail


def cauchy(x: Expression, loc: Expression, scale: Expression) -> Expression:
    return student_t(x, Expression.constant(1.0), loc, scale)


def laplace(x: Expression, loc: Expression, scale: Expression) -> Expression:
    distance = (x - loc).folded().elementwise("abs")
    return -scale.log() - scale.power(-1.0) * distance - math.log(2.0)
