"""Multivariate normal: log p = -½ (x-μ)ᵀP(x-μ) + ½ log|P| - D/2 log 2π, with precision P."""

import math

import torch

from vitools.calculus.algebra.expression import Expression
from vitools.calculus.densities.rules.linear_algebra import inverse, log_determinant
from vitools.calculus.tracing.operations.matrices import matmul_expressions


def multivariate_normal(
    x: Expression,
    loc: Expression,
    covariance_matrix: Expression | None = None,
    precision_matrix: Expression | None = None,
    scale_tril: Expression | None = None,
) -> Expression:
    size = x.shape[-1]
    precision, log_det = precision_of(covariance_matrix, precision_matrix, scale_tril)
    error = (x - loc).folded()
    quadratic = (error.unsqueeze(-1) * error.unsqueeze(-2) * precision).sum_right(2)
    return -0.5 * quadratic + 0.5 * log_det - 0.5 * size * math.log(2 * math.pi)


def shaped_normal(x: Expression, loc: Expression, precision: Expression) -> Expression:
    """The same over all elements of a tensor, with precision [*S, *S]."""
    rank = precision.dim // 2
    matrix = precision.value()
    size = math.prod(matrix.shape[:rank])
    error = (x - loc).folded()
    left = right = error
    for _ in range(rank):
        left, right = left.unsqueeze(-1), right.unsqueeze(-1 - rank)
    quadratic = (left * right * precision).sum_right(2 * rank)
    log_det = float(torch.logdet(matrix.reshape(size, size)))
    return -0.5 * quadratic + 0.5 * log_det - 0.5 * size * math.log(2 * math.pi)


def precision_of(
    covariance_matrix: Expression | None,
    precision_matrix: Expression | None,
    scale_tril: Expression | None,
) -> tuple[Expression, Expression]:
    """The precision matrix and its log determinant, from whichever matrix is given."""
    if precision_matrix is not None:
        return precision_matrix, log_determinant(precision_matrix)
    if covariance_matrix is not None:
        return inverse(covariance_matrix), -log_determinant(covariance_matrix)
    assert scale_tril is not None
    root = inverse(scale_tril)
    order = [*range(root.dim - 2), root.dim - 1, root.dim - 2]
    return matmul_expressions(root.permute(order), root), -2.0 * log_determinant(scale_tril)
