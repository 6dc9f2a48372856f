"""Wishart: t = (log|X|, X), η = (½(ν-D-1), -½V⁻¹), A = ½νD log 2 + ½ν log|V| + log Γ_D(ν/2)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Wishart, constraints

from vitools.families.family import NARROW, NARROWEST, Family, Natural


class WishartFamily(Family):
    name = "Wishart"
    statistics = ("log_determinant", 1.0)
    event_dims = (0, 2)
    support = constraints.positive_definite
    priors = ("Wishart",)
    filler = (0.0, -0.5)
    members = {Wishart: ("df", "scale_tril")}  # noqa: RUF012

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

    def start(self, prior: Natural, generator: torch.Generator | None) -> Natural:
        """The prior, of unit scale where it is none."""
        degrees = prior[0].clamp(min=0.5)
        scale = (prior[1] + prior[1].mT) / 2
        if not bool(self.proper((degrees, scale)).all()):
            eye = torch.eye(scale.shape[-1], dtype=torch.float64)
            scale = (-0.5 * eye).expand(scale.shape)
        return degrees, scale

    def with_moments(self, mean: Tensor, variance: Tensor | None) -> Natural:
        """ν from Var X_dd = 2 (E X_dd)² / ν, V⁻¹ = ν (E X)⁻¹."""
        size = mean.shape[-1]
        degrees = torch.full(mean.shape[:-2], NARROW**-2, dtype=mean.dtype)
        if variance is not None:
            own, spread = (x.diagonal(dim1=-2, dim2=-1) for x in (mean, variance))
            degrees = 2 * own.square().sum(-1) / spread.sum(-1).clamp(min=1e-300)
            degrees = degrees.clamp(min=size, max=NARROWEST**-2)
        inverse = degrees[..., None, None] * torch.linalg.inv(mean)
        return (degrees - size - 1) / 2, -0.25 * (inverse + inverse.mT)

    def from_coordinates(self, point: Natural) -> Natural:
        return point[0], (point[1] + point[1].mT) / 2

    def words(self, total: Callable[..., str]) -> str:
        degrees = total("log_determinant", scale=2, plus=1)
        return f"Wishart(ν = D + {degrees}, V⁻¹ = {total(1.0, scale=-2)})"

    def statistic_of(self, function: Any, event_shape: Sequence[int]) -> Any | None:
        """The logarithm of a 1 x 1 matrix is that of its determinant."""
        if function == "log" and tuple(event_shape) == (1, 1):
            return "log_determinant"
        return super().statistic_of(function, event_shape)
