"""Gaussians that score their draws by the noise in them, and that ``torch.vmap`` can vectorise.

    x = m + L ε,  ε ~ N(0, I):      log q(x) = -½ εᵀε - log |L| - ½ D log 2π

In float32 the sum m + σ ε keeps nothing of ε where σ is far below 10⁻⁷ |m|, and the derivative of
((x - m)/σ)² passes through σ⁻², which overflows below σ = 10⁻¹⁹: one unit of an encoder that grows
this sure ends a run. A distribution scores its last draw by the ε of its making instead, so that
all that has a derivative is -log |L|. Other values have the formula of torch.

torch fills an empty tensor in place (``normal_``), which vmap refuses to randomise per lane; here
noise comes from ``torch.randn``.
"""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, distributions
from torch.distributions import Distribution
from torch.distributions.kl import register_kl
from torch.distributions.utils import broadcast_all

from vitools.distributions.last_draw import LastDraw


class Normal(dist.Normal):
    """N(loc, scale²), exactly pyro's but for the two ways above.

    >>> q = Normal.from_log_scale(torch.tensor(1.0), torch.tensor(-200.0))
    >>> q.scale, q.log_prob(q.rsample()) > 190
    (tensor(0.), tensor(True))
    """

    _log_scale: Tensor | None = None
    _last_draw: LastDraw | None = None

    @classmethod
    def from_log_scale(cls, loc: Tensor, log_scale: Tensor) -> "Normal":
        """N(m, σ²) from log σ, which may be that of a σ too small to be a number."""
        loc, log_scale = broadcast_all(loc, log_scale)
        normal = cls(loc, torch.exp(log_scale), validate_args=False)
        normal._log_scale = log_scale
        return normal

    @property
    def log_scale(self) -> Tensor:
        """log σ."""
        return torch.log(self.scale) if self._log_scale is None else self._log_scale

    def expand(self, batch_shape, _instance=None):
        new = super().expand(batch_shape, _instance)
        if self._log_scale is not None:
            new._log_scale = self._log_scale.expand(batch_shape)
        return new

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        noise = _noise(self._extended_shape(sample_shape), self.loc)
        value, log_scale = self.loc + self.scale * noise, self.log_scale
        self._last_draw = LastDraw(value, value, lambda: log_density_of_noise(noise) - log_scale)
        return value

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(x). The last draw of this very object is scored by its noise."""
        if self._last_draw is not None and self._last_draw.value is value:
            return self._last_draw.score(super().log_prob)
        return super().log_prob(value)


class MultivariateNormal(dist.MultivariateNormal):
    """N(loc, LLᵀ), exactly pyro's but for the two ways above."""

    _last_draw: LastDraw | None = None

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        noise, scale_tril = _noise(self._extended_shape(sample_shape), self.loc), self.scale_tril
        value = self.loc + deviation(self, noise, noise)

        def log_density() -> Tensor:
            log_determinant = scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            return log_density_of_noise(noise).sum(-1) - log_determinant

        self._last_draw = LastDraw(value, value, log_density)
        return value

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(x). The last draw of this very object is scored by its noise."""
        if self._last_draw is not None and self._last_draw.value is value:
            return self._last_draw.score(super().log_prob)
        return super().log_prob(value)


class LowRankMultivariateNormal(dist.LowRankMultivariateNormal):
    """N(loc, WWᵀ + D), exactly pyro's, drawn with ``torch.randn``."""

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return rsample_gaussian(self, sample_shape)


def rsample_gaussian(gaussian: Distribution, sample_shape: torch.Size) -> Tensor:
    """A reparameterised draw from a (diagonal, full or low-rank) Gaussian on vectors."""
    return gaussian.mean + deviation(gaussian, *draw_noise(gaussian, sample_shape))


def draw_noise(gaussian: Distribution, sample_shape: torch.Size) -> tuple[Tensor, Tensor]:
    """What :func:`deviation` makes a draw from a Gaussian on vectors of."""
    noise = _noise(gaussian._extended_shape(sample_shape), gaussian.mean)
    if isinstance(gaussian, distributions.LowRankMultivariateNormal):
        return noise, _noise(noise.shape[:-1] + gaussian.cov_factor.shape[-1:], noise)
    return noise, noise


def deviation(gaussian: Distribution, noise: Tensor, shared: Tensor) -> Tensor:
    """The deviation from the mean that standard normal ``noise`` (and, for a low-rank
    covariance, one ``shared`` entry per factor) stands for."""
    if isinstance(gaussian, distributions.MultivariateNormal):
        return (gaussian.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
    if isinstance(gaussian, distributions.LowRankMultivariateNormal):
        low_rank = (gaussian.cov_factor @ shared.unsqueeze(-1)).squeeze(-1)
        return low_rank + gaussian.cov_diag.sqrt() * noise
    if isinstance(gaussian, distributions.Independent):
        return gaussian.base_dist.stddev * noise  # its own is the root of a square that may be 0
    return gaussian.stddev * noise


def covariance(gaussian: Distribution) -> Tensor:
    """The covariance matrix of a Gaussian on vectors."""
    if isinstance(
        gaussian, distributions.MultivariateNormal | distributions.LowRankMultivariateNormal
    ):
        return gaussian.covariance_matrix
    return torch.diag_embed(gaussian.variance)


def log_density_of_noise(noise: Tensor) -> Tensor:
    """log N(ε; 0, 1), elementwise."""
    return -0.5 * (noise.square() + math.log(2 * math.pi))


@register_kl(Normal, distributions.Normal)
def _kl_normal(p: Normal, q: distributions.Normal) -> Tensor:
    """log(σ_q/σ_p) + ½ [(σ_p/σ_q)² + ((m_p - m_q)/σ_q)² - 1].

    torch takes the logarithm of (σ_p/σ_q)², which float32 rounds to 0 for ratios below 10⁻²³.
    """
    ratio, distance = p.scale / q.scale, (p.loc - q.loc) / q.scale
    return torch.log(q.scale) - p.log_scale + 0.5 * (ratio.square() + distance.square() - 1)


def _noise(shape: torch.Size, like: Tensor) -> Tensor:
    return torch.randn(shape, dtype=like.dtype, device=like.device)
