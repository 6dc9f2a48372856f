"""E log(1 + e^η), the term of logistic regression, at a cost that does not grow with the variance.

softplus(η) = max(η, 0) + log(1 + e^-|η|). Where v is below 3 the trapezoid rule in z needs at most 50
nodes. Elsewhere the first part is in closed form and the second, which is below a double's resolution
from |η| = 36 on, a sum over Legendre nodes η = ±36x² that all rows share: F = E max(η, 0) +
Σ_j w_j log(1 + e^-|η_j|) N(η_j; m, v), with the derivatives of that sum.
"""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from vitools.calculus.curved.closed_forms import exact, ramp
from vitools.calculus.curved.expectation import NUMBERS_AT_ONCE, by_distance
from vitools.calculus.curved.function import CurvedFunction, Expected

_LOG_SIGMOID = CurvedFunction(
    torch.nn.functional.logsigmoid,
    derivative=lambda eta: torch.sigmoid(-eta),
    distance=math.pi,
    centre=0.0,
)

WIDE = 3.0
"""The variance from which the constant-cost rule is as exact, and cheaper."""


def softplus(eta: Tensor) -> Tensor:
    """log(1 + e^η) to full precision everywhere; torch's own is cut off at 20."""
    return -torch.nn.functional.logsigmoid(-eta)


def expected_softplus(mean: Tensor, variance: Tensor) -> Expected:
    """E log(1 + e^η) for mean and variance [N]."""
    is_wide = variance >= WIDE
    if bool(is_wide.all()):
        return _wide(mean, variance)
    if not bool(is_wide.any()):
        return _narrow(mean, variance)
    result = Expected(*(torch.empty_like(mean) for _ in Expected._fields))
    for rule, chosen in ((_wide, is_wide), (_narrow, ~is_wide)):
        for whole, part in zip(result, rule(mean[chosen], variance[chosen]), strict=True):
            whole[chosen] = part
    return result


def _narrow(mean: Tensor, variance: Tensor) -> Expected:
    mirrored = by_distance(_LOG_SIGMOID, -mean, variance.sqrt())
    return Expected(-mirrored.value, mirrored.d_mean, -mirrored.d_variance, mirrored.error)


def _wide(mean: Tensor, variance: Tensor) -> Expected:
    eta, weights = _near_zero()
    eta, weights = eta.to(mean.device), weights.to(mean.device)
    moments = torch.stack([weights, weights * eta, weights * eta**2], -1)
    closed = ramp(mean, variance, torch.zeros_like(mean))
    result = Expected(*(x.clone() for x in closed))
    for rows in torch.arange(len(mean), device=mean.device).split(NUMBERS_AT_ONCE // len(eta)):
        m, v = mean[rows], variance[rows]
        terms = (eta - m.unsqueeze(-1)).square_().mul_((-0.5 / v).unsqueeze(-1)).exp_()
        total, first, second = (terms @ moments).unbind(-1)  # of 1, η and η²
        second = (second - 2 * m * first + m**2 * total) / v
        first = first - m * total
        scale = (2 * math.pi * v).rsqrt()
        result.value[rows] += total * scale
        result.d_mean[rows] += first * scale / v
        result.d_variance[rows] += (second - total) * scale / (2 * v)
    return exact(*result[:3])


@cache
def _near_zero() -> tuple[Tensor, Tensor]:
    """Nodes η and weights times log(1 + e^-|η|), [80]."""
    x, weights = np.polynomial.legendre.leggauss(40)
    x, weights = (1 + x) / 2, weights / 2
    eta, weights = 36 * x**2, weights * 72 * x
    weights = weights * np.log1p(np.exp(-eta))
    both = np.concatenate([-eta[::-1], eta]), np.concatenate([weights[::-1], weights])
    eta_tensor, weight_tensor = (torch.from_numpy(x.copy()) for x in both)
    return eta_tensor, weight_tensor
