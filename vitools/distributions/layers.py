"""What is under ``expand``, ``to_event`` and ``mask``: the distribution that was written."""

from typing import Any

from pyro.distributions import Independent, MaskedDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import distributions as td

from vitools.distributions.within_ends import WithinEnds


def layers_of(fn: Any) -> list[Any]:
    """A distribution, and what is under its ``expand``, ``to_event`` and ``mask``, one by one."""
    layers = [fn]
    while isinstance(
        layers[-1],
        Independent | td.Independent | MaskedDistribution | ExpandedDistribution | WithinEnds,
    ):
        layers.append(layers[-1].base_dist)
    return layers


def base_distribution(fn: Any) -> Any:
    """The distribution under ``expand``, ``to_event`` and ``mask``."""
    return layers_of(fn)[-1]
