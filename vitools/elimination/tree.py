"""The layout of a symmetric matrix over levels of groups and a dense root.

A group is one *unit* of d numbers, or a Markov chain of ``length`` such units, each coupled with the next.
Elements are numbered level by level (unit by unit within) and end with the root. Stored are, one
after another in a single vector of *entries*, for each level of U units: the block of each [U, d, d], in
chains the block beside the next one [U - G, d, d], the block beside the parent in every later level that it
is coupled with [U, d, d'], and the border to the root [slots, d] where that is not zero (:mod:`.border`);
then the root [D, D]. The precision matrix has no other entries, and neither has the part of its inverse that
is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from vitools.elimination.border import Border

NEXT = -1
"""In the place of a second level: the next unit of a chain."""

Key = tuple[int | None, int | None]


@dataclass(frozen=True)
class Level:
    """``groups`` groups of ``width`` numbers, or chains of ``length`` times so many.

    ``parents[j]`` [groups]: the unit of level j, a later one, above each group; -1 for none. Above chains
    stand no chains.
    ``columns`` [2, pairs]: groups and the numbers of the root that they are coupled with; None for all, as
    chains are.
    """

    groups: int
    width: int
    parents: Mapping[int, Tensor] = field(default_factory=dict)
    columns: Tensor | None = None
    length: int = 1

    @property
    def units(self) -> int:
        return self.groups * self.length


@dataclass(frozen=True)
class Place:
    """Elements by level (None: the root), unit (nothing in the root) and number within."""

    level: int | None
    unit: Tensor
    within: Tensor


class Tree:
    """Levels in the order in which they are eliminated, and the size of the root.

    Raises:
        ValueError: a level's parent does not come after it, or two parents of one level are not
            nested in each other.
    """

    def __init__(self, levels: Sequence[Level], root: int):
        self.levels, self.root = tuple(levels), root
        for i, level in enumerate(self.levels):
            above = sorted(level.parents)
            if any(j <= i or j >= len(self.levels) for j in above):
                raise ValueError(f"the parents of level {i} are not later levels: {above}")
            if level.length > 1 and any(self.levels[j].length > 1 for j in above):
                raise ValueError(f"the parents {above} of the chains of level {i} are chains")
            for n, j in enumerate(above):
                lost = [k for k in above[n + 1 :] if k not in self.levels[j].parents]
                if lost or not all(self._is_nested(level, j, k) for k in above[n + 1 :]):
                    raise ValueError(f"the parents {above} of level {i} are not nested")
        self._above = [
            {j: level.parents[j].repeat_interleave(level.length) for j in sorted(level.parents)}
            for level in self.levels
        ]
        self.parents = [{j: u.clamp(min=0) for j, u in above.items()} for above in self._above]
        self.borders: list[Border] = []
        self.raised: list[dict[int, Tensor]] = []
        self._make_borders()
        self.offsets: list[int] = []
        self.size = 0
        for level in self.levels:
            self.offsets.append(self.size)
            self.size += level.units * level.width
        self.root_offset = self.size
        self.size += root
        self._starts: dict[Key, int] = {}
        self.count = 0
        for key, shape in self._blocks():
            self._starts[key] = self.count
            self.count += math.prod(shape)

    def _make_borders(self) -> None:
        """What groups are coupled with their parents are, once they are eliminated.

        ``raised[i][j]``: for the slots of level i those in the border of the parents in level j.
        """
        columns = [level.columns if level.length == 1 else None for level in self.levels]
        for i, level in enumerate(self.levels):
            border = Border(level.units, self.root, columns[i])
            self.borders.append(border)
            for j, group in level.parents.items():
                below, above = border.pairs, columns[j]
                if below is None or above is None:
                    columns[j] = None
                else:
                    parent = group[below[0]]
                    more = torch.stack([parent, below[1]])[:, parent >= 0]
                    columns[j] = torch.cat([above, more], 1)
        for border, parents in zip(self.borders, self._above, strict=True):
            self.raised.append(
                {
                    j: self.borders[j].slots_of(border, unit)
                    for j, unit in parents.items()
                    if self.borders[j].slots
                }
            )

    def _is_nested(self, level: Level, lower: int, upper: int) -> bool:
        """Whether the upper parent of each group is that of its lower one."""
        below = self.levels[lower]
        unit, above = level.parents[lower], level.parents[upper]
        through = below.parents[upper][unit.clamp(min=0) // below.length]
        return bool(((unit < 0) | (above < 0) | (through == above)).all())

    def _blocks(self) -> Iterator[tuple[Key, tuple[int, ...]]]:
        for i, level in enumerate(self.levels):
            yield (i, i), (level.units, level.width, level.width)
            if level.length > 1:
                yield (i, NEXT), (level.units - level.groups, level.width, level.width)
            for j in self.parents[i]:
                yield (i, j), (level.units, level.width, self.levels[j].width)
            yield (i, None), (self.borders[i].slots, level.width)
        yield (None, None), (self.root, self.root)

    def split(self, entries: Tensor) -> dict[Key, Tensor]:
        """Views of the entries as blocks: (i, i), (i, NEXT) in chains, (i, j), (i, None), (None, None)."""
        return {
            key: entries[self._starts[key] : self._starts[key] + math.prod(shape)].view(shape)
            for key, shape in self._blocks()
        }

    def join(self, blocks: Mapping[Key, Tensor]) -> Tensor:
        return torch.cat([blocks[key].reshape(-1) for key, _ in self._blocks()])

    def parts(self, vector: Tensor) -> list[Tensor]:
        """[…, size] as [[…, U, d] of each level, […, D] of the root]."""
        lead = vector.shape[:-1]
        parts = [
            vector[..., start : start + level.units * level.width].reshape(
                *lead, level.units, level.width
            )
            for start, level in zip(self.offsets, self.levels, strict=True)
        ]
        return [*parts, vector[..., self.root_offset :]]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([*(p.flatten(-2) for p in parts[:-1]), parts[-1]], -1)

    # ---- places --------------------------------------------------------------------------

    def element(self, place: Place) -> Tensor:
        """The number of each element."""
        if place.level is None:
            return self.root_offset + place.within
        level = self.levels[place.level]
        return self.offsets[place.level] + place.unit * level.width + place.within

    def entry(self, first: Place, second: Place) -> Tensor | None:
        """Where the entry of each pair of elements is stored; None where some pair has none."""
        if self._depth(first) > self._depth(second):
            first, second = second, first
        if first.level is None:
            return self._starts[None, None] + first.within * self.root + second.within
        level = self.levels[first.level]
        if first.level == second.level and level.length > 1:
            return self._entry_in_chain(first, second)
        start = self._starts.get((first.level, second.level))
        if start is None:
            return None
        if second.level is None:
            slot = self.borders[first.level].slot(first.unit, second.within)
            return None if slot is None else start + slot * level.width + first.within
        row = first.unit * level.width + first.within
        own = first.unit
        if second.level != first.level:
            own = level.parents[second.level][first.unit // level.length]
        if bool((own != second.unit).any()):
            return None
        return start + row * self.levels[second.level].width + second.within

    def _entry_in_chain(self, first: Place, second: Place) -> Tensor | None:
        """In a unit's own block, or in the block of the earlier of two neighbours."""
        assert first.level is not None
        level = self.levels[first.level]
        ahead = second.unit - first.unit
        earlier = torch.minimum(first.unit, second.unit)
        group, step = earlier // level.length, earlier % level.length
        if bool((ahead.abs() > 1).any()) or bool(((ahead != 0) & (step == level.length - 1)).any()):
            return None
        row = torch.where(ahead < 0, second.within, first.within)
        column = torch.where(ahead < 0, first.within, second.within)
        own = (earlier * level.width + row) * level.width + column
        beside = ((earlier - group) * level.width + row) * level.width + column
        starts = self._starts[first.level, first.level], self._starts[first.level, NEXT]
        return torch.where(ahead == 0, own + starts[0], beside + starts[1])

    def _depth(self, place: Place) -> int:
        return len(self.levels) if place.level is None else place.level

    @cached_property
    def diagonal(self) -> Tensor:
        """The entry of each element beside itself."""
        found = []
        for i, level in enumerate(self.levels):
            unit = torch.arange(level.units).repeat_interleave(level.width)
            own = Place(i, unit, torch.arange(level.width).repeat(level.units))
            found.append(self._stored(own))
        found.append(self._stored(Place(None, torch.zeros(()), torch.arange(self.root))))
        return torch.cat(found)

    def _stored(self, place: Place) -> Tensor:
        entry = self.entry(place, place)
        assert entry is not None
        return entry

    @cached_property
    def is_mirrored(self) -> Tensor:
        """Whether an entry stands for itself and its mirror image, which is not stored."""
        own = [torch.full((math.prod(shape),), key[0] != key[1]) for key, shape in self._blocks()]
        return torch.cat(own)

    @cached_property
    def multiplicity(self) -> Tensor:
        """2 for such an entry, else 1."""
        return 1.0 + self.is_mirrored.double()

    # ---- products ------------------------------------------------------------------------

    def dense(self, entries: Tensor) -> Tensor:
        """The whole matrix [size, size], zero where nothing is stored."""
        return self.times(entries, torch.eye(self.size, dtype=entries.dtype)).mT

    def times(self, entries: Tensor, vector: Tensor) -> Tensor:
        """The symmetric matrix times a vector […, size]."""
        blocks, x = self.split(entries), self.parts(vector)
        out = [torch.zeros_like(part) for part in x]
        for i, above in enumerate(self.parents):
            border, block = self.borders[i], blocks[i, None]
            out[i] = out[i] + rows(blocks[i, i], x[i]) + border.times(block, x[-1])
            out[-1] = out[-1] + border.onto_root(block, x[i])
            if (i, NEXT) in blocks:
                self._add_neighbours(i, blocks[i, NEXT], x[i], out[i])
            for j, group in above.items():
                out[i] = out[i] + rows(blocks[i, j], x[j].index_select(-2, group))
                out[j] = out[j].index_add(-2, group, rows(blocks[i, j].mT, x[i]))
        out[-1] = out[-1] + x[-1] @ blocks[None, None]
        return self.joined(out)

    def _add_neighbours(self, i: int, between: Tensor, x: Tensor, out: Tensor) -> None:
        groups = self.levels[i].groups
        steps = out.unflatten(-2, (groups, -1))
        earlier, later = self.neighbours(i, x)
        steps[..., :-1, :] += rows(between, later).unflatten(-2, (groups, -1))
        steps[..., 1:, :] += rows(between.mT, earlier).unflatten(-2, (groups, -1))

    def neighbours(self, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """What stands at the units of chains […, U, d] that have a next one, and at the next, […, U - G, d]."""
        steps = x.unflatten(-2, (self.levels[i].groups, -1))
        return steps[..., :-1, :].flatten(-3, -2), steps[..., 1:, :].flatten(-3, -2)

    def outer(self, vector: Tensor) -> Tensor:
        """The entries of x xᵀ for a vector [size]."""
        *x, root = self.parts(vector)
        found: dict[Key, Tensor] = {(None, None): torch.outer(root, root)}
        for i, above in enumerate(self.parents):
            own = x[i].unsqueeze(-1)
            found[i, i] = own * x[i].unsqueeze(-2)
            found[i, None] = self.borders[i].outer(x[i], root)
            if self.levels[i].length > 1:
                earlier, later = self.neighbours(i, x[i])
                found[i, NEXT] = earlier.unsqueeze(-1) * later.unsqueeze(-2)
            for j, group in above.items():
                found[i, j] = own * x[j][group].unsqueeze(-2)
        return self.join(found)

    @property
    def operations(self) -> int:
        """Multiplications of a factorisation and its selected inverse, roughly."""
        total = self.root**3
        for i, level in enumerate(self.levels):
            border, d = self.borders[i], level.width
            above = sum(self.levels[j].width for j in self.parents[i])
            own = d**2 * (1 if level.length == 1 else 5)
            blocks = level.units * (own + d * above + above**2) + border.slots * (d + 2 * above)
            total += 2 * d * (blocks + border.operations)
        return total


def rows(blocks: Tensor, x: Tensor) -> Tensor:
    """Each unit's block [U, d, d'] times its part of x […, U, d']."""
    return torch.einsum("gab,...gb->...ga", blocks, x)
