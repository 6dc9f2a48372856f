"""Mutual information between bounds, from log densities at draws (x_i, y_i) of the joint.

Where a conditional density is known and the rest is not (Poole et al., "On variational bounds of mutual
information", ICML 2019):

    Barber and Agakov 2003       E log q(x | y) - E log p(x)                        below, any q
    marginal                     E log p(y | x) - E log q(y)                        above, any q
    leave one out                mean_i log p(y_i | x_i) / mean_{j≠i} p(y_i | x_j)  above
    InfoNCE (Oord et al. 2018)   mean_i log e^{f_ii} / mean_j e^{f_ij}              below, any f, ≤ log n

Each holds in expectation, the densities q and scores f being made without these draws; an estimate may
lie on the other side of the truth by its standard error. The terms of the last two share their draws:
their error is that of the influence of each draw on the whole (the infinitesimal jackknife).
"""

import math

import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.posterior import Estimate


def barber_agakov(log_q: Tensor, log_p: Tensor) -> Estimate:
    """The lower bound from log q(x_i | y_i) and log p(x_i), each ``[n]``.

    Args:
        log_q: of a density of x given y, at pairs from the joint.
        log_p: of x's own density at the same x.
    """
    terms = _vector("log_q", log_q) - _vector("log_p", log_p)
    return Estimate.of_mean(terms, "lower")


def marginal_bound(log_p: Tensor, log_q: Tensor) -> Estimate:
    """The upper bound from log p(y_i | x_i) and log q(y_i), each ``[n]``.

    Args:
        log_p: of the density of y given x, at pairs from the joint.
        log_q: of any density of y, at the same y.
    """
    terms = _vector("log_p", log_p) - _vector("log_q", log_q)
    return Estimate.of_mean(terms, "upper")


def leave_one_out(log_p: Tensor) -> Estimate:
    """The upper bound from log p(y_i | x_j), ``[n, n]``.

    Example:
        >>> x, noise = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
        >>> y_given_x = torch.distributions.Normal(x, 1.0)
        >>> log_p = y_given_x.log_prob((x + noise).unsqueeze(1))
        >>> below, above = info_nce(log_p), leave_one_out(log_p)  # about ½ log 2 = 0.35
        >>> below.value < above.value, abs(above.value - 0.35) < 4 * above.standard_error
        (True, True)
    """
    table = _square("log_p", log_p)
    count = len(table)
    others = table.masked_fill(torch.eye(count, dtype=torch.bool), -torch.inf)
    return _contrast(table, others, math.log(count - 1), "upper")


def info_nce(scores: Tensor) -> Estimate:
    """The lower bound from any scores f(x_j, y_i), ``[n, n]``; log p(y_i | x_j) are the best."""
    table = _square("scores", scores)
    return _contrast(table, table, math.log(len(table)), "lower")


def _contrast(table: Tensor, others: Tensor, log_count: float, side: str) -> Estimate:
    level = others.logsumexp(1)
    terms = table.diagonal() - level + log_count
    if not bool(terms.isfinite().all()):
        return Estimate(float(terms.mean()), math.inf, side)  # type: ignore[arg-type]
    shares = (others - level.unsqueeze(1)).exp().sum(0)
    influence = terms - (shares - 1)
    error = float(influence.std()) / math.sqrt(len(table))
    return Estimate(float(terms.mean()), error, side)  # type: ignore[arg-type]


def _vector(name: str, values: object) -> Tensor:
    if not isinstance(values, Tensor) or values.dim() != 1 or len(values) < 2:
        got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise OptionError(f"{name}: expected a tensor of shape [n], n ≥ 2, got {got}.")
    return _no_nan(name, values)


def _square(name: str, values: object) -> Tensor:
    if (
        not isinstance(values, Tensor)
        or values.dim() != 2
        or values.shape[0] != values.shape[1]
        or len(values) < 2
    ):
        got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise OptionError(f"{name}: expected a tensor of shape [n, n], n ≥ 2, got {got}.")
    return _no_nan(name, values)


def _no_nan(name: str, values: Tensor) -> Tensor:
    found = values.detach().double()
    if bool(found.isnan().any()):
        raise DataError(
            f"{name}: expected numbers, got NaN in {int(found.isnan().sum())} places. Check the "
            "density at the draws."
        )
    return found
