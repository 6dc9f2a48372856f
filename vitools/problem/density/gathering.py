"""Factors that read a latent of another plate, brought to the plate of that latent.

See :mod:`vitools.problem.density.plate_reads` for the formula.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from vitools.errors import NotSupportedError
from vitools.problem.density.factors import SiteFactor, contracted
from vitools.problem.density.plate_reads import PlateRead


class PlatedFactors(Protocol):
    """What is asked of a factor graph.

    Attributes:
        reads: copies of latents that the factors depend on.
        plate_dims, plate_sizes, plate_weights: of each plate's letter.
    """

    factors: list[SiteFactor]
    reads: list[PlateRead]
    plate_dims: dict[str, int]
    plate_sizes: dict[str, int]
    plate_weights: dict[str, float]

    def is_observed(self, name: str) -> bool: ...


def gathered(graph: PlatedFactors, members: list[SiteFactor]) -> list[SiteFactor]:
    """The members of a component, those that read across plates moved to the plates they read."""
    reads = {read.letter: read for read in graph.reads}
    while True:
        readers = [f for f in members if reads.keys() & set(f.log_density._pyro_dims)]
        if not readers:
            return members
        group = _group(graph, readers[-1], members, reads)
        moved = _moved(graph, group, reads)
        members = [f for f in members if not any(f is g for g in group.factors)] + [moved]


@dataclass
class _Group:
    """Factors whose product over the plates ``along`` is read by some copies.

    Attributes:
        local: letters of latents inside those plates, summed out before the product.
    """

    factors: list[SiteFactor]
    local: set[str]
    along: tuple[str, ...]
    reads: dict[str, PlateRead]


def _group(
    graph: PlatedFactors,
    reader: SiteFactor,
    members: Sequence[SiteFactor],
    reads: Mapping[str, PlateRead],
) -> _Group:
    home = {f.enumerated: f.plates for f in graph.factors if f.enumerated is not None}
    factors = [reader]
    along = _along(graph, reader, reads)
    while True:
        letters = {d for f in factors for d in f.log_density._pyro_dims}
        local = {d for d in letters if home.get(d, frozenset()) & set(along)}
        more = [
            f
            for f in members
            if local & set(f.log_density._pyro_dims) and not any(f is g for g in factors)
        ]
        if not more:
            break
        factors += more
    own = {d: reads[d] for d in letters & reads.keys()}
    if local & {_home(graph, read).enumerated for read in own.values()}:
        raise _refusal(factors, own)  # an element beside another one
    for factor in factors:
        theirs = reads.keys() & set(factor.log_density._pyro_dims)
        if (theirs and _along(graph, factor, reads) != along) or not set(along) <= factor.plates:
            raise _refusal(factors, own)
    first, *others = own.values()
    for other in others:
        is_same = other.site != first.site and _same(other.positions, first.positions)
        if not is_same or _home(graph, other).plates != _home(graph, first).plates:
            raise _refusal(factors, own)
    if _home(graph, first).plates & {d for f in factors for d in f.plates} - set(along):
        raise _refusal(factors, own)
    return _Group(factors, local, along, own)


def _along(
    graph: PlatedFactors, reader: SiteFactor, reads: Mapping[str, PlateRead]
) -> tuple[str, ...]:
    """The plates along which elements of another plate are read, from left to right."""
    dims: set[int] = set()
    own = [reads[d] for d in reader.log_density._pyro_dims if d in reads]
    for read in own:
        for position in read.positions.values():
            dims |= {d for d in range(-position.dim(), 0) if position.shape[d] > 1}
    letter_at = {graph.plate_dims[letter]: letter for letter in reader.plates}
    if not dims <= letter_at.keys():
        raise _refusal([reader], {read.letter: read for read in own})
    return tuple(letter_at[d] for d in sorted(dims))


def _moved(graph: PlatedFactors, group: _Group, reads: Mapping[str, PlateRead]) -> SiteFactor:
    """log f_i = Σ_{n: read at i} log f_n, the local latents of n summed out."""
    factors, along = group.factors, group.along
    term = contracted(
        factors, group.local, frozenset(along), graph.plate_sizes, graph.plate_weights
    )
    first = next(iter(group.reads.values()))
    target = _home(graph, first)
    names = {letter: str(_home(graph, read).enumerated) for letter, read in group.reads.items()}
    rest = [d for d in term._pyro_dims if d not in along]
    table = term.permute(
        [term._pyro_dims.index(d) for d in rest + [a for a in along if a in term._pyro_dims]]
    )
    counts = [graph.plate_sizes[a] for a in along]
    view = [n if a in term._pyro_dims else 1 for a, n in zip(along, counts, strict=True)]
    table = table.reshape([*table.shape[: len(rest)], *view])
    table = (
        table.expand([*table.shape[: len(rest)], *counts]).flatten(len(rest))
        if along
        else table.unsqueeze(-1)
    )
    weight = math.prod(graph.plate_weights[a] for a in along if a not in target.plates)
    letter_at = {graph.plate_dims[letter]: letter for letter in target.plates}
    dims = sorted(first.positions)
    sizes = [graph.plate_sizes[letter_at[d]] for d in dims]
    index = _flat_index(first.positions, dims, sizes, counts)
    total = table.new_zeros([*table.shape[:-1], math.prod(sizes)])
    moved: Any = total.index_add(-1, index, table * weight)
    moved = moved.reshape([*table.shape[:-1], *sizes])
    moved._pyro_dims = "".join([names.get(d, d) for d in rest] + [letter_at[d] for d in dims])
    scale = factors[0].scale
    name = "+".join(f.name for f in factors if graph.is_observed(f.name)) or factors[0].name
    return SiteFactor(name, moved, target.plates, None, scale)


def _flat_index(
    positions: Mapping[int, Tensor], dims: list[int], sizes: list[int], counts: list[int]
) -> Tensor:
    flat = torch.zeros((), dtype=torch.long)
    for dim, size in zip(dims, sizes, strict=True):
        flat = flat.to(positions[dim].device) * size + positions[dim]
    return flat.expand(positions[dims[0]].shape).reshape(math.prod(counts))


def _home(graph: PlatedFactors, read: PlateRead) -> SiteFactor:
    return next(f for f in graph.factors if f.name == read.site)


def _same(a: Mapping[int, Tensor], b: Mapping[int, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[d], b[d]) for d in a)


def _refusal(factors: Sequence[SiteFactor], reads: Mapping[str, PlateRead]) -> NotSupportedError:
    sites = sorted({read.site for read in reads.values()})
    return NotSupportedError(
        f"site {', '.join(repr(f.name) for f in factors)} reads the discrete latent "
        f"{', '.join(map(repr, sites))} at elements of its plate in a way that ties them together: "
        "two elements in one density, say. The sum over all their values is no sum for each element. "
        "Let each row read one element (z[index], with one index for all latents of that plate), or "
        "write neighbours as sites one after another with pyro.markov."
    )
