"""Factors of a model whose trajectories of discrete states are summed out.

The model is run with every trajectory held at one state throughout, for each state: the factors that read
it, stacked, are their tables f_n(k). So it sees the shapes that it was written for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor

from vitools.errors import NotSupportedError
from vitools.problem.density.factors import SiteFactor
from vitools.problem.density.trajectories.factor import (
    Letters,
    Reading,
    letters_of,
    prior_factor,
)
from vitools.problem.sites import Site


def held(sites: Mapping[str, Site], states: Mapping[str, int]) -> dict[str, Tensor]:
    """Trajectories that stay in one state."""
    return {
        name: torch.full(site.shape, states[name], dtype=site.dtype, device=site.device)
        for name, site in sites.items()
    }


def with_trajectories(
    make: Callable[[Mapping[str, Tensor]], Any],
    sites: Mapping[str, Site],
    readings: Mapping[str, Reading],
) -> Any:
    """The factor graph in which these trajectories are summed out.

    Args:
        make: the factor graph of a model with trajectories held at values ``{site: [*shape]}``.
        sites: the trajectories.
        readings: of the factors that read them.
    """
    known: dict[tuple[int, ...], dict[str, SiteFactor]] = {}
    zeros = dict.fromkeys(sites, 0)
    graph = make(held(sites, zeros))
    known[tuple(zeros.values())] = {f.name: f for f in graph.factors}

    def at(states: Mapping[str, int]) -> dict[str, SiteFactor]:
        key = tuple(states.values())
        if key not in known:
            known[key] = {f.name: f for f in make(held(sites, states)).factors}
        return known[key]

    letters = {name: letters_of(number) for number, name in enumerate(sites)}
    factors: list[SiteFactor] = []
    for factor in graph.factors:
        reading = readings.get(factor.name)
        read = [name for name in reading.sites if name in sites] if reading else []
        if factor.name in sites:
            batch = _batch_letters(sites[factor.name], graph)
            node = graph.trace.nodes[factor.name]
            factors.append(prior_factor(factor, node, letters[factor.name], batch))
        elif reading is not None and read:
            _refuse_other_rows(factor.name, reading, graph)
            factors.append(_stacked(factor, read, sites, letters, zeros, at))
        else:
            factors.append(factor)
    graph.factors = factors
    graph.readings = dict(readings)
    graph.sum_letters = graph.sum_letters | {own.state for own in letters.values()}
    return graph


def _stacked(
    factor: SiteFactor,
    read: list[str],
    sites: Mapping[str, Site],
    letters: Mapping[str, Letters],
    zeros: Mapping[str, int],
    at: Callable[[Mapping[str, int]], dict[str, SiteFactor]],
) -> SiteFactor:
    counts = [sites[name].states for name in read]
    cases = [
        at({**zeros, **dict(zip(read, chosen, strict=True))})[factor.name].log_density
        for chosen in product(*map(range, counts))
    ]
    own = factor.log_density._pyro_dims
    density: Any = torch.stack(cases).reshape([*counts, *factor.log_density.shape])
    density._pyro_dims = "".join([*(letters[name].state for name in read), own])
    return SiteFactor(factor.name, density, factor.plates, factor.enumerated, factor.scale)


def _batch_letters(site: Site, graph: Any) -> tuple[str | None, ...]:
    sized = zip(site.plates, site.batch_shape, strict=True)
    return tuple(graph.plate_letters[p] if p is not None and n > 1 else None for p, n in sized)


def _refuse_other_rows(name: str, reading: Reading, graph: Any) -> None:
    sizes = [graph.plate_sizes[graph.plate_letters[p]] for p in reading.plates]
    if sizes != list(reading.index.shape):
        raise NotSupportedError(
            f"site '{name}' reads a trajectory of discrete states that is summed out, and is given "
            f"{sizes} of its {list(reading.index.shape)} rows: the sum over trajectories needs all of "
            "them. Fit without subsample_size."
        )
