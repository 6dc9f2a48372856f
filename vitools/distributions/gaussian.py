"""Gaussians whose draws can be vectorised by ``torch.vmap``.

torch fills an empty tensor in place (``normal_``), which vmap refuses to randomise per lane; here
noise comes from ``torch.randn``.
"""

import pyro.distributions as dist
import torch
from torch import Tensor, distributions
from torch.distributions import Distribution


class Normal(dist.Normal):
    """N(loc, scale²), exactly pyro's, drawn with ``torch.randn``."""

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return self.loc + self.scale * _noise(self._extended_shape(sample_shape), self.loc)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            return self.rsample(sample_shape)


class MultivariateNormal(dist.MultivariateNormal):
    """N(loc, LLᵀ), exactly pyro's, drawn with ``torch.randn``."""

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return rsample_gaussian(self, sample_shape)


class LowRankMultivariateNormal(dist.LowRankMultivariateNormal):
    """N(loc, WWᵀ + D), exactly pyro's, drawn with ``torch.randn``."""

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return rsample_gaussian(self, sample_shape)


def rsample_gaussian(gaussian: Distribution, sample_shape: torch.Size) -> Tensor:
    """A reparameterised draw from a (diagonal, full or low-rank) Gaussian on vectors."""
    noise = _noise(gaussian._extended_shape(sample_shape), gaussian.mean)
    if isinstance(gaussian, distributions.LowRankMultivariateNormal):
        shared = _noise(noise.shape[:-1] + gaussian.cov_factor.shape[-1:], noise)
    else:
        shared = noise
    return gaussian.mean + deviation(gaussian, noise, shared)


def deviation(gaussian: Distribution, noise: Tensor, shared: Tensor) -> Tensor:
    """The deviation from the mean that standard normal ``noise`` (and, for a low-rank
    covariance, one ``shared`` entry per factor) stands for."""
    if isinstance(gaussian, distributions.MultivariateNormal):
        return (gaussian.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
    if isinstance(gaussian, distributions.LowRankMultivariateNormal):
        low_rank = (gaussian.cov_factor @ shared.unsqueeze(-1)).squeeze(-1)
        return low_rank + gaussian.cov_diag.sqrt() * noise
    return gaussian.stddev * noise


def covariance(gaussian: Distribution) -> Tensor:
    """The covariance matrix of a Gaussian on vectors."""
    if isinstance(
        gaussian, distributions.MultivariateNormal | distributions.LowRankMultivariateNormal
    ):
        return gaussian.covariance_matrix
    return torch.diag_embed(gaussian.variance)


def _noise(shape: torch.Size, like: Tensor) -> Tensor:
    return torch.randn(shape, dtype=like.dtype, device=like.device)
