"""Multivariate normal: t = (x, xxᵀ), η = (Pμ, -P/2), A = ½ μᵀPμ - ½ log|P| + D/2 log 2π."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, constraints

from vitools.distributions.joint_normal import JointNormal
from vitools.families.family import Family, Natural, narrow, noise
from vitools.families.normal import NormalFamily


class MultivariateNormalFamily(Family):
    name = "MultivariateNormal"
    statistics = (1.0, "outer")
    event_dims = (1, 2)
    support = constraints.real_vector
    priors = ("MultivariateNormal", "GaussianMarkovChain")
    filler = (0.0, -0.5)
    members = {  # noqa: RUF012
        MultivariateNormal: ("loc", "scale_tril"),
        JointNormal: ("loc", "scale_tril", "value_shape", "joint_axes", "kept"),
    }
    is_gaussian = True

    def log_normaliser(self, natural: Natural) -> Tensor:
        return self.normalised(natural)[0]

    def mean_parameters(self, natural: Natural) -> Natural:
        return self.normalised(natural)[1]

    def normalised(self, natural: Natural) -> tuple[Tensor, Natural]:
        linear, quadratic = natural
        return self._completed(linear, *self._inverse(quadratic))

    def normalised_with(
        self, shared: Sequence[Tensor | None]
    ) -> Callable[[Natural], tuple[Tensor, Natural]]:
        """One precision matrix is inverted once."""
        if shared[1] is None:
            return self.normalised
        inverse = self._inverse(shared[1])
        return lambda natural: self._completed(natural[0], *inverse)

    def mean_and_covariance(self, natural: Natural) -> tuple[Tensor, Tensor, Tensor]:
        """μ, Σ and ½ log|P|; one Σ for all members where they share P."""
        linear, quadratic = natural
        covariance, log_root = self._inverse(quadratic)
        return self._mean(linear, covariance), covariance, log_root

    @staticmethod
    def _inverse(quadratic: Tensor) -> tuple[Tensor, Tensor]:
        """Σ = P⁻¹ and ½ log|P|, nan where P is not positive definite."""
        root, info = torch.linalg.cholesky_ex(-2 * quadratic)
        one = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
        root = torch.where((info == 0)[..., None, None], root, one)  # a singular root would raise
        covariance = torch.cholesky_inverse(root).mT  # symmetric; this view is contiguous
        log_root = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return covariance, torch.where(info == 0, log_root, torch.full_like(log_root, torch.nan))

    @staticmethod
    def _mean(linear: Tensor, covariance: Tensor) -> Tensor:
        if math.prod(covariance.shape[:-2]) == 1:
            return linear @ covariance.reshape(covariance.shape[-2:])
        return (covariance @ linear.unsqueeze(-1)).squeeze(-1)

    def _completed(
        self, linear: Tensor, covariance: Tensor, log_root: Tensor
    ) -> tuple[Tensor, Natural]:
        mean = self._mean(linear, covariance)
        inner = 0.5 * (linear * mean).sum(-1)
        log_normaliser = inner - log_root + 0.5 * linear.shape[-1] * math.log(2 * math.pi)
        return log_normaliser, (mean, covariance + mean.unsqueeze(-1) * mean.unsqueeze(-2))

    def to_distribution(self, natural: Natural) -> Distribution:
        mean, covariance, _ = self.mean_and_covariance(natural)
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

    def start(self, prior: Natural, generator: torch.Generator | None) -> Natural:
        """A standard normal mean, of unit covariance."""
        eye = torch.eye(prior[0].shape[-1], dtype=torch.float64)
        return noise(prior[0], generator), (-0.5 * eye).expand(prior[1].shape)

    def with_moments(self, mean: Tensor, variance: Tensor | None) -> Natural:
        """Without correlations."""
        variance = narrow(mean) if variance is None else variance
        return mean / variance, torch.diag_embed(-0.5 / variance)

    def coordinates(self, natural: Natural) -> Natural:
        root = torch.linalg.cholesky_ex(-2 * natural[1]).L
        return torch.cholesky_solve(natural[0].unsqueeze(-1), root).squeeze(-1), natural[1]

    def from_coordinates(self, point: Natural) -> Natural:
        return (-2 * point[1] @ point[0].unsqueeze(-1)).squeeze(-1), point[1]

    def words(self, total: Callable[..., str]) -> str:
        return self.of_elements.words(total)

    @property
    def of_elements(self) -> Family:
        return NormalFamily()
