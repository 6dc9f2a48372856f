"""Waiting times: Weibull and Gumbel.

log We(x | λ, k) = log k - k log λ + (k-1) log x - (x/λ)^k,      k known or on nodes
log Gu(x | μ, β) = -log β - z - e^-z,  z = (x - μ) / β,           β known or on nodes
"""

from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.products import product
from vitools.calculus.densities.rules.functions import known


def weibull(x: Expression, scale: Expression, concentration: Expression) -> Expression:
    shape = known(concentration, "concentration")
    log_ratio = (x.log() - scale.log()).folded()
    return shape.log() - x.log() + shape * log_ratio - product(shape * log_ratio, "(x/λ)^k") * 1.0


def gumbel(x: Expression, loc: Expression, scale: Expression) -> Expression:
    inverse = known(scale, "scale").power(-1.0)
    z = ((x - loc) * inverse).folded()
    return inverse.log() - z - product(-z, "exp(-z)") * 1.0
