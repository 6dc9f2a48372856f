"""Observations whose support moves with a latent: Uniform(0, θ), Pareto(m, a), a shifted exponential.

The ends are found where the density is taken, at the latents of the moment, and
:class:`~vitools.distributions.within_ends.WithinEnds` holds the density to them.
"""

from typing import Any

from pyro.distributions import Independent, MaskedDistribution
from torch import distributions as td

from vitools.distributions.layers import base_distribution
from vitools.distributions.within_ends import WithinEnds
from vitools.problem.ends import mapped_ends_of


def within_its_ends(fn: Any) -> Any:
    """``fn`` with density 0 outside its support, its masks, events and expansions around it as ever."""
    base = base_distribution(fn)
    if fn is not base:
        inner = within_its_ends(fn.base_dist)
        if isinstance(fn, MaskedDistribution):
            return MaskedDistribution(inner, fn._mask)
        if isinstance(fn, td.Independent):
            return Independent(inner, fn.reinterpreted_batch_ndims)
        return inner.expand(fn.batch_shape)
    ends = mapped_ends_of(fn)
    return fn if ends is None else WithinEnds(fn, *ends, bool(fn.support.is_discrete))
