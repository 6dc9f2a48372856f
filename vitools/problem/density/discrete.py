"""Exact marginals and draws of discrete latents, given the continuous ones.

A marginal is the gradient of log Σ_z p(x, θ, z) with respect to weights put on a site's
values (Darwiche 2003, "A differential approach to inference in Bayesian networks"), so it is
exact wherever the sum is, and vectorised with it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vitools.errors import NumericalError
from vitools.problem.density.enumeration import FactorGraph
from vitools.problem.sites import Site

Draw = Mapping[str, Tensor]


def site_marginal(site: Site, factors: Callable[[Draw], FactorGraph], draw: Draw) -> Tensor:
    """p(z = k | θ, x), ``[*batch_shape, K]``, at one draw of whatever is given."""
    graph = factors(draw)
    factor = next(f for f in graph.factors if f.name == site.name)
    sized = [
        (graph.plate_letters[plate], size)
        for plate, size in zip(site.plates, site.batch_shape, strict=True)
        if plate is not None and size > 1
    ]
    letters = "".join([str(factor.enumerated), *(letter for letter, _ in sized)])

    def log_density(weights: Tensor) -> Tensor:
        probe: Any = weights[...]
        probe._pyro_dims = letters
        return graph.log_density({site.name: probe})

    count = support_size(site)
    zeros = factor.log_density.new_zeros((count, *(size for _, size in sized)))
    gradient = torch.func.grad(log_density)(zeros).movedim(0, -1)
    # a poutine.scale multiplies the whole gradient
    marginal = gradient / gradient.sum(-1, keepdim=True)
    return marginal.reshape((*site.batch_shape, count))


def draw_sites(
    sites: Mapping[str, Site],
    given: Draw,
    num_samples: int | None,
    mapped: Callable[[Callable[[Draw], Tensor], Draw], Tensor],
    factors: Callable[[Draw], FactorGraph],
) -> dict[str, Tensor]:
    """Joint draws of discrete sites, one site after another from torch's global generator.

    Sites in fewer plates come first: entries of a plate are independent only given what is
    outside it. Each is drawn from its marginal given those before.

    Args:
        given: values ``{site: [n, …]}`` held fixed; may be empty.
        num_samples: n, needed only where ``given`` is empty.
        mapped: applies a function of one draw to all.
    """
    values = dict(given)
    for site in sorted(sites.values(), key=lambda s: sum(p is not None for p in s.plates)):
        if site.name in values:
            continue
        probabilities = mapped(partial(site_marginal, site, factors), values)
        if not values and num_samples is not None:
            probabilities = probabilities.expand((num_samples, *probabilities.shape[1:]))
        if not bool(torch.isfinite(probabilities).all()):
            raise NumericalError(
                f"site '{site.name}': its probabilities given the other values are NaN; the data "
                "have density 0 (or NaN) under every value it can take."
            )
        rows = probabilities.reshape((-1, probabilities.shape[-1]))
        index = torch.multinomial(rows, 1).reshape(probabilities.shape[:-1])
        assert site.support_values is not None
        drawn = site.support_values[index]  # [n, *batch_shape, *event_shape]
        values[site.name] = drawn.reshape((drawn.shape[0], *site.shape))
    return values


def support_size(site: Site) -> int:
    """The number of values of a discrete latent."""
    assert site.support_values is not None, site.name
    return site.support_values.shape[0]


def index_in_support(site: Site, value: Tensor) -> Tensor:
    """Where values ``[*S, *shape]`` stand in the support: ``[*S, *batch_shape]``, -1 for nowhere."""
    assert site.support_values is not None
    event_dims = tuple(range(-site.event_dim, 0))
    equal = value.unsqueeze(-1 - site.event_dim) == site.support_values.to(value.dtype)
    equal = equal.all(event_dims) if event_dims else equal
    return torch.where(equal.any(-1), equal.to(torch.uint8).argmax(-1), -1)
