"""Wishart with ν degrees of freedom and scale V (mean νV), over D×D precision matrices X.

log p = ½(ν-D-1) log|X| - ½ tr(V⁻¹X) - ½νD log 2 - ½ν log|V| - log Γ_D(ν/2).
"""

import math

import torch

from vitools.calculus.algebra.expression import Expression
from vitools.calculus.densities.rules.functions import constant
from vitools.calculus.densities.rules.linear_algebra import log_determinant
from vitools.calculus.densities.rules.multivariate_normal import precision_of


def wishart(
    x: Expression,
    df: Expression,
    covariance_matrix: Expression | None = None,
    precision_matrix: Expression | None = None,
    scale_tril: Expression | None = None,
) -> Expression:
    size = x.shape[-1]
    nu = constant(df, "number of degrees of freedom")
    inverse_scale, log_det = precision_of(covariance_matrix, precision_matrix, scale_tril)
    trace = (inverse_scale * x).sum_right(2)
    normaliser = torch.mvlgamma(nu / 2, size) + nu * (size * math.log(2) / 2)
    return (
        Expression.constant((nu - size - 1) / 2) * log_determinant(x)
        - 0.5 * trace
        + Expression.constant(nu / 2) * log_det
        - Expression.constant(normaliser)
    )
