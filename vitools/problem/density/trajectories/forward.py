"""log Σ_z P(z) ∏_n f_n(z_t(n)) over all trajectories z (Rabiner 1989, "A tutorial on hidden Markov models").

Every row n of a factor depends on one step t(n), so that the rows of a step multiply,

    log F_t(k) = Σ_{n: t(n) = t} log f_n(k),

and the sum over trajectories is a product of the matrices P_t[j, k] F_t(k), taken by halves
(:mod:`vitools.elimination.discrete_chain`). Trajectories that one factor reads together are one of pairs of
states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from vitools.elimination.discrete_chain import log_normaliser, log_sum_exp
from vitools.errors import NotSupportedError
from vitools.problem.density.factors import Ordinal, SiteFactor, contracted
from vitools.problem.density.trajectories.factor import Reading, TrajectoryFactor


class ReadFactors(Protocol):
    """What is asked of a factor graph.

    Attributes:
        readings: of the factors that depend on trajectories, by name.
        plate_letters, plate_sizes, plate_weights: of each plate by its name, and by its letter.
    """

    factors: list[SiteFactor]
    readings: Mapping[str, Reading]
    plate_letters: dict[str, str]
    plate_sizes: dict[str, int]
    plate_weights: dict[str, float]


def without_trajectories(graph: ReadFactors, members: list[SiteFactor]) -> list[SiteFactor]:
    """The members of a component, those of trajectories summed over all of them."""
    for cluster in _clusters(members):
        members = _summed(graph, cluster, members)
    return members


def _clusters(members: Sequence[SiteFactor]) -> list[list[TrajectoryFactor]]:
    """Trajectories that some factor reads together."""
    clusters = [[f] for f in members if isinstance(f, TrajectoryFactor)]
    for factor in members:
        dims = set(factor.log_density._pyro_dims)
        touched = [c for c in clusters if any(f.letters.state in dims for f in c)]
        if len(touched) > 1:
            clusters = [c for c in clusters if c not in touched] + [[f for c in touched for f in c]]
    return clusters


def _summed(
    graph: ReadFactors, cluster: list[TrajectoryFactor], members: list[SiteFactor]
) -> list[SiteFactor]:
    """The members with those that a cluster's states are in replaced by one factor."""
    states = [f.letters.state for f in cluster]
    own = {f.letters.time for f in cluster}
    priors = [f for f in members if own & set(f.log_density._pyro_dims)]  # and weights put on them
    rest = [f for f in members if not any(f is p for p in priors)]
    seen: list[Any] = []
    while True:
        readers = [f for f in rest if set(states) & set(f.log_density._pyro_dims)]
        if not readers:
            break
        group, local = _group(graph, readers[0], rest, cluster[0], states)
        seen.append(_by_steps(graph, group, local, cluster[0], states))
        rest = [f for f in rest if not any(f is g for g in group)]
    _refuse_minibatches(graph, cluster[0].plates, cluster[0].name)
    plates = {d: graph.plate_sizes[d] for d in cluster[0].sites if d is not None}
    term = _forward(cluster, [p.log_density for p in priors], seen, plates)
    return [*rest, SiteFactor(cluster[0].name, term, cluster[0].plates, None, cluster[0].scale)]


def _group(
    graph: ReadFactors,
    reader: SiteFactor,
    rest: Sequence[SiteFactor],
    prior: TrajectoryFactor,
    states: Sequence[str],
) -> tuple[list[SiteFactor], set[str]]:
    """Factors that share discrete latents of the reader's rows, and the letters of these."""
    home = {f.enumerated: f.plates for f in graph.factors if f.enumerated is not None}
    group = [reader]
    while True:
        letters = {d for f in group for d in f.log_density._pyro_dims} - set(states)
        local = {d for d in letters if home.get(d, frozenset()) - prior.plates}
        more = [
            f
            for f in rest
            if local & set(f.log_density._pyro_dims) and not any(f is g for g in group)
        ]
        if not more:
            return group, local
        group += more


