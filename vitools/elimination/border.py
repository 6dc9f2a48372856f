"""The border between a level of groups and the root, where it is not zero.

Of a root of a thousand numbers a group may be coupled with a few: a student with the teachers that the
student has rated. Stored are, for each group, a block [m, d] of the m *columns* (numbers of the root)
that it is coupled with. Groups of about as many columns stand together in a *bucket* [G, m, d], so that
each product is one batched product a bucket; shorter lists are filled up with zeros at a column that
the group has already. Where most groups are coupled with most of the root, one bucket of all groups has all
columns.

All blocks of all buckets are rows of one tensor [slots, d]; a slot is a group and one of its columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

SCATTERED = 8
"""What a multiplication costs whose result is added up by position, in those of a matrix product."""

AT_ONCE = 2_000_000
"""Pairs of columns that are written out at a time."""


@dataclass(frozen=True)
class Bucket:
    """Groups [G] with m columns each.

    ``columns`` [G, m]: None where they are those of the root, in order, for all groups of the level.
    """

    groups: Tensor
    count: int
    width: int
    start: int
    columns: Tensor | None

    def of(self, border: Tensor) -> Tensor:
        """Its blocks [G, m, d] of a border [slots, d]."""
        return border[self.start : self.stop].unflatten(0, (self.count, self.width))

    def own(self, blocks: Tensor) -> Tensor:
        """What its groups have of all groups' [groups, …]."""
        return blocks if self.columns is None else blocks[self.groups]

    @property
    def stop(self) -> int:
        return self.start + self.count * self.width


