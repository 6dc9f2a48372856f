"""Exact marginals and draws of discrete latents, given the continuous ones.

A marginal is the gradient of log Σ_z p(x, θ, z) with respect to weights put on a site's
values (Darwiche 2003, "A differential approach to inference in Bayesian networks"), so it is
exact wherever the sum is, and vectorised with it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vitools.distributions.markov_chains import CategoricalMarkovChain
from vitools.errors import NumericalError
from vitools.problem.density.enumeration import FactorGraph
from vitools.problem.density.trajectories.factor import TrajectoryFactor
from vitools.problem.sites import Site

Draw = Mapping[str, Tensor]


def site_marginal(site: Site, factors: Callable[[Draw], FactorGraph], draw: Draw) -> Tensor:
    """p(z = k | θ, x), ``[*batch_shape, K]``, at one draw of whatever is given.

    Of a trajectory those of each step, ``[*shape, K]``.
    """
    if site.states:
        return pair_marginals(site, factors, draw).sum(-2)
    graph = factors(draw)
    factor = next(f for f in graph.factors if f.name == site.name)
    gradient = _gradient(site, graph, (str(factor.enumerated),), (support_size(site),))
    gradient = gradient.reshape((*site.batch_shape, support_size(site)))
    # a poutine.scale multiplies the whole gradient
    return gradient / gradient.sum(-1, keepdim=True)


def pair_marginals(site: Site, factors: Callable[[Draw], FactorGraph], draw: Draw) -> Tensor:
    """p(z_t-1 = i, z_t = j | θ, x) of a trajectory, ``[*shape, K, K]``; at t = 0 in its first row."""
    graph = factors(draw)
    factor = next(f for f in graph.factors if f.name == site.name)
    assert isinstance(factor, TrajectoryFactor)
    sizes = tuple(factor.log_density.shape[-len(factor.letters) :])
    gradient = _gradient(site, graph, factor.letters, sizes)
    gradient = gradient.reshape((*site.shape, site.states, site.states))
    return gradient / gradient.sum((-2, -1), keepdim=True)


def _gradient(
    site: Site, graph: FactorGraph, letters: Sequence[str], sizes: tuple[int, ...]
) -> Tensor:
    """∂ log Σ_z p(x, θ, z) / ∂ weights on a site's values: its plates' dims, then these."""
    sized = [
        (graph.plate_letters[plate], size)
        for plate, size in zip(site.plates, site.batch_shape, strict=True)
        if plate is not None and size > 1
    ]
    dims = "".join([*(letter for letter, _ in sized), *letters])

    def log_density(weights: Tensor) -> Tensor:
        probe: Any = weights[...]
        probe._pyro_dims = dims
        return graph.log_density({site.name: probe})

    factor = next(f for f in graph.factors if f.name == site.name)
    zeros = factor.log_density.new_zeros((*(size for _, size in sized), *sizes))
    return torch.func.grad(log_density)(zeros)


def draw_sites(
    sites: Mapping[str, Site],
    given: Draw,
    num_samples: int | None,
    mapped: Callable[[Callable[[Draw], Tensor], Draw], Tensor],
    factors: Callable[[Draw], FactorGraph],
) -> dict[str, Tensor]:
    """Joint draws of discrete sites, one site after another from torch's global generator.

    Sites in fewer plates come first: entries of a plate are independent only given what is
    outside it; so are those of its steps given a trajectory. Each is drawn from its marginal given
    those before.

    Args:
        given: values ``{site: [n, …]}`` held fixed; may be empty.
        num_samples: n, needed only where ``given`` is empty.
        mapped: applies a function of one draw to all.
    """
    values = dict(given)
    outer = {plate for site in sites.values() if site.states for plate in site.plates}
    has_trajectories = any(site.states for site in sites.values())

    def depth(site: Site) -> tuple[bool, int]:
        is_inner = has_trajectories and bool({p for p in site.plates if p} - outer)
        return is_inner, sum(p is not None for p in site.plates)

    for site in sorted(sites.values(), key=depth):
        if site.name in values:
            continue
        marginal = pair_marginals if site.states else site_marginal
        probabilities = mapped(partial(marginal, site, factors), values)
        if not values and num_samples is not None:
            probabilities = probabilities.expand((num_samples, *probabilities.shape[1:]))
        if not bool(torch.isfinite(probabilities).all()):
            raise NumericalError(
                f"site '{site.name}': its probabilities given the other values are NaN; the data "
                "have density 0 (or NaN) under every value it can take."
            )
        if site.states:
            values[site.name] = _drawn_trajectory(probabilities).to(site.dtype)
            continue
        rows = probabilities.reshape((-1, probabilities.shape[-1]))
        index = torch.multinomial(rows, 1).reshape(probabilities.shape[:-1])
        assert site.support_values is not None
        drawn = site.support_values[index]  # [n, *batch_shape, *event_shape]
        values[site.name] = drawn.reshape((drawn.shape[0], *site.shape))
    return values


def _drawn_trajectory(pairs: Tensor) -> Tensor:
    """Trajectories [n, …, T], each the whole of it, from probabilities of pairs [n, …, T, K, K]."""
    rows = pairs[..., 1:, :, :].sum(-1, keepdim=True)
    some = rows > 0
    later = pairs[..., 1:, :, :] / torch.where(some, rows, 1.0)
    later = torch.where(some, later, 1 / pairs.shape[-1])
    first, steps = pairs[..., 0, 0, :], pairs.shape[-3]
    return CategoricalMarkovChain(first, later, steps, validate_args=False).sample()


def support_size(site: Site) -> int:
    """The number of values of a discrete latent, of one step of a trajectory."""
    if site.states:
        return site.states
    assert site.support_values is not None, site.name
    return site.support_values.shape[0]


def index_in_support(site: Site, value: Tensor) -> Tensor:
    """Where values ``[*S, *shape]`` stand in the support: ``[*S, *batch_shape]``, -1 for nowhere."""
    assert site.support_values is not None
    event_dims = tuple(range(-site.event_dim, 0))
    equal = value.unsqueeze(-1 - site.event_dim) == site.support_values.to(value.dtype)
    equal = equal.all(event_dims) if event_dims else equal
    return torch.where(equal.any(-1), equal.to(torch.uint8).argmax(-1), -1)
