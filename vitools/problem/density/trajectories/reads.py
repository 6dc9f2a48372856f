"""Which step of a trajectory does each row of a factor depend on? Asked of the model by running it.

Held at one state throughout, z = k, the model gives the tables f_n(k). With two states, one where a bit of
a step's number is set and the other where not, row n shows that bit of t(n): log₂ T runs tell all of it. That
each row depends on one step and on nothing else is then tried on trajectories drawn at random, where its
density must be that of the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from vitools.isolation import seeded
from vitools.problem.density.trajectories.factor import Reading
from vitools.problem.density.trajectories.graph import held
from vitools.problem.sites import Site

MOST_STATES = 64
"""States of all trajectories of a model together, and runs of it for one density."""

TRIALS = 3


@dataclass(frozen=True)
class _Rows:
    """A factor's density […, rows]: values of other latents first, then the rows of its plates."""

    density: Tensor
    plates: tuple[str, ...]
    sizes: tuple[int, ...]


def read_trajectories(
    make: Callable[[Mapping[str, Tensor]], Any], sites: Mapping[str, Site]
) -> tuple[dict[str, Reading], dict[str, str]]:
    """Readings by factor, and of trajectories that have none the site that is to blame.

    Args:
        make: the factor graph of a model with trajectories held at values ``{site: [*shape]}``.
        sites: the trajectories of the model.
    """
    names = list(sites)
    counts = [site.states for site in sites.values()]
    if math.prod(counts) > MOST_STATES:
        return {}, dict.fromkeys(names, "")

    def run(values: Mapping[str, Tensor]) -> dict[str, _Rows]:
        with torch.no_grad():
            graph = make(values)
            return {f.name: _rows(graph, f) for f in graph.factors}

    cases = {
        chosen: run(held(sites, dict(zip(names, chosen, strict=True))))
        for chosen in product(*map(range, counts))
    }
    first = next(iter(cases.values()))
    tables = {
        factor: torch.stack([case[factor].density for case in cases.values()])
        .reshape([*counts, *first[factor].density.shape])
        .nan_to_num(nan=0.0)
        for factor in first
    }
    readings: dict[str, Reading] = {}
    unlike: dict[str, str] = {}
    coded = _Coded(run, sites)
    for factor, table in tables.items():
        read = [
            i
            for i, name in enumerate(names)
            if name != factor and bool((table != table.narrow(i, 0, 1)).any())
        ]
        kinds = {(sites[names[i]].shape, sites[names[i]].plates) for i in read}
        if len(kinds) > 1:
            unlike |= {names[i]: factor for i in read}
        elif read:
            index = _index(factor, table, read, sites, coded)
            shape = first[factor].sizes
            own = tuple(names[i] for i in read)
            readings[factor] = Reading(own, first[factor].plates, index.reshape(shape))
    blamed = unlike | _disagreeing(run, sites, tables, readings)
    return {k: v for k, v in readings.items() if not set(v.sites) & blamed.keys()}, blamed


def _rows(graph: Any, factor: Any) -> _Rows:
    dims = factor.log_density._pyro_dims
    names = {letter: name for name, letter in graph.plate_letters.items() if letter in dims}
    rows = sorted(names, key=graph.plate_dims.__getitem__)
    others = [d for d in dims if d not in names]
    density = factor.log_density.permute([dims.index(d) for d in [*others, *rows]])
    sizes = tuple(density.shape[len(others) :])
    density = density.reshape([math.prod(density.shape[: len(others)]), math.prod(sizes)])
    return _Rows(density, tuple(names[d] for d in rows), sizes)


class _Coded:
    """Runs in which a trajectory has one state where a bit of a step's number is set, kept."""

    def __init__(
        self, run: Callable[[Mapping[str, Tensor]], dict[str, _Rows]], sites: Mapping[str, Site]
    ) -> None:
        self.run, self.sites = run, sites
        self._known: dict[Any, dict[str, _Rows]] = {}

    def __call__(self, which: int, others: tuple[int, ...], state: int, bit: int) -> Any:
        """Trajectory ``which`` in ``state`` where the bit is set and 0 elsewhere, the others held."""
        key = which, others, state, bit
        if key not in self._known:
            names = list(self.sites)
            values = held(self.sites, dict(zip(names, others, strict=True)))
            site = self.sites[names[which]]
            steps = torch.arange(site.shape.numel(), device=site.device)
            is_set = ((steps >> bit) & 1).bool().reshape(site.shape)
            values[site.name] = torch.where(is_set, state, 0).to(site.dtype)
            self._known[key] = self.run(values)
        return self._known[key]


def _index(
    factor: str, table: Tensor, read: list[int], sites: Mapping[str, Site], coded: _Coded
) -> Tensor:
    """t(n) of each row, [rows], by the trajectory that shows it most; 0 where none does."""
    shown = torch.zeros(table.shape[-1], dtype=torch.float64, device=table.device)
    index = torch.zeros_like(shown, dtype=torch.long)
    for which in read:
        size = list(sites.values())[which].shape.numel()
        table_of = table.movedim(which, 0)  # [K, other trajectories…, others, rows]
        for others in product(*map(range, table_of.shape[1:-2])):
            here: tuple[Any, ...] = (slice(None), *others)
            low, *high = table_of[here]
            for state, top in enumerate(high, start=1):
                gap = _distance(top, low)
                better = gap > shown
                if not bool(better.any()):
                    continue
                background = (*others[:which], 0, *others[which:])
                found = torch.zeros_like(index)
                for bit in range(max(1, (size - 1).bit_length())):
                    density = coded(which, background, state, bit)[factor].density
                    found += _is_nearer(density.nan_to_num(nan=0.0), top, low).long() << bit
                index = torch.where(better, found.clamp(max=size - 1), index)
                shown = torch.where(better, gap, shown)
    return index


def _is_nearer(density: Tensor, top: Tensor, low: Tensor) -> Tensor:
    """Whether a row's densities are those of ``top``, rather than of ``low``."""
    return _distance(density, top) < _distance(density, low)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    gap = torch.where(a == b, 0.0, a - b)
    return gap.abs().nan_to_num(nan=0.0).amax(0).double()


def _points(sites: Mapping[str, Site]) -> Iterator[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(TRIALS):
        yield {
            name: torch.randint(site.states, site.shape, generator=generator).to(site.device)
            for name, site in sites.items()
        }


def _disagreeing(
    run: Callable[[Mapping[str, Tensor]], dict[str, _Rows]],
    sites: Mapping[str, Site],
    tables: Mapping[str, Tensor],
    readings: Mapping[str, Reading],
) -> dict[str, str]:
    """Trajectories that a factor reads otherwise than row by row at one step, and that factor."""
    names = list(sites)
    blamed: dict[str, str] = {}
    for values in _points(sites):
        with seeded(0):
            found = run(values)
        for factor, reading in readings.items():
            place = reading.index.reshape(-1)
            rows = torch.arange(len(place), device=place.device)
            key = [
                values[name].reshape(-1)[place] if name in reading.sites else torch.zeros_like(rows)
                for name in names
            ]
            expected = tables[factor].movedim(-2, -1)[(*key, rows)].mT
            tolerance = math.sqrt(torch.finfo(expected.dtype).eps)
            density = found[factor].density.nan_to_num(nan=0.0)
            if not torch.allclose(density, expected, rtol=tolerance, atol=tolerance):
                blamed |= {name: factor for name in reading.sites if name not in blamed}
    return blamed
