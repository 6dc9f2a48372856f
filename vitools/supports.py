"""Maps from the whole real line to a support, for the supports of latent sites.

torch and :mod:`vitools.distributions.simplex_map` have most of them. Missing are Cholesky factors and positive
definite matrices, whose D(D+1)/2 free entries do not have the shape of the matrix:

    L = strict lower triangle of u, exp(u) on the diagonal,   log |∂L/∂u| = Σ_d u_dd
    Σ = L Lᵀ,   log |∂Σ/∂L| = D log 2 + Σ_d (D + 1 - d) log L_dd,   d = 1, …, D

(Muirhead 1982, *Aspects of Multivariate Statistical Theory*, theorem 2.1.9).
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import ComposeTransform, IndependentTransform, Transform

from vitools.distributions.simplex_map import onto

_POSITIVE_DEFINITE = (
    type(constraints.positive_definite),
    type(constraints.positive_semidefinite),
)
_LOWER_CHOLESKY = type(constraints.lower_cholesky)
_ONLY: dict[type, Any] = {
    type(one): one
    for one in vars(constraints).values()
    if isinstance(one, constraints.Constraint) and not vars(one)
}
"""torch's constraints without parameters, by their types."""


def base_support(support: Any) -> Any:
    """The constraint on one entry, under ``independent``; torch's own object where it has but one.

    Copies (of a pickled fit, say) are so recognised by identity like the original.
    """
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return _ONLY.get(type(support), support)


def bounds(support: Any) -> tuple[Any, Any]:
    """Lower and upper bound of an interval, ``None`` where there is none."""
    base = base_support(support)
    return getattr(base, "lower_bound", None), getattr(base, "upper_bound", None)


def from_reals(support: Any) -> Transform:
    """The bijection from ℝ^P to ``support``; its ``inv`` and log-Jacobian are available.

    Raises ``NotImplementedError`` for a support no bijection is known for.

    Example:
        >>> transform = from_reals(torch.distributions.constraints.positive_definite)
        >>> transform(torch.tensor([0.0, 2.0, 0.0])).tolist()
        [[1.0, 2.0], [2.0, 5.0]]
    """
    if isinstance(support, constraints.independent):
        base = from_reals(support.base_constraint)
        return IndependentTransform(base, support.reinterpreted_batch_ndims)
    if isinstance(support, _LOWER_CHOLESKY):
        return LowerCholeskyFromVector()
    if isinstance(support, _POSITIVE_DEFINITE):
        return ComposeTransform([LowerCholeskyFromVector(), OuterSquare()])
    return onto(support)


class LowerCholeskyFromVector(Transform):
    """``[*, D(D+1)/2]`` to a lower triangular matrix ``[*, D, D]`` with positive diagonal."""

    domain = constraints.real_vector
    codomain = constraints.lower_cholesky
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LowerCholeskyFromVector)

    def _call(self, x: Tensor) -> Tensor:
        size = _size(x.shape[-1])
        rows, columns = torch.tril_indices(size, size, device=x.device)
        entries = torch.where(rows == columns, x.exp(), x)
        # a matrix product with a constant, because vmap has no batched indexed write
        place = x.new_zeros((x.shape[-1], size * size))
        place[torch.arange(x.shape[-1], device=x.device), rows * size + columns] = 1.0
        return (entries @ place).reshape(x.shape[:-1] + (size, size))

    def _inverse(self, y: Tensor) -> Tensor:
        size = y.shape[-1]
        rows, columns = torch.tril_indices(size, size, device=y.device)
        entries = y[..., rows, columns]
        return torch.where(rows == columns, entries.clamp(min=0).log(), entries)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return y.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        size = _size(shape[-1])
        return torch.Size((*shape[:-1], size, size))

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return torch.Size((*shape[:-2], shape[-1] * (shape[-1] + 1) // 2))


class OuterSquare(Transform):
    """L to L Lᵀ."""

    domain = constraints.lower_cholesky
    codomain = constraints.positive_definite
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OuterSquare)

    def _call(self, x: Tensor) -> Tensor:
        return x @ x.mT

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.linalg.cholesky(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        size = x.shape[-1]
        powers = torch.arange(size, 0, -1, dtype=x.dtype, device=x.device)
        return size * math.log(2) + (powers * x.diagonal(dim1=-2, dim2=-1).log()).sum(-1)


def _size(entries: int) -> int:
    """D from D(D+1)/2."""
    return (math.isqrt(8 * entries + 1) - 1) // 2
