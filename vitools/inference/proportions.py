"""The proportions of a mixture that is nearest to a weighted sample.

They maximise Σ_j W_j log Σ_k α_k q_k(θ_j) over the simplex, which is concave: with importance weights W_j of
the posterior they minimise KL(p(θ | x) ‖ Σ_k α_k q_k). Of fits that do not overlap each gets the mass of its
own region; of a fit inside a better one nothing is left.

References:
    Cappé, Douc, Guillin, Marin, Robert, *Adaptive importance sampling in general mixture classes*,
    Statistics and Computing 18, 2008.
    Kim, Carbonetto, Stephens, Anitescu, *A fast algorithm for maximum likelihood estimation of mixture
    proportions using sequential quadratic programming*, JCGS 29, 2020 (the steps).
"""

import math

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

GROUPS = 20
"""Parts of the sample that are left out in turn, for the standard errors."""

GAP, MOST_STEPS = 1e-8, 100
"""Nats within which the maximum is found, and steps towards it."""

RIDGE = 1e-10
"""Of the largest curvature: fits that are alike share their proportion."""

SLOPE, SHORTEST = 0.01, 1e-10


def proportions(log_densities: Tensor, weights: Tensor) -> Tensor:
    """α ``[K]`` of log q_k(θ_j) ``[N, K]`` and W_j ``[N]`` (of any sum).

    Example:
        >>> half = torch.tensor([[0.0, -50.0], [-50.0, 0.0]])
        >>> [round(x, 6) for x in proportions(half, torch.tensor([3.0, 1.0])).tolist()]
        [0.75, 0.25]
    """
    kept = weights > 0  # a value that counts for nothing may be beyond every fit
    share = (weights[kept] / weights.sum()).double().numpy()
    rows = log_densities[kept].double()
    densities = (rows - rows.amax(-1, keepdim=True)).exp().numpy()
    alpha = np.full(densities.shape[1], 1.0 / densities.shape[1])
    for _ in range(MOST_STEPS):
        mixed = densities @ alpha
        gradient = densities.T @ (share / mixed)
        if gradient.max() - 1.0 <= GAP:  # bounds what is left to gain, as Σ α_k gradient_k = 1
            break
        alpha = _step(densities, share, alpha, mixed, gradient)
    return torch.from_numpy(alpha / alpha.sum())


def _step(
    densities: np.ndarray,
    share: np.ndarray,
    alpha: np.ndarray,
    mixed: np.ndarray,
    gradient: np.ndarray,
) -> np.ndarray:
    """A Newton step of f(α) = Σ α - Σ_j W_j log (Σ_k α_k q_k(θ_j)) over α ≥ 0, halved while f does not fall.

    The minimum of f over α ≥ 0 has Σ α = 1. As H α = gradient, its quadratic is ½ β'Hβ - (2 gradient - 1)'β.
    """
    scaled = densities * (np.sqrt(share) / mixed)[:, None]
    curvature = scaled.T @ scaled
    curvature += RIDGE * curvature.diagonal().max() * np.eye(len(alpha))
    root = np.linalg.cholesky(curvature)
    direction = nnls(root.T, np.linalg.solve(root, 2.0 * gradient - 1.0))[0] - alpha
    here = alpha.sum() - share @ np.log(mixed)
    slope, length = (1.0 - gradient) @ direction, 1.0
    while length > SHORTEST:
        tried = alpha + length * direction
        with np.errstate(divide="ignore"):  # no step may leave a value without any density
            there = tried.sum() - share @ np.log(densities @ tried)
        if there <= here + SLOPE * length * slope:
            return tried
        length /= 2
    return alpha


def with_errors(log_densities: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`proportions` and their standard errors, each ``[K]``.

    The errors are the jackknife's, with every :data:`GROUPS`-th value left out in turn, and at least the
    share of the heaviest value.

    Args:
        log_densities: ``[N, K]``.
        weights: ``[N]``.
    """
    number = torch.arange(len(weights)) % GROUPS
    without = torch.stack(
        [proportions(log_densities[number != g], weights[number != g]) for g in range(GROUPS)]
    )
    spread = (without - without.mean(0)).square().sum(0)
    least = float(weights.max() / weights.sum())
    errors = (math.sqrt((GROUPS - 1) / GROUPS) * spread.sqrt()).clamp(min=least)
    return proportions(log_densities, weights), errors
