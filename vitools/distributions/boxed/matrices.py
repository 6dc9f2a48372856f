"""Random matrices whose unconstrained coordinates are independent, each between two ends.

The Cholesky factor R of a correlation matrix has D(D-1)/2 coordinates, of each entry below the diagonal
the partial correlation z = tanh u (Lewandowski, Kurowicka and Joe 2009), row by row, R_ii what makes a row
of length one. A covariance or precision matrix has D more, the logarithms of its scales s_i before them:

    X = L Lᵀ,   L = diag(s) R,   log |∂X/∂(u, R)| = D log 2 + Σ_i (D + 1 - i) log L_ii + i log s_i - log R_ii,

the entries of X and R those on and below, and below the diagonal (the first sum is Muirhead 1982, theorem
2.1.9; row i of L has ∂(L_i1 … L_ii)/∂(s_i, R_i1 …) = s_i^{i-1} / R_ii).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import CorrCholeskyTransform, constraints

from vitools.distributions.free_form import FreeForm

_ROOT = CorrCholeskyTransform()
MOST_NODES = 4096
"""Of the product rule for moments."""


class BoxedMatrix(TorchDistribution):
    """A D × D matrix; each coordinate has a density between two ends, and none beyond.

    Args:
        edges: ``[*batch, P, 2]``, the ends of each coordinate.
        log_density: ``[*batch, P, 1, 21]``, of each coordinate at the nodes of
            :class:`~vitools.distributions.free_form.FreeForm`, up to a constant.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False

    def __init__(self, edges: Tensor, log_density: Tensor, validate_args: bool | None = None):
        self.edges, self.log_density = edges, log_density
        count = edges.shape[-2]
        zero = torch.zeros((), dtype=edges.dtype)
        cut = torch.full(edges.shape, torch.inf, dtype=edges.dtype)
        # a number above zero has the coordinate log s
        self._numbers = FreeForm(edges, log_density, zero, zero + torch.inf, cut)
        self.size = self.size_of(count)
        shape = torch.Size((self.size, self.size))
        super().__init__(edges.shape[:-2], shape, validate_args=validate_args)

    @staticmethod
    @abstractmethod
    def size_of(count: int) -> int:
        """D of P."""

    @staticmethod
    @abstractmethod
    def count_of(size: int) -> int:
        """P of D."""

    @staticmethod
    @abstractmethod
    def value(u: Tensor) -> Tensor:
        """``[*S, P]`` to ``[*S, D, D]``."""

    @staticmethod
    @abstractmethod
    def coordinates(value: Tensor) -> Tensor:
        """The inverse of :meth:`value`."""

    @staticmethod
    @abstractmethod
    def log_jacobian(u: Tensor) -> Tensor:
        """log |∂X/∂u|, ``[*S, P]`` to ``[*S]``."""

    def expand(self, batch_shape: Any, _instance: Any = None) -> BoxedMatrix:
        batch = torch.Size(batch_shape)
        edges = self.edges.expand(*batch, *self.edges.shape[-2:])
        return type(self)(edges, self.log_density.expand(*batch, *self.log_density.shape[-3:]))

    def log_prob(self, value: Tensor) -> Tensor:
        u = self.coordinates(value.to(self.edges.dtype))
        return (self._numbers.log_prob(u.exp()) + u).sum(-1) - self.log_jacobian(u)

    def reaches(self, value: Tensor) -> Tensor:
        """Whether the matrix is in the box: ``[*S, *batch]``."""
        u = self.coordinates(value.to(self.edges.dtype))
        return ((u >= self.edges[..., 0]) & (u <= self.edges[..., 1])).all(-1)

    def sample(self, sample_shape: Sequence[int] | torch.Size = ()) -> Tensor:
        with torch.no_grad():
            return self.value(self._numbers.sample(torch.Size(sample_shape)).log())

    @property
    def mean(self) -> Tensor:
        return self._two_moments[0]

    @property
    def variance(self) -> Tensor:
        return self._two_moments[1]

    @cached_property
    def _two_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance, by Gauss and Legendre's rule in each coordinate."""
        count = self.edges.shape[-2]
        points = max(2, min(9, math.floor(MOST_NODES ** (1 / count))))
        x, weights, index = _product_rule(points, count)
        middle, half = self.edges.mean(-1), self.edges.diff(dim=-1).squeeze(-1) / 2
        u = middle.unsqueeze(-1) + half.unsqueeze(-1) * x  # [*batch, P, n]
        places = u.movedim(-1, 0)
        density = (self._numbers.log_prob(places.exp()) + places).exp().movedim(0, -1)
        mass = density * weights * half.unsqueeze(-1)
        mass = mass / mass.sum(-1, keepdim=True)
        rows = torch.arange(count)
        at = u.movedim((-2, -1), (0, 1))[rows, index]  # [nodes, P, *batch]
        total = mass.movedim((-2, -1), (0, 1))[rows, index].prod(1)[..., None, None]
        values = self.value(at.movedim(1, -1))
        mean = (total * values).sum(0)
        return mean, (total * (values - mean) ** 2).sum(0)


