"""Heavy tails about a location: Student-t, Cauchy, Laplace, logistic.

    log St(x | ν, μ, σ) = log Γ((ν+1)/2) - log Γ(ν/2) - ½ log πν - log σ - (ν+1)/2 log(1 + e²),
                                                                  e = (x - μ) / (σ √ν)
    log La(x | μ, b) = -log 2b - |x - μ| / b

With σ and ν known or on nodes, log(1 + e²) is a curved function of the location; of a Laplace, |x - μ| is
one whatever the scale. A logistic distribution likewise, with softplus in place of log(1 + e²):

    log Lo(x | μ, σ) = -log σ - z - 2 log(1 + exp(-z)),       z = (x - μ) / σ
"""

import math

from vitools.calculus.algebra.expression import Expression
from vitools.calculus.densities.rules.functions import known, log_gamma_ratio


def student_t(x: Expression, df: Expression, loc: Expression, scale: Expression) -> Expression:
    freedom, width = known(df, "df"), known(scale, "scale")
    inverse = width.power(-1.0) * freedom.power(-0.5)
    error = ((x - loc) * inverse).folded()
    half = (freedom * 0.5).folded()
    normaliser = log_gamma_ratio(half, 0.5) - 0.5 * (freedom * math.pi).log() - width.log()
    return normaliser - error.elementwise("log1p_square") * (half + 0.5)


def logistic(x: Expression, loc: Expression, scale: Expression) -> Expression:
    width = known(scale, "scale")
    z = ((x - loc) * width.power(-1.0)).folded()
    return -width.log() - z - (-z).elementwise("softplus") * 2.0


def cauchy(x: Expression, loc: Expression, scale: Expression) -> Expression:
    return student_t(x, Expression.constant(1.0), loc, scale)


def laplace(x: Expression, loc: Expression, scale: Expression) -> Expression:
    distance = (x - loc).folded().elementwise("abs")
    return -scale.log() - scale.power(-1.0) * distance - math.log(2.0)
