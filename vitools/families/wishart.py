"""Wishart: t = (log|X|, X), η = (½(ν-D-1), -½V⁻¹), A = ½νD log 2 + ½ν log|V| + log Γ_D(ν/2)."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Wishart, constraints

from vitools.families.family import Family, Natural


class WishartFamily(Family):
    name = "Wishart"
    statistics = ("log_determinant", 1.0)
    event_dims = (0, 2)
    support = constraints.positive_definite

    @staticmethod
    def _parameters(natural: Natural) -> tuple[Tensor, Tensor, int]:
        """Degrees of freedom ν, inverse scale V⁻¹ and D."""
        size = natural[1].shape[-1]
        return 2 * natural[0] + size + 1, -2 * natural[1], size

    def log_normaliser(self, natural: Natural) -> Tensor:
        return self.normalised(natural)[0]

    def mean_parameters(self, natural: Natural) -> Natural:
        return self.normalised(natural)[1]

    def normalised(self, natural: Natural) -> tuple[Tensor, Natural]:
        nu, inverse_scale, size = self._parameters(natural)
        root, info = torch.linalg.cholesky_ex(inverse_scale)
        log_det = -2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_det = torch.where(
            (info == 0) & (nu > size - 1), log_det, torch.full_like(log_det, torch.nan)
        )
        steps = torch.arange(size, dtype=nu.dtype, device=nu.device)
        halves = (nu.unsqueeze(-1) - steps) / 2
        # log Γ_D(ν/2), written out so that ν out of range gives no error but a value to refuse.
        log_gamma = torch.lgamma(halves).sum(-1) + size * (size - 1) / 4 * math.log(math.pi)
        log_normaliser = 0.5 * nu * (size * math.log(2) + log_det) + log_gamma
        mean_log = torch.digamma(halves).sum(-1) + size * math.log(2) + log_det
        return log_normaliser, (mean_log, nu[..., None, None] * torch.cholesky_inverse(root))

    def to_distribution(self, natural: Natural) -> Distribution:
        nu, inverse_scale, _ = self._parameters(natural)
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(inverse_scale))
        return Wishart(nu, covariance_matrix=covariance, validate_args=False)

    def from_distribution(self, distribution: Distribution) -> Natural:
        assert isinstance(distribution, Wishart)
        inverse_scale = distribution.precision_matrix
        size = inverse_scale.shape[-1]
        return (distribution.df - size - 1) / 2, -0.5 * inverse_scale

    def proper(self, natural: Natural) -> Tensor:
        nu, inverse_scale, size = self._parameters(natural)
        return (nu > size - 1) & (torch.linalg.cholesky_ex(inverse_scale).info == 0)
