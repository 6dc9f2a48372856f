"""Pyro's ``LinearHMM`` with a density: where its noise is normal it is a ``GaussianHMM``.

    z_t = z_t-1 F + w_t,   y_t = z_t H + v_t

The first is written for any noise and has draws only. With w and v normal, log p(y) is that of the second,
a Kalman filter; with a Student-t among them the states cannot be integrated out.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import GaussianHMM, LinearHMM, TransformedDistribution
from torch import distributions as td

from vitools.distributions.layers import base_distribution
from vitools.errors import NotSupportedError


def with_density(name: str, fn: Any) -> Any:
    """The same distribution with a density, where it is a ``LinearHMM`` of normal noise."""
    if not isinstance(fn, LinearHMM):
        return fn
    noise = {
        "initial_dist": fn.initial_dist,
        "transition_dist": fn.transition_dist,
        "observation_dist": fn.observation_dist,
    }
    for argument, own in noise.items():
        if not isinstance(base_distribution(own), td.Normal | td.MultivariateNormal):
            raise NotSupportedError(
                f"site '{name}': a LinearHMM whose {argument} is a {type(base_distribution(own)).__name__} "
                "has no density, because its states cannot be integrated out; expected a Normal or "
                "MultivariateNormal. Make the states a latent, a GaussianMarkovChain with this noise around "
                "what it is seen through; or, for svi() and nuts(), make the scales of Student-t noise "
                "latents: poutine.reparam with LinearHMMReparam(obs=StudentTReparam())."
            )
    made: Any = GaussianHMM(
        _plain(fn.initial_dist),
        fn.transition_matrix,
        _plain(fn.transition_dist),
        fn.observation_matrix,
        _plain(fn.observation_dist),
        duration=fn.duration,
    )
    return TransformedDistribution(made, fn.transforms) if fn.transforms else made


def _plain(fn: Any) -> Any:
    """Independent normals of one event dim, or a multivariate normal."""
    base = base_distribution(fn)
    if isinstance(base, td.MultivariateNormal):
        return base
    shape = torch.Size((*fn.batch_shape, *fn.event_shape))
    return base.expand(shape).to_event(1)
