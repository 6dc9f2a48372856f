"""Curved functions of two predictors: a location and the logarithm of a scale, products in a link.

To add one: a line in :data:`PAIRS`, a function of the data [N] that gives a :class:`PairFunction`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vitools.calculus.curved.functions import numbers
from vitools.calculus.curved.pair_function import Inner, PairFunction
from vitools.calculus.curved.softplus import softplus


def standardised_square(observed: Tensor | float) -> PairFunction:
    """(y - η₁)² e^(-2η₂), the normal's term with location η₁ and log scale η₂, in closed form.

    e^(-2η₂) tilts the normal: E = e^(-2m₂ + 2Σ₂₂) [(y - m₁ + 2Σ₁₂)² + Σ₁₁].
    """

    def rule(mean: Tensor, covariance: Tensor, y: Tensor) -> Tensor:
        scale = (2 * covariance[:, 1, 1] - 2 * mean[:, 1]).exp()
        shift = covariance[:, 0, 1] + covariance[:, 1, 0]
        return scale * ((y - mean[:, 0] + shift) ** 2 + covariance[:, 0, 0])

    return PairFunction(
        lambda location, log_scale, y: (y - location) ** 2 * (-2 * log_scale).exp(),
        data=numbers(observed),
        rule=rule,
    )


def student_t(observed: Tensor | float, freedom: Tensor | float) -> PairFunction:
    """log(1 + (y - η₁)² e^(-2η₂) / ν), location η₁ and log scale η₂; singular at y ± i√ν e^η₂."""

    def value(location: Tensor, log_scale: Tensor, y: Tensor, nu: Tensor) -> Tensor:
        return torch.log1p((y - location) ** 2 * (-2 * log_scale).exp() / nu)

    inner = Inner(
        0,
        centre=lambda log_scale, y, nu: y.expand_as(log_scale),
        distance=lambda log_scale, y, nu: nu.sqrt() * log_scale.exp(),
    )
    return PairFunction(value, data=numbers(observed, freedom), inner=inner)


PAIRS: dict[str, Callable[..., PairFunction]] = {
    "standardised square": standardised_square,
    "student t": student_t,
    "softplus of product": lambda: PairFunction(lambda a, b: softplus(a * b)),
}
