"""The curved functions that likelihoods are made of, and what is known of each.

To add one: a line in :data:`FUNCTIONS`, a function of the data [N] that gives a :class:`CurvedFunction`.
Nothing but its value is needed; the distance of its nearest singularity from the real axis saves the
search for a step, and the real part there makes wide predictors cheap.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vitools.calculus.curved import closed_forms
from vitools.calculus.curved.closed_forms import exact
from vitools.calculus.curved.cumulative import (
    inverse_mills,
    log_ndtr,
    log_ndtr_difference,
    log_ndtr_difference_slope,
)
from vitools.calculus.curved.function import CurvedFunction, Expected
from vitools.calculus.curved.softplus import expected_softplus, softplus

FARTHEST_CUT = 1e8
"""What an infinite cutpoint is replaced by."""


def numbers(*values: Tensor | float) -> tuple[Tensor, ...]:
    """Data in float64."""
    return tuple(torch.as_tensor(v, dtype=torch.float64) for v in values)


def exp(rate: Tensor | float = 1.0) -> CurvedFunction:
    """e^(rη): Poisson and exponential rates, Gamma (r = -1) and Weibull (r = -k) with a log link."""
    return CurvedFunction(
        lambda eta, r: (r * eta).exp(), data=numbers(rate), rule=closed_forms.exponential
    )


def softplus_of(offset: Tensor | float = 0.0) -> CurvedFunction:
    """log(1 + e^(η - c)): Bernoulli and binomial logits."""
    return CurvedFunction(
        lambda eta, c: softplus(eta - c),
        data=numbers(offset),
        derivative=lambda eta, c: torch.sigmoid(eta - c),
        rule=lambda mean, variance, c: expected_softplus(mean - c, variance),
    )


def log_sigmoid() -> CurvedFunction:
    """log σ(η) = -log(1 + e^-η)."""

    def rule(mean: Tensor, variance: Tensor) -> Expected:
        mirrored = expected_softplus(-mean, variance)
        return Expected(-mirrored.value, mirrored.d_mean, -mirrored.d_variance, mirrored.error)

    return CurvedFunction(torch.nn.functional.logsigmoid, rule=rule)


def log_sum(total: Tensor | float) -> CurvedFunction:
    """log(r + e^η) = log r + softplus(η - log r): the negative binomial's mean e^η, r failures."""

    def rule(mean: Tensor, variance: Tensor, r: Tensor) -> Expected:
        shifted = expected_softplus(mean - r.log(), variance)
        return shifted._replace(value=shifted.value + r.log())

    return CurvedFunction(
        lambda eta, r: r.log() + softplus(eta - r.log()), data=numbers(total), rule=rule
    )


def ordinal_logit(lower: Tensor | float, upper: Tensor | float) -> CurvedFunction:
    """log[σ(u - η) - σ(l - η)] = log(1 - e^(l-u)) - softplus(η - u) - softplus(l - η), l < u."""

    def constant(low: Tensor, high: Tensor) -> Tensor:
        return torch.log(-torch.expm1(low - high))

    def rule(mean: Tensor, variance: Tensor, low: Tensor, high: Tensor) -> Expected:
        a, b = expected_softplus(mean - high, variance), expected_softplus(low - mean, variance)
        return exact(
            constant(low, high) - a.value - b.value,
            b.d_mean - a.d_mean,
            -a.d_variance - b.d_variance,
        )

    return CurvedFunction(
        lambda eta, low, high: constant(low, high) - softplus(eta - high) - softplus(low - eta),
        data=_cuts(lower, upper),
        rule=rule,
    )


def ordinal_probit(lower: Tensor | float, upper: Tensor | float) -> CurvedFunction:
    """log[Φ(u - η) - Φ(l - η)], l < u."""
    low, high = _cuts(lower, upper)
    return CurvedFunction(
        lambda eta, low, high: log_ndtr_difference(low - eta, high - eta),
        data=(low, high),
        derivative=lambda eta, low, high: -log_ndtr_difference_slope(low - eta, high - eta),
        distance=2.5,
    )


