"""Draws that round to the edge of their support, scored where they really lie.

A Beta(1, 0.1) draws 1 - v below 10⁻⁸ in one case of six; in float32 such a v is 1, where its
density is infinite. So sparse distributions are drawn in log-space and in float64: from
G(a) = G(a + 1) U^{1/a} of gamma variables,

    log G(a) = log G(a + 1) + (log U) / a,

which does not underflow however small a is. The value is rounded to the nearest number of its
dtype *inside* the support. Where that is at the edge, the draw keeps how far its sufficient
statistics, log v and log(1 - v), lie beyond those of the rounded value; a density of exponential
family, p(v) ∝ exp(η·t(v)), at the draw itself is then that at the rounded value times
exp(η·(t(draw) - t(rounded))) (:func:`beyond_log_prob`).
"""

import math
from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch import distributions as td

from vitools.distributions.layers import base_distribution
from vitools.distributions.log_space import standard_exponential

Beyond = Mapping[str, Tensor]
"""``{"log": …, "log1m": …}``: t(draw) - t(rounded value), of the value's shape, in float64; 0 inside."""

SPARSE = 1.0
"""A concentration below this piles draws up at an edge."""


def rounded_draws(
    distribution: Any, count: int, dtype: torch.dtype
) -> tuple[Tensor, Beyond | None]:
    """``count`` draws as numbers of ``dtype`` inside the support, and what rounding has cost them.

    Returns:
        ``[count, *shape]``, and ``None`` where no draw is beyond the numbers of ``dtype``.
    """
    base = base_distribution(distribution)
    shape = (count, *distribution.batch_shape, *distribution.event_shape)
    if not any(bool((a < SPARSE).any()) for a in _concentrations(base)):
        return inside(base, distribution.sample((count,)).to(dtype)), None
    logs = _draw_logs(base, shape)
    value = logs["log"].exp()
    if "log1m" in logs:  # above one half, 1 - exp(log(1 - v)) has more digits
        value = torch.where(value < 0.5, value, -torch.expm1(logs["log1m"]))
    value = inside(base, value.to(dtype))
    least, most = _ends(base, dtype)
    is_low, is_high = value <= least, value >= most
    if not bool(is_low.any() | is_high.any()):
        return value, None
    ends = value.double()
    if "log1m" not in logs:
        at_edge = torch.where(is_low | is_high, logs["log"] - ends.log(), 0.0)
        return value, {"log": at_edge}
    low = torch.where(is_low, logs["log"] - ends.log(), 0.0)
    high = torch.where(is_high, logs["log1m"] - torch.log1p(-ends), 0.0)
    return value, {"log": low, "log1m": high}


def inside(distribution: Any, value: Tensor) -> Tensor:
    """The nearest numbers inside the support, where draws of the family may round to its edge."""
    base = base_distribution(distribution)
    return value.clamp(*_ends(base, value.dtype)) if _concentrations(base) else value


def beyond_log_prob(distribution: Any, beyond: Beyond) -> Tensor:
    """log p(draw) - log p(rounded value), of the batch shape of the draws.

    0 for families whose densities are tame at the edge (or are not known here).
    """
    if isinstance(distribution, dist.MaskedDistribution):
        inner = beyond_log_prob(distribution.base_dist, beyond)
        return torch.where(torch.as_tensor(distribution._mask), inner, 0.0)
    if isinstance(distribution, td.Independent):
        inner = beyond_log_prob(distribution.base_dist, beyond)
        dims = distribution.reinterpreted_batch_ndims
        return inner.sum(tuple(range(-dims, 0))) if dims else inner
    if isinstance(distribution, ExpandedDistribution):
        return beyond_log_prob(distribution.base_dist, beyond)
    log = beyond["log"]
    if isinstance(distribution, td.Beta):
        first, second = _concentrations(distribution)
        return (first - 1) * log + (second - 1) * beyond["log1m"]
    if isinstance(distribution, td.Gamma):
        return (distribution.concentration - 1) * log
    if isinstance(distribution, dist.InverseGamma):
        return -(distribution.concentration + 1) * log
    if isinstance(distribution, td.Dirichlet):
        return ((distribution.concentration - 1) * log).sum(-1)
    return log.new_zeros(())


def _concentrations(distribution: Any) -> tuple[Tensor, ...]:
    if isinstance(distribution, td.Beta):
        return distribution.concentration1, distribution.concentration0
    if isinstance(distribution, td.Gamma | td.Dirichlet | dist.InverseGamma):
        return (distribution.concentration,)
    return ()


def _draw_logs(base: Any, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Sufficient statistics of draws, in float64: ``{"log": [*shape]}``, and ``"log1m"`` of a Beta."""
    gammas = [_log_gamma(a.double().expand(shape)) for a in _concentrations(base)]
    if isinstance(base, td.Beta):
        total = torch.logaddexp(*gammas)
        return {"log": gammas[0] - total, "log1m": gammas[1] - total}
    if isinstance(base, td.Dirichlet):
        return {"log": torch.log_softmax(gammas[0], -1)}
    log = gammas[0].sub_(base.rate.double().log())
    return {"log": log.neg_() if isinstance(base, dist.InverseGamma) else log}


def _log_gamma(concentration: Tensor) -> Tensor:
    """log G of draws G ~ Gamma(a, 1)."""
    shift = standard_exponential(concentration.shape, concentration).div_(concentration)
    return torch._standard_gamma(concentration + 1).log_().sub_(shift)


def _ends(base: Any, dtype: torch.dtype) -> tuple[float, float]:
    """The least and the largest number of ``dtype`` inside the support whose density is a number.

    That of an inverse gamma takes the square of its value.
    """
    info = torch.finfo(dtype)
    if isinstance(base, dist.InverseGamma):
        return info.tiny, math.sqrt(info.max) / 2
    return info.tiny, 1.0 - info.eps / 2 if isinstance(base, td.Beta) else info.max
