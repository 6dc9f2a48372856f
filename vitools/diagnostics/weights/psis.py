"""Pareto smoothed importance weights: the largest weights, replaced by what their tail expects.

With log weights log w_i = log p(x, θ_i) - log q(θ_i) the M largest of n weights are replaced by
the expected order statistics of the generalised Pareto distribution fitted to them, F⁻¹((j -
1/2)/M), and none exceeds the largest raw weight. What is left is a small bias for a large
variance. Equal weights (q is the posterior) stay as they are.

Reference: Vehtari, Simpson, Gelman, Yao, Gabry, *Pareto smoothed importance sampling*, JMLR 25,
2024.
"""

import math
from dataclasses import dataclass

import torch
from pyro.ops.stats import fit_generalized_pareto
from torch import Tensor

from vitools.diagnostics.weights.bounds import is_constant
from vitools.diagnostics.weights.khat import (
    FEWEST_IN_TAIL,
    checked_log_weights,
    khat_estimate,
    tail_above,
)
from vitools.posterior import Estimate


@dataclass(frozen=True)
class SmoothedWeights:
    """Weights that sum to one.

    Attributes:
        log_weights: ``[n]``, float64 on the CPU, normalised.
        khat: of the raw weights' tail.
    """

    log_weights: Tensor
    khat: Estimate

    @property
    def weights(self) -> Tensor:
        return self.log_weights.exp()

    @property
    def effective_size(self) -> float:
        """1 / Σ w²: how many equally weighted draws would estimate a mean as well."""
        return float(1.0 / self.weights.square().sum())


def smooth(log_weights: Tensor, efficiency: float = 1.0) -> SmoothedWeights:
    """Smooth and normalise log weights ``[n]``, n ≥ 25.

    Args:
        efficiency: effective sample size over number of draws, for draws of Markov chains.

    Example:
        >>> round(smooth(torch.zeros(100)).effective_size, 6)
        100.0
    """
    khat = khat_estimate(log_weights, efficiency)
    log_weights = checked_log_weights(log_weights).double()
    shifted = log_weights - log_weights.max()
    if not is_constant(log_weights):
        shifted = _smoothed_tail(shifted, efficiency)
    return SmoothedWeights(shifted - shifted.logsumexp(0), khat)


def _smoothed_tail(log_weights: Tensor, efficiency: float) -> Tensor:
    """``[n]`` whose largest is 0, with the tail's order statistics in the place of the tail."""
    cutoff, above = tail_above(log_weights, efficiency)
    if len(above) < FEWEST_IN_TAIL:
        return log_weights
    excess = math.exp(cutoff) * torch.expm1(log_weights[above] - cutoff)
    shape, scale = fit_generalized_pareto(excess)
    if not math.isfinite(shape):
        return log_weights
    levels = (torch.arange(len(above), dtype=torch.float64) + 0.5) / len(above)
    if abs(shape) < 1e-10:
        expected = -scale * torch.log1p(-levels)
    else:
        expected = scale * torch.expm1(-shape * torch.log1p(-levels)) / shape
    ranks = log_weights[above].argsort()
    out = log_weights.clone()
    out[above[ranks]] = (expected + math.exp(cutoff)).log().clamp(max=0.0)
    return out
