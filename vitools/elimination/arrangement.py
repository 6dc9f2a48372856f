"""In which order levels of groups are eliminated, and which of them are left to the dense root.

Eliminating a group couples all that it is coupled with: its *parents*. The tree stays a tree, with no
more blocks than groups, as long as every group has at most one parent in each later level; then the
parents of one group are nested in each other after elimination. Levels are taken from the one with
most units on. One that is coupled with itself, or of which some group has several parents to be, goes
to the root: of crossed levels (users × items) the larger is eliminated, the smaller dense.

A level of Markov chains is coupled with itself from each unit to the next of its chain. What lies beside
single units of it (an effect of its own at each time) is eliminated before it; what lies beside whole
chains after it, and no other chains do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Coupling:
    """Pairs of units that are coupled: unit ``left[k]`` of one level, ``right[k]`` of another."""

    first: int
    second: int
    left: Tensor
    right: Tensor


@dataclass(frozen=True)
class Arrangement:
    """``order``: the levels to eliminate, first to last; ``dense``: those for the root.

    ``parents[i][j]`` [groups of i]: the unit of the later level j that each group of i is coupled with, -1
    for none.
    """

    order: tuple[int, ...]
    dense: tuple[int, ...]
    parents: dict[int, dict[int, Tensor]]


Pairs = dict[tuple[int, int], list[tuple[Tensor, Tensor]]]


def arrange(
    groups: Sequence[int], couplings: Iterable[Coupling], lengths: Sequence[int] | None = None
) -> Arrangement:
    """The order of elimination of levels of so many groups, chains of so many units each (1: none)."""
    lengths = [1] * len(groups) if lengths is None else lengths
    pairs: Pairs = {}
    dense: set[int] = set()
    for coupling in couplings:
        first, second = coupling.first, coupling.second
        left, right = coupling.left.reshape(-1), coupling.right.reshape(-1)
        if first == second:
            if not is_along(left, right, lengths[first]):
                dense.add(first)
        else:
            pairs.setdefault((first, second), []).append((left, right))
            pairs.setdefault((second, first), []).append((right, left))

    def priority(level: int) -> tuple[bool, int]:
        chains = [j for j, n in enumerate(lengths) if n > 1 and j != level and (level, j) in pairs]
        is_beside_units = lengths[level] == 1 and bool(chains)
        for j in chains:
            is_beside_units &= _only_partner(groups[level], pairs[level, j]) is not None
        return not is_beside_units, -groups[level] * lengths[level]

    order = sorted(range(len(groups)), key=priority)
    parents: dict[int, dict[int, Tensor]] = {}
    for place, level in enumerate(order):
        if level in dense:
            continue
        found: dict[int, Tensor] = {}
        for later in order[place + 1 :]:
            if later in dense or (level, later) not in pairs:
                continue
            own = [(left // lengths[level], right) for left, right in pairs[level, later]]
            only = _only_partner(groups[level], own)
            if only is None or (lengths[level] > 1 and lengths[later] > 1):
                dense.add(later)
            else:
                found[later] = only
        for one, other in itertools.combinations(found, 2):  # what eliminating the level couples
            both = (found[one] >= 0) & (found[other] >= 0)
            pairs.setdefault((one, other), []).append((found[one][both], found[other][both]))
        parents[level] = found
    kept = tuple(level for level in order if level not in dense)
    return Arrangement(
        order=kept,
        dense=tuple(sorted(dense)),
        parents={i: {j: p for j, p in parents[i].items() if j not in dense} for i in kept},
    )


def is_along(left: Tensor, right: Tensor, length: int, reach: int = 1) -> bool:
    """Whether all pairs are the same unit, or of one chain of so many and no further apart."""
    near = (left - right).abs() <= (reach if length > 1 else 0)
    return bool((near & (left // length == right // length)).all())


def _only_partner(groups: int, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor | None:
    """The one partner of each group, -1 where it has none; None where some group has several."""
    partner = torch.full((groups,), -1, dtype=torch.long)
    for left, right in pairs:
        partner[left] = right
    if any(bool((partner[left] != right).any()) for left, right in pairs):
        return None
    return partner