class Border:
    """Which numbers of the root each of so many groups is coupled with.

    Args:
        pairs: [2, pairs], groups and the columns beside them in any order; None for all of them.
    """

    def __init__(self, groups: int, root: int, pairs: Tensor | None = None):
        self.groups, self.root = groups, root
        self._keys: Tensor | None = None
        self._slots: Tensor | None = None
        self._order: Tensor | None = None
        self._is_own: Tensor | None = None
        if pairs is not None:
            keys = torch.unique(pairs[0] * root + pairs[1])
            lengths = torch.bincount(
                keys.div(max(root, 1), rounding_mode="floor"), minlength=groups
            )
            widths = _filled_up(lengths)
            if SCATTERED * int((widths**2).sum()) < groups * root**2:
                self._in_buckets(keys, lengths, widths)
        if self._keys is None:
            self.buckets = [Bucket(torch.arange(groups), groups, root, 0, None)]
        self.slots = self.buckets[-1].stop

    def _in_buckets(self, keys: Tensor, lengths: Tensor, widths: Tensor) -> None:
        firsts = lengths.cumsum(0) - lengths
        self.buckets = []
        slots = torch.empty_like(keys)
        start, order, own = 0, [], []
        for groups in _together(widths):
            width = int(widths[groups[0]])
            within = torch.arange(width)
            is_own = within < lengths[groups, None]
            places = firsts[groups, None] + torch.where(is_own, within, 0)
            columns = keys[places] % self.root if width else places
            bucket = Bucket(groups, len(groups), width, start, columns)
            here = start + torch.arange(columns.numel()).reshape(columns.shape)
            slots[places[is_own]] = here[is_own]
            self.buckets.append(bucket)
            start = bucket.stop
            order.append(groups)
            own.append(is_own.flatten())
        self._keys, self._slots = keys, slots
        self._order = torch.argsort(torch.cat(order))
        self._is_own = torch.cat(own).unsqueeze(-1)

    @property
    def is_full(self) -> bool:
        """Whether all groups have all columns."""
        return self._keys is None

    @property
    def pairs(self) -> Tensor | None:
        """[2, pairs]: groups and their columns; None for all."""
        if self._keys is None:
            return None
        return torch.stack(
            [self._keys.div(self.root, rounding_mode="floor"), self._keys % self.root]
        )

    def slot(self, group: Tensor, column: Tensor) -> Tensor | None:
        """Where the pairs are stored; None where some pair is not."""
        wanted = group * self.root + column
        if self._keys is None or self._slots is None:
            return wanted
        if not len(self._keys):
            return None if wanted.numel() else wanted
        found = torch.searchsorted(self._keys, wanted).clamp(max=len(self._keys) - 1)
        return self._slots[found] if bool((self._keys[found] == wanted).all()) else None

    def slots_of(self, children: Border, parent: Tensor) -> Tensor:
        """For each slot of a level below that of the same column in the parent group [groups below].

        Any slot for groups without a parent (-1).
        """
        found = []
        for bucket in children.buckets:
            above = bucket.own(parent).unsqueeze(-1).expand(-1, bucket.width)
            columns = bucket.columns
            if columns is None:
                columns = torch.arange(self.root).expand(bucket.count, -1)
            into = torch.zeros_like(columns)
            there = self.slot(above[above >= 0], columns[above >= 0])
            if there is None:
                raise ValueError(
                    "a group is coupled with numbers of the root that its parent lacks"
                )
            into[above >= 0] = there
            found.append(into.reshape(-1))
        return torch.cat(found)

    @property
    def operations(self) -> int:
        """Multiplications of Σ_g B_gᵀ B_g a number of a group, in those of a matrix product."""
        if self.is_full:
            return self.groups * self.root**2
        return SCATTERED * sum(b.count * b.width**2 for b in self.buckets)

    def cleared(self, border: Tensor) -> Tensor:
        """A border [slots, d] with zeros where lists were filled up."""
        return border if self._is_own is None else torch.where(self._is_own, border, 0.0)

    # ---- products ------------------------------------------------------------------------

    def blockwise(self, product: Callable[..., Tensor], border: Tensor, blocks: Tensor) -> Tensor:
        """product(B_g [G, m, d], block of g [G, …]) → [G, m, e] for each group: [slots, e]."""
        return torch.cat([product(b.of(border), b.own(blocks)).flatten(0, 1) for b in self.buckets])

    def gram(self, border: Tensor) -> Tensor:
        """Σ_g B_g B_gᵀ over the width d, at the columns: [root, root]."""
        total = border.new_zeros(self.root**2)
        for bucket in self.buckets:
            block = bucket.of(border)
            if bucket.columns is None:
                flat = block.mT.flatten(0, 1)
                return flat.mT @ flat
            total.scatter_add_(0, self._pairs_in(bucket), (block @ block.mT).flatten())
        return total.unflatten(0, (self.root, self.root))

    def times(self, border: Tensor, x: Tensor) -> Tensor:
        """Σ_m B_g[m] x[column m] of each group, for x […, root]: […, groups, d]."""

        def of(bucket: Bucket) -> Tensor:
            block = bucket.of(border)
            if bucket.columns is None:
                flat = block.mT.flatten(0, 1)
                return (x @ flat.mT).unflatten(-1, (bucket.count, block.shape[-1]))
            return torch.einsum("gmd,...gm->...gd", block, x[..., bucket.columns])

        return self._by_group([of(bucket) for bucket in self.buckets], -2)

    def onto_root(self, border: Tensor, y: Tensor) -> Tensor:
        """Σ_g B_g y_g at the columns, for y […, groups, d]: […, root]."""
        total = y.new_zeros((*y.shape[:-2], self.root))
        for bucket in self.buckets:
            block = bucket.of(border)
            if bucket.columns is None:
                return y.flatten(-2) @ block.mT.flatten(0, 1)
            part = torch.einsum("gmd,...gd->...gm", block, y[..., bucket.groups, :])
            total.index_add_(-1, bucket.columns.flatten(), part.flatten(-2))
        return total

    def times_root(self, border: Tensor, root: Tensor) -> Tensor:
        """Σ_m B_g[m] S[column m, :] at the columns of each group, for S [root, root]: [slots, d]."""
        done = []
        for bucket in self.buckets:
            block = bucket.of(border)
            if bucket.columns is None:
                flat = block.mT.flatten(0, 1) @ root
                shape = (bucket.count, block.shape[-1], self.root)
                return flat.reshape(shape).transpose(-1, -2).flatten(0, 1)
            own = root[bucket.columns.unsqueeze(-1), bucket.columns.unsqueeze(-2)]
            done.append((own @ block).flatten(0, 1))
        return torch.cat(done)

    def between(self, border: Tensor, other: Tensor) -> Tensor:
        """Σ_m B_g[m] ⊗ C_g[m] of two borders [slots, d], [slots, e]: [groups, d, e]."""
        return self._by_group([b.of(border).mT @ b.of(other) for b in self.buckets], 0)

    def outer(self, y: Tensor, x: Tensor) -> Tensor:
        """y_g x[column] for y [groups, d], x [root]: [slots, d]."""
        done = []
        for bucket in self.buckets:
            own = x if bucket.columns is None else x[bucket.columns]
            done.append((own.unsqueeze(-1) * bucket.own(y).unsqueeze(-2)).flatten(0, 1))
        return self.cleared(torch.cat(done))

    def _pairs_in(self, bucket: Bucket) -> Tensor:
        """Where all pairs of columns of each group stand in the root, made each time as there are many."""
        assert bucket.columns is not None
        rows = bucket.columns.unsqueeze(-1) * self.root
        return (rows + bucket.columns.unsqueeze(-2)).flatten()

    def _by_group(self, parts: list[Tensor], dim: int) -> Tensor:
        """What buckets found for their groups, in the order of the groups."""
        if self._order is None:
            return parts[0]
        return torch.cat(parts, dim).index_select(dim, self._order)


def _together(widths: Tensor) -> Iterator[Tensor]:
    """Groups of one width, so many that their pairs of columns are no more than ``AT_ONCE``."""
    for width in torch.unique(widths).tolist():
        groups = (widths == width).nonzero().squeeze(-1)
        yield from groups.split(max(1, AT_ONCE // max(1, width**2)))


def _filled_up(lengths: Tensor) -> Tensor:
    """The widths of the buckets: at most a quarter more, four to each doubling."""
    step = 2 ** (lengths.clamp(min=1).double().log2().floor().long() - 2).clamp(min=0)
    return (lengths + step - 1) // step * step
