"""Ordered categories: log density of the cumulative logit model (McCullagh 1980)."""

from __future__ import annotations

import torch

from vitools.calculus.algebra.atoms import Unsupported
from vitools.calculus.algebra.expression import Expression


def ordered_logistic(x: Expression, predictor: Expression, cutpoints: Expression) -> Expression:
    """log[σ(c_k - η) - σ(c_{k-1} - η)], without the cancellation:

    log σ(c_k - η) + log σ(η - c_{k-1}) + log(1 - exp(c_{k-1} - c_k)), with c_{-1} = -∞ and
    c_{K-1} = ∞, where a logarithm of σ is zero.
    """
    if not x.is_constant or not cutpoints.is_constant:
        raise Unsupported("known cut points")
    k, cuts = x.value().long(), cutpoints.value()
    most = cuts.shape[-1]
    cuts = cuts.expand(*k.shape, most)
    has_upper, has_lower = (k < most).double(), (k > 0).double()
    upper = cuts.gather(-1, k.clamp(max=most - 1).unsqueeze(-1)).squeeze(-1)
    lower = cuts.gather(-1, (k - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1)
    width = torch.where(has_upper * has_lower > 0, upper - lower, torch.inf)
    below = (Expression.constant(upper) - predictor).elementwise("log_sigmoid")
    above = (predictor - Expression.constant(lower)).elementwise("log_sigmoid")
    return (
        below * Expression.constant(has_upper)
        + above * Expression.constant(has_lower)
        + Expression.constant((-torch.expm1(-width)).log())
    )
