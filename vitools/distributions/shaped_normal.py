"""A normal distribution over a tensor whose elements are all correlated: x of shape S, precision S × S."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class ShapedNormal(TorchDistribution):
    """log p = -½ Σ_ij (x - m)_i P_ij (x - m)_j + ½ log|P| - D/2 log 2π, with i and j over all elements.

    A multivariate normal whose value keeps the shape that its site has in a model.

    Args:
        loc: m, [*batch, *S].
        precision: P, [*S, *S].
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = dict.fromkeys(
        ("loc", "precision"), constraints.dependent
    )
    has_rsample = True

    def __init__(self, loc: Tensor, precision: Tensor, validate_args: bool | None = None):
        rank = precision.dim() // 2
        event = precision.shape[:rank]
        batch = torch.broadcast_shapes(loc.shape, event)[: max(0, loc.dim() - rank)]
        self.loc, self.precision = loc.expand(*batch, *event), precision
        super().__init__(torch.Size(batch), torch.Size(event), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        return constraints.independent(constraints.real, self.event_dim)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ShapedNormal:
        shape = (*batch_shape, *self.event_shape)
        return ShapedNormal(self.loc.expand(shape), self.precision, validate_args=False)

    @property
    def matrix(self) -> Tensor:
        """P as [D, D]."""
        size = self.event_shape.numel()
        return self.precision.reshape(size, size)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(self.matrix))
        return covariance.diagonal().reshape(self.event_shape).expand(self.loc.shape)

    def rsample(self, sample_shape: Sequence[int] | torch.Size = ()) -> Tensor:
        shape = (*sample_shape, *self.batch_shape, self.event_shape.numel())
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        root = torch.linalg.cholesky(self.matrix)
        step = torch.linalg.solve_triangular(root.mT, noise.unsqueeze(-1), upper=True)
        return self.loc + step.reshape(*sample_shape, *self.batch_shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        size = self.event_shape.numel()
        root = torch.linalg.cholesky(self.matrix)
        error = value - self.loc
        error = error.reshape(*error.shape[: error.dim() - self.event_dim], size)
        half_log_det = root.diagonal().log().sum()
        square = (error @ root).square().sum(-1)
        return -0.5 * square + half_log_det - 0.5 * size * math.log(2 * math.pi)
