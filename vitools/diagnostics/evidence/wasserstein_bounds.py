"""Guaranteed limits to the errors of means and sds, from bounds on the evidence alone.

With D₂ = log E_q[(p(θ|x)/q)²] ≤ 2 (CUBO₂ - ELBO) and M_2p the 2p-th moment constant of q,
(E‖θ - E θ‖^{2p})^{1/2p},

    W₁ ≤ 2 M₂ (e^{D₂} - 1)^{1/2},    W₂ ≤ 2 M₄ (e^{D₂} - 1)^{1/4},

and no posterior mean is further than W₁ from the fit's, no sd further than W₂, in the units of θ.
D₂ is finite only where the weights' tail has k < 1/2; where k̂ ≥ 1/2 its estimate would be a number
for something infinite, and nothing is returned.

Reference: Huggins, Kasprzak, Campbell, Broderick, *Validated variational inference via practical
posterior error bounds*, AISTATS 2020.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.diagnostics.evidence.evidence_bounds import upper_bound
from vitools.diagnostics.weights.bounds import bound


@dataclass(frozen=True)
class ErrorBounds:
    """Limits in the quantities' own units; they hold for every entry.

    Attributes:
        divergence: the bound on D₂.
        mean_error: W₁, to any mean.
        sd_error: W₂, to any sd.
    """

    divergence: float
    mean_error: float
    sd_error: float


def error_bounds(draws: Mapping[str, Tensor], log_weights: Tensor) -> ErrorBounds | None:
    """From draws ``{name: [n, *shape]}`` of the latents and their log weights ``[n]``.

    Example:
        >>> print(error_bounds({"mu": torch.randn(100)}, torch.zeros(100)))
        ErrorBounds(divergence=0.0, mean_error=0.0, sd_error=0.0)
    """
    upper = upper_bound(log_weights)
    if upper is None:
        return None
    divergence = max(0.0, 2.0 * (upper.value - bound(log_weights).value))
    flat = torch.cat(
        [
            value.detach().cpu().double().flatten(1)
            if value.dim() > 1
            else value.detach().cpu().double()[:, None]
            for value in draws.values()
        ],
        -1,
    )
    squares = (flat - flat.mean(0)).square().sum(-1)
    excess = math.expm1(min(divergence, 700.0))
    second, fourth = squares.mean().sqrt(), squares.square().mean() ** 0.25
    return ErrorBounds(
        divergence, float(2 * second * excess**0.5), float(2 * fourth * excess**0.25)
    )
