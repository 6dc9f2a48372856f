"""The prior and the sufficient statistics of linear regression, with b as the last coefficient.

With X̃ = [X, 1] and β = (w, b) the model is y ~ Normal(X̃β, τ⁻¹I), β ~ Normal(0, P₀⁻¹), and the
likelihood depends on the data only through N, G = X̃ᵀX̃, h = X̃ᵀy and yᵀy::

    ‖y - X̃β‖² = yᵀy - 2 βᵀh + βᵀGβ

The differences cost log₁₀(yᵀy/‖y - X̃β‖²) digits: a target far from 0 is better centred first.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vitools.models.bayesian_regression.checks import check_positive, check_values, with_intercept


class Prior(NamedTuple):
    """β ~ Normal(0, P₀⁻¹), τ ~ Gamma(a₀, b₀).

    Fields:
        coefficient_precision: the diagonal of P₀: s⁻² for each weight, then s_b⁻², shape [D + 1].
        noise_shape: a₀.
        noise_rate: b₀.
    """

    coefficient_precision: Tensor
    noise_shape: float
    noise_rate: float


class SufficientStatistics(NamedTuple):
    """All that the data tell about β and τ.

    Fields:
        num_rows: N.
        gram: G = X̃ᵀX̃, shape [D + 1, D + 1].
        moment: h = X̃ᵀy, shape [D + 1].
        target_square: yᵀy, shape [].
    """

    num_rows: int
    gram: Tensor
    moment: Tensor
    target_square: Tensor


def sufficient_statistics(features: Tensor, target: Tensor) -> SufficientStatistics:
    """N, G, h and yᵀy in float64, whatever the dtype of the data.

    Args:
        features: X, shape [N, D].
        target: y, shape [N].

    Raises:
        DataError: shapes that do not fit, or a number that is not finite.

    Example:
        >>> sufficient_statistics(torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 4.0])).moment
        tensor([11.,  7.], dtype=torch.float64)
    """
    check_values(features, target)
    design, target = with_intercept(features), target.double()
    return SufficientStatistics(
        num_rows=design.shape[0],
        gram=design.T @ design,
        moment=design.T @ target,
        target_square=target @ target,
    )


def regression_prior(
    num_features: int,
    prior_scale: float = 1.0,
    intercept_scale: float = 10.0,
    noise_shape: float = 1.0,
    noise_rate: float = 1.0,
    *,
    device: torch.device | None = None,
) -> Prior:
    """The prior of :func:`model`, by the same names and with the same defaults."""
    check_positive(
        prior_scale=prior_scale,
        intercept_scale=intercept_scale,
        noise_shape=noise_shape,
        noise_rate=noise_rate,
    )
    scales = torch.full((num_features + 1,), prior_scale, dtype=torch.float64, device=device)
    scales[-1] = intercept_scale
    return Prior(scales**-2, noise_shape, noise_rate)
