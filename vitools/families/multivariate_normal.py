"""Multivariate normal: t = (x, xxᵀ), η = (Pμ, -P/2), A = ½ μᵀPμ - ½ log|P| + D/2 log 2π."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, constraints

from vitools.families.family import Family, Natural


class MultivariateNormalFamily(Family):
    name = "MultivariateNormal"
    statistics = (1.0, "outer")
    event_dims = (1, 2)
    support = constraints.real_vector

    def log_normaliser(self, natural: Natural) -> Tensor:
        linear, quadratic = natural
        root = torch.linalg.cholesky(-2 * quadratic)
        mean = torch.cholesky_solve(linear.unsqueeze(-1), root).squeeze(-1)
        log_root = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        size = linear.shape[-1]
        return 0.5 * (linear * mean).sum(-1) - log_root + 0.5 * size * math.log(2 * math.pi)

    def mean_parameters(self, natural: Natural) -> Natural:
        linear, quadratic = natural
        root = torch.linalg.cholesky(-2 * quadratic)
        covariance = torch.cholesky_inverse(root)
        mean = (covariance @ linear.unsqueeze(-1)).squeeze(-1)
        return mean, covariance + mean.unsqueeze(-1) * mean.unsqueeze(-2)

    def to_distribution(self, natural: Natural) -> Distribution:
        linear, quadratic = natural
        root = torch.linalg.cholesky(-2 * quadratic)
        covariance = torch.cholesky_inverse(root)
        mean = (covariance @ linear.unsqueeze(-1)).squeeze(-1)
        scale_tril = torch.linalg.cholesky(covariance)
        return MultivariateNormal(mean, scale_tril=scale_tril, validate_args=False)

    def from_distribution(self, distribution: Distribution) -> Natural:
        assert isinstance(distribution, MultivariateNormal)
        precision = distribution.precision_matrix
        linear = (precision @ distribution.loc.unsqueeze(-1)).squeeze(-1)
        return linear, -0.5 * precision

    def proper(self, natural: Natural) -> Tensor:
        linear, quadratic = natural
        finite = linear.isfinite().all(-1) & quadratic.isfinite().all(-1).all(-1)
        return finite & (torch.linalg.cholesky_ex(-2 * quadratic).info == 0)
