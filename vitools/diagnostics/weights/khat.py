"""Pareto k̂: how heavy the right tail of the importance weights p(x, θ) / q(θ) is.

A generalised Pareto distribution with shape k is fitted to the min(n/5, 3√n) largest weights.
Moments of the weights above 1/k are infinite, so k measures how many draws it would take to
correct q by importance sampling, and with that how far q is from the posterior. Below 0.5 the
weights have a variance; what S draws can still correct ends at :func:`khat_threshold`, 0.67 for the
1000 draws of a comparison and never above 0.7.

References:
    Vehtari, Simpson, Gelman, Yao, Gabry, *Pareto smoothed importance sampling*, JMLR 25, 2024.
    Yao, Vehtari, Simpson, Gelman, *Yes, but did it work?*, ICML 2018.
    Zhang, Stephens, *A new and efficient estimation method for the generalized Pareto
    distribution*, Technometrics 51, 2009 (the fit).
    Smith, *Maximum likelihood estimation in a class of nonregular cases*, Biometrika 72, 1985
    (its standard error).
"""

import math

import torch
from pyro.ops.stats import fit_generalized_pareto
from torch import Tensor

from vitools.diagnostics.weights.bounds import is_constant
from vitools.errors import NumericalError, OptionError
from vitools.posterior import Estimate

MIN_DRAWS = 25
FEWEST_IN_TAIL = 5
LOG_SMALLEST = math.log(torch.finfo(torch.float64).tiny)
PRIOR_DRAWS = 10  # the fit shrinks k towards 1/2 with the weight of this many draws


def khat_threshold(num_samples: int) -> float:
    """The largest k̂ at which ``num_samples`` importance weights are of use: min(1 - 1/log₁₀ S, 0.7).

    >>> khat_threshold(10_000), round(khat_threshold(200), 3)
    (0.7, 0.565)
    """
    return min(1.0 - 1.0 / math.log10(num_samples), 0.7)


def pareto_khat(log_weights: Tensor) -> float:
    """k̂ of log weights ``[n]``, n ≥ 25.

    Equal weights mean that q is the posterior. There is no tail to fit then, and the answer is
    0.0, far below any threshold. Where fewer than five weights stand above the cutoff, k̂ is
    infinite: so few draws carry everything that the tail cannot be judged.

    Example:
        >>> pareto_khat(torch.zeros(100))
        0.0
    """
    return khat_estimate(log_weights).value


def khat_estimate(log_weights: Tensor, efficiency: float = 1.0) -> Estimate:
    """:func:`pareto_khat` with its asymptotic standard error (1 + k) / √M, M the tail's length.

    The fit's prior shrinks the error by M / (M + 10). For k < -1/2 the true error is smaller.

    Args:
        efficiency: effective sample size over number of draws, for draws of Markov chains.
    """
    log_weights = checked_log_weights(log_weights)
    if differ_by_rounding(log_weights):
        return Estimate(0.0)
    tail = _tail(log_weights.double(), efficiency)
    if len(tail) < FEWEST_IN_TAIL:
        return Estimate(math.inf, math.inf)
    khat, _ = fit_generalized_pareto(tail)
    standard_error = max(1.0 + khat, 0.5) * math.sqrt(len(tail)) / (len(tail) + PRIOR_DRAWS)
    return Estimate(khat, standard_error)


def differ_by_rounding(log_weights: Tensor) -> bool:
    """Whether log weights differ by no more than what is left of the large terms that cancel."""
    if is_constant(log_weights):
        return True
    spread = float(log_weights.max() - log_weights.min())
    return spread <= math.sqrt(torch.finfo(log_weights.dtype).eps)


def checked_log_weights(log_weights: Tensor) -> Tensor:
    """``[n]`` on the CPU; refused where there are too few, or some are undefined."""
    num_samples = log_weights.numel()
    if num_samples < MIN_DRAWS:
        raise OptionError(f"k̂ needs at least {MIN_DRAWS} draws, got {num_samples}.")
    log_weights = log_weights.detach().cpu()
    bad = int((torch.isnan(log_weights) | (log_weights == math.inf)).sum())
    if bad or bool((log_weights == -math.inf).all()):
        raise NumericalError(
            f"{bad} of {num_samples} log weights are NaN or infinite, or all weights are zero: k̂ "
            "says nothing about them. Check the fit's status."
        )
    return log_weights


def tail_above(log_weights: Tensor, efficiency: float = 1.0) -> tuple[float, Tensor]:
    """The tail's cutoff and the indices of the log weights above it, the largest being 0."""
    length = math.ceil(min(len(log_weights) / 5, 3 * math.sqrt(len(log_weights) / efficiency)))
    cutoff = max(float(log_weights.sort().values[-length - 1]), LOG_SMALLEST)
    return cutoff, (log_weights > cutoff).nonzero().squeeze(-1)


def _tail(log_weights: Tensor, efficiency: float) -> Tensor:
    """Excesses of the largest weights over the cutoff, the largest weight being 1: ``[M]``."""
    log_weights = log_weights - log_weights.max()
    cutoff, above = tail_above(log_weights, efficiency)
    return math.exp(cutoff) * torch.expm1(log_weights[above].sort().values - cutoff)
