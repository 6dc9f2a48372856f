"""What linear regression's posterior is exactly: the truth its approximations are judged by.

Given τ the posterior of β is Normal(m(τ), Λ(τ)⁻¹) and the evidence a Gaussian integral::

    Λ = P₀ + τG,   m = τ Λ⁻¹ h
    log p(y | τ) = N/2 log(τ/2π) + ½ log|P₀| - ½ log|Λ| - ½ (τ yᵀy - mᵀΛm)

For unknown τ one integral over u = log τ remains, done by the trapezoid rule, whose error on so
smooth and decaying an integrand is that of the arithmetic. One eigendecomposition
P₀^-½ G P₀^-½ = V diag(λ) Vᵀ makes all nodes cheap: with c = Vᵀ P₀^-½ h,

    log|Λ| - log|P₀| = Σ log(1 + τλᵢ),   mᵀΛm = Σ τ²cᵢ²/(1 + τλᵢ)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.models.bayesian_regression.checks import check_positive
from vitools.models.bayesian_regression.statistics import (
    Prior,
    SufficientStatistics,
    regression_prior,
    sufficient_statistics,
)

_NEGLIGIBLE = 60.0  # nats below the peak: e⁻⁶⁰ is 1e-26 of the integrand's height
_FEWEST_NODES = 2001


@dataclass(frozen=True)
class ExactPosterior:
    """Moments of p(w, b, τ | y), and the evidence.

    Attributes:
        mean: E[β | y], weights then intercept, shape [D + 1].
        covariance: Cov[β | y], shape [D + 1, D + 1].
        precision_mean: E[τ | y].
        precision_sd: sd[τ | y]; 0 when τ is known.
        log_evidence: log p(y) in nats.
    """

    mean: Tensor
    covariance: Tensor
    precision_mean: float
    precision_sd: float
    log_evidence: float

    @property
    def sd(self) -> Tensor:
        """The standard deviations of β, weights then intercept, shape [D + 1]."""
        return self.covariance.diagonal().sqrt()


@dataclass(frozen=True)
class _Spectrum:
    """λ [D + 1], c [D + 1] and P₀^-½ V [D + 1, D + 1] of the module's docstring."""

    statistics: SufficientStatistics
    eigenvalues: Tensor
    projections: Tensor
    basis: Tensor

    def log_evidence(self, precision: Tensor) -> Tensor:
        """log p(y | τ) for each τ, shape [T] -> [T]."""
        growth = 1 + precision[:, None] * self.eigenvalues
        explained = (precision[:, None] * self.projections**2 / growth).sum(1)
        return (
            0.5 * self.statistics.num_rows * torch.log(precision / (2 * math.pi))
            - 0.5 * growth.log().sum(1)
            - 0.5 * precision * (self.statistics.target_square - explained)
        )

    def moments(self, precision: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of β when τ has the given values with the given weights, [T] each."""
        growth = 1 + precision[:, None] * self.eigenvalues
        means = precision[:, None] * self.projections / growth
        mean = weight @ means
        centred = means - mean
        covariance = torch.diag(weight @ (1 / growth)) + (centred.T * weight) @ centred
        return self.basis @ mean, self.basis @ covariance @ self.basis.T


def exact_posterior(
    features: Tensor,
    target: Tensor,
    prior_scale: float = 1.0,
    intercept_scale: float = 10.0,
    noise_shape: float = 1.0,
    noise_rate: float = 1.0,
    *,
    noise_precision: float | None = None,
) -> ExactPosterior:
    """The exact moments and evidence, in float64.

    Args:
        features: X, shape [N, D].
        target: y, shape [N].
        prior_scale: and the three after it as for :func:`vitools.models.bayesian_regression.model`.
        noise_precision: τ where it is known; ``noise_shape`` and ``noise_rate`` then play no part.

    Raises:
        DataError: shapes that do not fit, or a number that is not finite.
        OptionError: impossible options.

    Example:
        >>> one = torch.ones(1, 1)
        >>> post = exact_posterior(one, one[0], 1.0, 1.0, noise_precision=1.0)
        >>> post.mean, round(post.log_evidence, 4)  # y ~ Normal(0, 3)
        (tensor([0.3333, 0.3333], dtype=torch.float64), -1.6349)
    """
    statistics = sufficient_statistics(features, target)
    prior = regression_prior(
        features.shape[1],
        prior_scale,
        intercept_scale,
        noise_shape,
        noise_rate,
        device=features.device,
    )
    spectrum = _spectrum(statistics, prior)
    if noise_precision is not None:
        check_positive(noise_precision=noise_precision)
        precision = torch.full_like(statistics.target_square, noise_precision)[None]
        weight, log_evidence = torch.ones_like(precision), spectrum.log_evidence(precision)[0]
    else:
        precision, weight, log_evidence = _integrate_precision(spectrum, prior)
    mean, covariance = spectrum.moments(precision, weight)
    precision_mean = weight @ precision
    precision_variance = weight @ (precision - precision_mean) ** 2
    return ExactPosterior(
        mean,
        covariance,
        precision_mean.item(),
        precision_variance.sqrt().item(),
        log_evidence.item(),
    )


def exact_log_evidence(
    features: Tensor,
    target: Tensor,
    prior_scale: float = 1.0,
    intercept_scale: float = 10.0,
    noise_shape: float = 1.0,
    noise_rate: float = 1.0,
    *,
    noise_precision: float | None = None,
) -> float:
    """log p(y), or log p(y | τ) for a known ``noise_precision`` τ, in nats.

    Arguments and errors as for :func:`exact_posterior`, which gives the moments too.
    """
    return exact_posterior(
        features,
        target,
        prior_scale,
        intercept_scale,
        noise_shape,
        noise_rate,
        noise_precision=noise_precision,
    ).log_evidence


def _spectrum(statistics: SufficientStatistics, prior: Prior) -> _Spectrum:
    scale = prior.coefficient_precision.rsqrt()
    eigenvalues, vectors = torch.linalg.eigh(scale[:, None] * statistics.gram * scale)
    basis = scale[:, None] * vectors
    return _Spectrum(
        statistics,
        eigenvalues.clamp_min(0),  # G has no negative ones; rounding gives some about -1e-16
        basis.T @ statistics.moment,
        basis,
    )


def _integrate_precision(spectrum: _Spectrum, prior: Prior) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes τ, their posterior weights (summing to 1), and log p(y) = log ∫ p(y|τ) p(τ) τ d log τ."""

    def log_integrand(log_precision: Tensor) -> Tensor:
        precision = log_precision.exp()
        log_prior = (
            prior.noise_shape * math.log(prior.noise_rate)
            - math.lgamma(prior.noise_shape)
            + prior.noise_shape * log_precision
            - prior.noise_rate * precision
        )
        return spectrum.log_evidence(precision) + log_prior

    lower, upper = _range(spectrum, prior)
    # A peak's width is (a₀+N/2)^-½ or more: nodes so close that none falls between two of them.
    density = 4 * math.sqrt(prior.noise_shape + 0.5 * spectrum.statistics.num_rows)
    nodes, values = _evaluate(log_integrand, lower, upper, density, spectrum.eigenvalues.device)
    inside = (values > values.max() - _NEGLIGIBLE).nonzero().squeeze(-1)
    lower = nodes[max(int(inside[0]) - 1, 0)].item()
    upper = nodes[min(int(inside[-1]) + 1, len(nodes) - 1)].item()
    nodes, values = _evaluate(log_integrand, lower, upper, density, spectrum.eigenvalues.device)
    log_spacing = torch.log(nodes[1] - nodes[0])
    log_total = torch.logsumexp(values, 0)
    return nodes.exp(), torch.exp(values - log_total), log_total + log_spacing


def _range(spectrum: _Spectrum, prior: Prior) -> tuple[float, float]:
    """Where log τ can be: outside, the integrand is negligible or falling towards negligible.

    With r = min(N, D + 1), the slope in log τ is at most a₀ + N/2 - b₀τ, and at least both
    a₀ + (N-r)/2 - (b₀ + yᵀy/2) τ and a₀ + N/2 - (b₀ + yᵀy/2 + Σλᵢ/2) τ.
    """
    num_rows = spectrum.statistics.num_rows
    rate = prior.noise_rate + 0.5 * spectrum.statistics.target_square.item()
    full = prior.noise_shape + 0.5 * num_rows
    free = full - 0.5 * min(num_rows, len(spectrum.eigenvalues))
    lower = max(
        math.log(free / rate) - _NEGLIGIBLE / free,
        math.log(full / (rate + 0.5 * spectrum.eigenvalues.sum().item())) - _NEGLIGIBLE / full,
    )
    upper = math.log(full / prior.noise_rate) + math.log(2 * _NEGLIGIBLE)
    return lower - 1, upper + 1


def _evaluate(
    log_integrand: Callable[[Tensor], Tensor],
    lower: float,
    upper: float,
    density: float,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    count = max(_FEWEST_NODES, math.ceil((upper - lower) * density))
    nodes = torch.linspace(lower, upper, count, dtype=torch.float64, device=device)
    return nodes, log_integrand(nodes)
