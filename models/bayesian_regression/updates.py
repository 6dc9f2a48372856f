"""The coordinate updates and the ELBO of linear regression, each a formula of its own.

q(β) = ∏_B Normal(β_B; m_B, S_BB) over the blocks B of a partition of the coefficients, and
q(τ) = Gamma(a, b). ``docs/derivations/bayesian_regression.md`` derives every line.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vitools.errors import OptionError
from vitools.models.bayesian_regression.statistics import Prior, SufficientStatistics

FACTORISATIONS = ("joint", "factorised", "elementwise")


class Factors(NamedTuple):
    """q(β) and q(τ), in float64.

    Fields:
        mean: m, weights then intercept, shape [D + 1].
        covariance: S, zero between blocks, shape [D + 1, D + 1].
        shape: a, shape [].
        rate: b, shape [].
    """

    mean: Tensor
    covariance: Tensor
    shape: Tensor
    rate: Tensor

    @property
    def expected_precision(self) -> Tensor:
        """E[τ] = a/b."""
        return self.shape / self.rate

    @property
    def expected_log_precision(self) -> Tensor:
        """E[log τ] = ψ(a) - log b."""
        return torch.digamma(self.shape) - torch.log(self.rate)


def blocks(num_features: int, factorisation: str) -> list[list[int]]:
    """The partition of the coefficients 0, …, D (D is the intercept) behind a factorisation.

    ``joint``: q(w, b); ``factorised``: q(w) q(b); ``elementwise``: q(b) ∏_d q(w_d).

    >>> blocks(2, "factorised")
    [[0, 1], [2]]
    """
    if factorisation == "joint":
        return [list(range(num_features + 1))]
    if factorisation == "factorised":
        return [list(range(num_features)), [num_features]]
    if factorisation == "elementwise":
        return [[d] for d in range(num_features + 1)]
    raise OptionError(
        f"factorisation: expected one of {', '.join(FACTORISATIONS)}, got {factorisation!r}."
    )


def update_coefficients(
    factors: Factors, block: list[int], statistics: SufficientStatistics, prior: Prior
) -> Factors:
    """The optimal Normal(m_B, S_BB) of one block, the other factors held fixed.

    S_BB⁻¹ = (P₀ + E[τ] G)_BB,   m_B = S_BB E[τ] (h_B - G_BR m_R),   R = the other coefficients
    """
    rest = [d for d in range(len(factors.mean)) if d not in set(block)]
    expected_precision = factors.expected_precision
    own_gram = statistics.gram[block][:, block]
    block_precision = torch.diag(prior.coefficient_precision[block]) + expected_precision * own_gram
    cholesky = torch.linalg.cholesky(block_precision)
    residual_moment = statistics.moment[block] - (
        statistics.gram[block][:, rest] @ factors.mean[rest]
    )
    mean, covariance = factors.mean.clone(), factors.covariance.clone()
    mean[block] = torch.cholesky_solve(
        (expected_precision * residual_moment)[:, None], cholesky
    ).squeeze(-1)
    rows = torch.tensor(block, device=mean.device)
    covariance[rows[:, None], rows] = torch.cholesky_inverse(cholesky)
    return factors._replace(mean=mean, covariance=covariance)


def update_precision(factors: Factors, statistics: SufficientStatistics, prior: Prior) -> Factors:
    """The optimal Gamma(a, b), q(β) held fixed: a = a₀ + N/2, b = b₀ + ½ E‖y - X̃β‖²."""
    rate = prior.noise_rate + 0.5 * expected_square_error(factors, statistics)
    shape = torch.full_like(rate, prior.noise_shape + 0.5 * statistics.num_rows)
    return factors._replace(shape=shape, rate=rate)


def expected_square_error(factors: Factors, statistics: SufficientStatistics) -> Tensor:
    """E_q‖y - X̃β‖² = yᵀy - 2 mᵀh + mᵀGm + tr(G S), shape []."""
    mean, gram = factors.mean, statistics.gram
    return (
        statistics.target_square
        - 2 * mean @ statistics.moment
        + mean @ gram @ mean
        + (gram * factors.covariance).sum()
    )


def elbo(factors: Factors, statistics: SufficientStatistics, prior: Prior) -> Tensor:
    """The exact bound E_q[log p(y, β, τ) - log q(β, τ)] in nats, shape [], at any factors.

    N/2 (E[log τ] - log 2π) - ½ E[τ] E‖y - X̃β‖² - KL(q(β)‖p(β)) - KL(q(τ)‖p(τ))
    """
    likelihood = 0.5 * statistics.num_rows * (
        factors.expected_log_precision - math.log(2 * math.pi)
    ) - 0.5 * factors.expected_precision * expected_square_error(factors, statistics)
    return likelihood - _coefficient_divergence(factors, prior) - _noise_divergence(factors, prior)


def _coefficient_divergence(factors: Factors, prior: Prior) -> Tensor:
    """KL(q(β)‖p(β)) = ½ (tr(P₀S) + mᵀP₀m - (D + 1) - log|P₀| - log|S|)."""
    precision = prior.coefficient_precision
    return 0.5 * (
        precision @ (factors.covariance.diagonal() + factors.mean**2)
        - len(precision)
        - precision.log().sum()
        - torch.linalg.slogdet(factors.covariance).logabsdet
    )


def _noise_divergence(factors: Factors, prior: Prior) -> Tensor:
    """KL(q(τ)‖p(τ)) = (a-a₀) ψ(a) - log Γ(a) + log Γ(a₀) + a₀ log(b/b₀) + a (b₀-b)/b."""
    shape, rate = factors.shape, factors.rate
    return (
        (shape - prior.noise_shape) * torch.digamma(shape)
        - torch.lgamma(shape)
        + math.lgamma(prior.noise_shape)
        + prior.noise_shape * torch.log(rate / prior.noise_rate)
        + shape * (prior.noise_rate - rate) / rate
    )