@lru_cache
def _product_rule(points: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes and weights on [-1, 1], and which of them each node in so many dimensions has."""
    x, weights = (torch.as_tensor(a) for a in np.polynomial.legendre.leggauss(points))
    index = torch.cartesian_prod(*[torch.arange(points)] * count).reshape(-1, count)
    return x, weights, index


class BoxedCorrelation(BoxedMatrix):
    """The Cholesky factor of a correlation matrix.

    >>> u = torch.tensor([0.5])
    >>> bool(torch.allclose(BoxedCorrelation.value(u)[1, 0], u.tanh()))
    True
    """

    @constraints.dependent_property(is_discrete=False, event_dim=2)
    def support(self) -> Any:
        return constraints.corr_cholesky

    @staticmethod
    def size_of(count: int) -> int:
        return (1 + math.isqrt(1 + 8 * count)) // 2

    @staticmethod
    def count_of(size: int) -> int:
        return size * (size - 1) // 2

    @staticmethod
    def value(u: Tensor) -> Tensor:
        return _ROOT(u)

    @staticmethod
    def coordinates(value: Tensor) -> Tensor:
        return _ROOT.inv(value)

    @staticmethod
    def log_jacobian(u: Tensor) -> Tensor:
        return _ROOT.log_abs_det_jacobian(u, _ROOT(u))


class BoxedCovariance(BoxedMatrix):
    """A positive definite matrix: the logarithms of its scales, then the coordinates of its correlations.

    >>> BoxedCovariance.value(torch.tensor([0.0, 0.0, 0.0])).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    @constraints.dependent_property(is_discrete=False, event_dim=2)
    def support(self) -> Any:
        return constraints.positive_definite

    @staticmethod
    def size_of(count: int) -> int:
        return (math.isqrt(1 + 8 * count) - 1) // 2

    @staticmethod
    def count_of(size: int) -> int:
        return size * (size + 1) // 2

    @staticmethod
    def value(u: Tensor) -> Tensor:
        scales, root = _scales_and_root(u)
        factor = scales.unsqueeze(-1) * root
        return factor @ factor.mT

    @staticmethod
    def coordinates(value: Tensor) -> Tensor:
        scales = value.diagonal(dim1=-2, dim2=-1).sqrt()
        root = torch.linalg.cholesky(value) / scales.unsqueeze(-1)
        if root.shape[-1] == 1:
            return scales.log()
        return torch.cat([scales.log(), _ROOT.inv(root)], -1)

    @staticmethod
    def log_jacobian(u: Tensor) -> Tensor:
        scales, root = _scales_and_root(u)
        size = scales.shape[-1]
        place = torch.arange(1, size + 1, dtype=u.dtype)
        own = root.diagonal(dim1=-2, dim2=-1).log()
        total = size * math.log(2) + ((size + 1 - place) * (scales.log() + own)).sum(-1)
        total = total + (place * scales.log() - own).sum(-1)
        if size == 1:
            return total
        return total + _ROOT.log_abs_det_jacobian(u[..., size:], root)


def _scales_and_root(u: Tensor) -> tuple[Tensor, Tensor]:
    size = BoxedCovariance.size_of(u.shape[-1])
    scales = u[..., :size].exp()
    if size == 1:
        return scales, torch.ones_like(scales).unsqueeze(-1)
    return scales, _ROOT(u[..., size:])