def _cuts(*cuts: Tensor | float) -> tuple[Tensor, ...]:
    return tuple(c.clamp(-FARTHEST_CUT, FARTHEST_CUT) for c in numbers(*cuts))


def student_t(
    observed: Tensor | float, scale: Tensor | float, freedom: Tensor | float
) -> CurvedFunction:
    """log(1 + (y - η)² / (νσ²)), singular at y ± iσ√ν."""
    y, sigma, nu = numbers(observed, scale, freedom)
    width = sigma * nu.sqrt()
    return CurvedFunction(
        lambda eta, y, width: _log_one_plus_square((eta - y) / width),
        data=(y, width),
        derivative=lambda eta, y, width: 2 * (eta - y) / (width**2 + (eta - y) ** 2),
        distance=width,
        centre=y,
    )


def _log_one_plus_square(x: Tensor) -> Tensor:
    return torch.log1p(x**2)


def _log_complement(eta: Tensor) -> Tensor:
    """log(1 - exp(-e^η)), ≈ η - e^η / 2 far to the left."""
    rate = eta.clamp(-30.0, 30.0).exp()
    middle = torch.where(
        rate < math.log(2),
        torch.log(-torch.expm1(-rate.clamp(max=1.0))),
        torch.log1p(-torch.exp(-rate.clamp(min=0.5))),
    )
    return torch.where(eta < -30.0, eta, torch.where(eta > 30.0, 0.0, middle))


def _log_complement_slope(eta: Tensor) -> Tensor:
    """e^η / (exp(e^η) - 1)."""
    rate = eta.clamp(-30.0, 6.0).exp()
    return torch.where(eta < -30.0, 1.0, torch.where(eta > 6.0, 0.0, rate / torch.expm1(rate)))


def _log_softplus(eta: Tensor) -> Tensor:
    return torch.where(eta < -40.0, eta, softplus(eta.clamp(min=-40.0)).log())


def _log_softplus_slope(eta: Tensor) -> Tensor:
    right = eta.clamp(min=-40.0)
    return torch.where(eta < -40.0, 1.0, torch.sigmoid(right) / softplus(right))


FUNCTIONS: dict[str, Callable[..., CurvedFunction]] = {
    "identity": lambda: CurvedFunction(
        lambda eta: eta, rule=lambda mean, variance: closed_forms.power(mean, variance, 1)
    ),
    "exp": exp,
    "softplus": softplus_of,
    "log sigmoid": log_sigmoid,
    "sigmoid": lambda: CurvedFunction(torch.sigmoid, distance=math.pi, centre=0.0),
    "tanh": lambda: CurvedFunction(torch.tanh, distance=math.pi / 2, centre=0.0),
    "log normal cdf": lambda: CurvedFunction(
        log_ndtr, derivative=inverse_mills, distance=2.8, centre=1.9
    ),
    "relu": lambda knot=0.0: CurvedFunction(
        lambda eta, c: (eta - c).clamp(min=0.0), data=numbers(knot), rule=closed_forms.ramp
    ),
    "distance": lambda knot=0.0: CurvedFunction(
        lambda eta, c: (eta - c).abs(), data=numbers(knot), rule=closed_forms.distance
    ),
    "squared relu": lambda knot=0.0: CurvedFunction(
        lambda eta, c: (eta - c).clamp(min=0.0) ** 2,
        data=numbers(knot),
        rule=closed_forms.squared_ramp,
    ),
    "power": lambda degree: CurvedFunction(
        lambda eta: eta**degree, rule=lambda m, v: closed_forms.power(m, v, degree)
    ),
    "student t": student_t,
    "log1p square": lambda: student_t(0.0, 1.0, 1.0),
    "log sum": log_sum,
    "log complement": lambda: CurvedFunction(
        _log_complement, derivative=_log_complement_slope, distance=1.2, centre=1.8
    ),
    "log softplus": lambda: CurvedFunction(
        _log_softplus, derivative=_log_softplus_slope, distance=math.pi, centre=0.0
    ),
    "ordinal logit": ordinal_logit,
    "ordinal probit": ordinal_probit,
}
