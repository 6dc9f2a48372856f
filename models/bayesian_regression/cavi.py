"""Coordinate ascent for linear regression by hand: the formulas of ``updates`` in a loop."""

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Gamma, MultivariateNormal

from vitools.errors import OptionError
from vitools.models.bayesian_regression.checks import check_count
from vitools.models.bayesian_regression.statistics import (
    Prior,
    SufficientStatistics,
    regression_prior,
    sufficient_statistics,
)
from vitools.models.bayesian_regression.updates import (
    Factors,
    blocks,
    elbo,
    update_coefficients,
    update_precision,
)


@dataclass(frozen=True)
class HandDerivedFit:
    """What :func:`hand_derived_cavi` found, in float64.

    Attributes:
        mean: m of q(β), weights then intercept, shape [D + 1].
        covariance: S of q(β), zero between blocks, shape [D + 1, D + 1].
        shape: a of q(τ), shape [].
        rate: b of q(τ), shape [].
        factorisation: which coefficients share a factor.
        elbo_history: the bound after each sweep, in nats.
        seconds: the duration of each sweep.
        converged: whether both the bound and the factors had stopped moving.
    """

    mean: Tensor
    covariance: Tensor
    shape: Tensor
    rate: Tensor
    factorisation: str
    elbo_history: list[float]
    seconds: list[float]
    converged: bool

    @property
    def state(self) -> Factors:
        """(m, S, a, b), for example as ``init`` of a further run."""
        return Factors(self.mean, self.covariance, self.shape, self.rate)

    @property
    def sd(self) -> Tensor:
        """The standard deviations of q(β), weights then intercept, shape [D + 1]."""
        return self.covariance.diagonal().sqrt()

    def factors(self) -> dict[str | tuple[str, ...], Distribution]:
        """q by site: one Gaussian over weights and intercept (S zero between blocks), a Gamma."""
        return {
            ("weights", "intercept"): MultivariateNormal(self.mean, self.covariance),
            "precision": Gamma(self.shape, self.rate),
        }


def starting_point(
    statistics: SufficientStatistics, prior: Prior, generator: torch.Generator
) -> Factors:
    """Random factors: coefficients drawn from their prior, E[τ] within a few e-folds of 1/var(y)."""
    num_coefficients = len(prior.coefficient_precision)
    noise = torch.randn(num_coefficients + 1, generator=generator, dtype=torch.float64)
    noise = noise.to(prior.coefficient_precision.device)
    shape = torch.full_like(noise[-1], prior.noise_shape + 0.5 * statistics.num_rows)
    rate = prior.noise_rate + 0.5 * statistics.target_square
    return Factors(
        mean=noise[:-1] * prior.coefficient_precision.rsqrt(),
        covariance=torch.diag(1 / prior.coefficient_precision),
        shape=shape,
        rate=rate * torch.exp(noise[-1]),
    )


def hand_derived_cavi(
    features: Tensor,
    target: Tensor,
    prior_scale: float = 1.0,
    intercept_scale: float = 10.0,
    noise_shape: float = 1.0,
    noise_rate: float = 1.0,
    *,
    factorisation: str = "joint",
    seed: int = 0,
    max_sweeps: int = 1000,
    tol: float = 1e-8,
    init: Factors | None = None,
) -> HandDerivedFit:
    """Maximise the ELBO by its explicit coordinate updates, in float64.

    A sweep updates each block of coefficients, then q(τ); its cost does not depend on the number
    of rows. It stops when the relative change of the bound **and** the largest move of the factors
    are both at most ``tol``: means count in standard deviations of q, standard deviations and E[τ]
    relatively. With correlated features and ``"elementwise"`` the bound is flat long before the
    means have arrived.

    Args:
        features: X, shape [N, D].
        target: y, shape [N].
        prior_scale: and the three after it as for :func:`vitools.models.bayesian_regression.model`.
        factorisation: ``"joint"`` for q(w, b) q(τ), ``"factorised"`` for q(w) q(b) q(τ),
            ``"elementwise"`` for q(b) q(τ) ∏_d q(w_d).
        seed: of the random start.
        max_sweeps: at most so many.
        tol: see above; 0 runs all sweeps unless nothing moves at all.
        init: start here instead of at random; covariances across blocks are dropped.

    Raises:
        DataError: shapes that do not fit, or a number that is not finite.
        OptionError: impossible options.

    Example:
        >>> from vitools.models.bayesian_regression import simulate
        >>> data = simulate(num_rows=100, num_features=2, seed=0)
        >>> fit = hand_derived_cavi(data.features, data.target)
        >>> fit.converged, fit.mean.shape, fit.elbo_history[-1] > fit.elbo_history[0]
        (True, torch.Size([3]), True)
    """
    check_count(max_sweeps=max_sweeps)
    if not 0 <= tol < math.inf:
        raise OptionError(f"tol: expected a number at least 0, got {tol!r}.")
    statistics = sufficient_statistics(features, target)
    num_features = features.shape[1]
    prior = regression_prior(
        num_features,
        prior_scale,
        intercept_scale,
        noise_shape,
        noise_rate,
        device=features.device,
    )
    partition = blocks(num_features, factorisation)
    if init is None:
        factors = starting_point(statistics, prior, torch.Generator().manual_seed(seed))
    elif init.mean.shape != (num_features + 1,):
        raise OptionError(
            f"init: expected means for {num_features} weights and the intercept, "
            f"got shape {list(init.mean.shape)}."
        )
    else:
        together = torch.zeros_like(init.covariance)
        for block in partition:
            together[torch.tensor(block)[:, None], torch.tensor(block)] = 1.0
        factors = init._replace(covariance=init.covariance * together)

    bounds: list[float] = []
    seconds: list[float] = []
    converged = False
    while not converged and len(bounds) < max_sweeps:
        started = time.perf_counter()
        previous = factors
        for block in partition:
            factors = update_coefficients(factors, block, statistics, prior)
        factors = update_precision(factors, statistics, prior)
        bounds.append(elbo(factors, statistics, prior).item())
        seconds.append(time.perf_counter() - started)
        converged = (
            len(bounds) > 1
            and abs(bounds[-1] - bounds[-2]) <= tol * abs(bounds[-1])
            and _largest_move(previous, factors) <= tol
        )
    return HandDerivedFit(*factors, factorisation, bounds, seconds, converged)


def _largest_move(old: Factors, new: Factors) -> float:
    old_sd, new_sd = (factors.covariance.diagonal().sqrt() for factors in (old, new))
    moves = [
        (new.mean - old.mean).abs() / new_sd,
        (new_sd / old_sd - 1).abs(),
        (new.expected_precision / old.expected_precision - 1).abs()[None],
    ]
    return float(torch.cat(moves).max())