def _by_steps(
    graph: ReadFactors,
    group: list[SiteFactor],
    local: set[str],
    prior: TrajectoryFactor,
    states: Sequence[str],
) -> Any:
    """log F: the group's product at each step of each series, its local latents summed out."""
    readers = [f for f in group if set(states) & set(f.log_density._pyro_dims)]
    first = min(readers, key=lambda f: len(graph.readings[f.name].plates))
    reading = graph.readings[first.name]
    rows = [graph.plate_letters[name] for name in reading.plates]
    for factor in group:
        _refuse_minibatches(graph, factor.plates, factor.name)
        if not set(rows) <= factor.plates or not _is_same(graph.readings.get(factor.name), reading):
            raise _tied(group, prior.name)
    sizes = [graph.plate_sizes[d] for d in rows]
    keep: Ordinal = frozenset(rows)
    term = contracted(group, local, keep, graph.plate_sizes, graph.plate_weights)
    others = [d for d in term._pyro_dims if d not in rows]
    present = [d for d in rows if d in term._pyro_dims]
    table = term.permute([term._pyro_dims.index(d) for d in [*others, *present]])
    lead = list(table.shape[: len(others)])
    view = [n if d in present else 1 for d, n in zip(rows, sizes, strict=True)]
    table = table.reshape([*lead, *view]).expand([*lead, *sizes]).reshape([*lead, -1])
    series, steps = prior.log_density.shape[-4], prior.log_density.shape[-3]
    plates = [d for d in prior.sites if d is not None]
    batch = [graph.plate_sizes[d] for d in plates]
    empty = table.new_zeros([*lead, math.prod(batch) * series * steps])
    placed: Any = empty.index_add(-1, reading.index.reshape(-1).to(table.device), table)
    placed = placed.reshape([*lead, *batch, series, steps])
    placed._pyro_dims = "".join([*others, *plates, prior.letters.series, prior.letters.time])
    return placed


def _forward(
    cluster: list[TrajectoryFactor], priors: list[Any], seen: list[Any], plates: Mapping[str, int]
) -> Any:
    """log Σ over all trajectories; what is left has the letters of plates and of outer latents."""
    first = cluster[0].letters
    renamed = [_renamed(term, cluster) for term in priors]
    before = "".join(f.letters.before for f in cluster)
    states = "".join(f.letters.state for f in cluster)
    special = {*before, *states, first.series, first.time}
    letters = {d for term in (*renamed, *seen) for d in term._pyro_dims} | plates.keys()
    outer = sorted(letters - special)
    lead, time = [*outer, first.series, first.time], len(outer) + 1
    table = _total(renamed, [*lead, *before, *states])
    table = table.flatten(time + 1, time + len(cluster)).flatten(time + 2)
    start, later = table[..., 0, 0, :], table[..., 1:, :, :]
    if seen:
        tilt = _total(seen, [*lead, *states]).flatten(time + 1)
        start, later = start + tilt[..., 0, :], later + tilt[..., 1:, None, :]
    if later.shape[-3]:
        head = later[..., :1, :, :] + start[..., None, :, None]
        later = later.expand(*head.shape[:-3], *later.shape[-3:])
        total = log_normaliser(torch.cat([head, later[..., 1:, :, :]], -3))
    else:
        total = log_sum_exp(start, -1)
    result: Any = total.sum(-1)
    sizes = zip(outer, result.shape, strict=True)
    result = result.expand([plates.get(d, n) for d, n in sizes])
    result._pyro_dims = "".join(outer)
    return result


def _renamed(term: Any, cluster: list[TrajectoryFactor]) -> Any:
    """Series and time under the letters of the first trajectory."""
    names = {f.letters.series: cluster[0].letters.series for f in cluster}
    names |= {f.letters.time: cluster[0].letters.time for f in cluster}
    term, dims = term[...], term._pyro_dims
    term._pyro_dims = "".join(names.get(d, d) for d in dims)
    return term


def _total(terms: list[Any], order: list[str]) -> Tensor:
    """The sum of packed tensors, their dims in this order, those that none has of size one."""
    total: Any = 0.0
    for term in terms:
        own = term._pyro_dims
        placed = term.permute([own.index(d) for d in order if d in own])
        total = total + placed[tuple(slice(None) if d in own else None for d in order)]
    return total


def _is_same(own: Reading | None, reading: Reading) -> bool:
    """Whether rows along more plates are read where those along fewer are; None reads nothing."""
    if own is None:
        return True
    if not set(reading.plates) <= set(own.plates):
        return False
    shape = [
        n if p in reading.plates else 1 for p, n in zip(own.plates, own.index.shape, strict=True)
    ]
    order = [reading.plates.index(p) for p in own.plates if p in reading.plates]
    return bool((own.index == reading.index.permute(order).reshape(shape)).all())


def _refuse_minibatches(graph: ReadFactors, plates: Ordinal, name: str) -> None:
    if any(graph.plate_weights[d] != 1.0 for d in plates):
        raise NotSupportedError(
            f"site '{name}' belongs to a trajectory of discrete states that is summed out, and is given "
            "a minibatch of its rows: the sum over trajectories needs all of them. Fit without "
            "subsample_size."
        )


def _tied(group: Sequence[SiteFactor], name: str) -> NotSupportedError:
    described = ", ".join(f"'{f.name}'" for f in group)
    return NotSupportedError(
        f"sites {described} share discrete latents that tie steps of the trajectory '{name}' together, "
        "so that it cannot be summed out step by step. Let each row read one step, and its discrete "
        "latents belong to that row."
    )
