"""One component of the natural parameters of a streamed block, and its pass over the plate.

The component of row n is η_n = Σ_f F_nf η_f over the features of the statistics in it. Features
that vary with none of the statistic's own axes stand side by side in one matrix; the others are
multiplied elementwise, those of a long axis are read by position.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.blocks.block import DenseBlock
from vitools.calculus.streams.features import Feature

KEEP_FEATURES = 256 << 20  # bytes of features written out once rather than in every sweep


@dataclass
class StreamedStatistic:
    """Σ_n m_n F_nf E t_n for one statistic ``key`` of the row and one feature."""

    key: Any
    component: int
    feature: Feature
    along: tuple[int, ...]  # axes of the statistic (the plate's left out) that the feature shares
    name: Any  # equal for equal features

    @property
    def outer_shape(self) -> tuple[int, ...]:
        return self.feature.shape[: len(self.feature.shape) - len(self.along)]


class Component:
    """Which features the component is made of: fixed before the first sweep."""

    def __init__(
        self,
        number: int,
        row: DenseBlock,
        axis: int,
        count: int,
        statistics: Mapping[int, StreamedStatistic],
    ):
        self.row, self.axis, self.count = row, axis, count
        self.order = list(statistics)
        self.shape = row.component_shape(number)
        self.size = math.prod(self.shape)
        mine = {k: s for k, s in statistics.items() if s.component == number}
        self.elementwise = {k: s for k, s in mine.items() if s.along}
        self.groups: list[tuple[Feature, dict[int, StreamedStatistic]]] = []
        names: dict[Any, dict[int, StreamedStatistic]] = {}
        for k, s in mine.items():
            if s.along:
                continue
            if s.name not in names:
                names[s.name] = {}
                self.groups.append((s.feature, names[s.name]))
            names[s.name][k] = s
        self.matrix = [(f, users) for f, users in self.groups if f.index is None]
        self.positioned = [(f, users) for f, users in self.groups if f.index is not None]
        varying = [f for f, _ in self.groups if not f.is_constant]
        self.is_shared = not varying and not self.elementwise
        self.width = sum(feature.width for feature, _ in self.matrix)
        self._written: Tensor | None = None

    @property
    def cells(self) -> int:
        """Numbers a row takes up in a pass."""
        wide = sum(math.prod(s.feature.shape) for s in self.elementwise.values())
        return self.width + wide + 2 * self.size

    def write_once(self) -> None:
        if self.width and not self.is_shared and 8 * self.width * self.count <= KEEP_FEATURES:
            self._written = self.rows(0, self.count)

    def rows(self, start: int, stop: int) -> Tensor:
        """The matrix of features of a chunk, [rows, width]."""
        if self._written is not None:
            return self._written[start:stop]
        rows = torch.empty(stop - start, self.width, dtype=torch.float64)
        column = 0
        for feature, _ in self.matrix:
            feature.write(start, stop, rows[:, column : column + feature.width])
            column += feature.width
        return rows

    def loaded(self, natural: tuple[Tensor, ...], idle: frozenset[Any]) -> Pass:
        return Pass(self, dict(zip(self.order, natural, strict=True)), idle)

    def embedded(self, statistic: StreamedStatistic, eta: Tensor) -> Tensor:
        """[outer…, own…] → [outer…, cells]."""
        outer = statistic.outer_shape
        shaped = eta.reshape((*outer, *self.row.statistic_shape(statistic.key)))
        return self.row.embed(statistic.key, shaped).reshape((*outer, self.size))

    def extracted(self, statistic: StreamedStatistic, sums: Tensor) -> Tensor:
        """[outer…, cells] → [outer…, own…]."""
        shaped = sums.reshape((*sums.shape[:-1], *self.shape))
        return self.row.extract(statistic.key, shaped).squeeze(sums.dim() - 1 + self.axis)


class Pass:
    """One pass over the plate with given natural parameters; sums are collected on the way."""

    def __init__(self, component: Component, eta: dict[int, Tensor], idle: frozenset[Any]):
        self.component, self.eta = component, eta
        tables = [self._table(users) for _, users in component.groups]
        pairs = list(zip(component.groups, tables, strict=True))
        weights = [f.packed(table) for (f, _), table in pairs if f.index is None]
        self.weights = (
            torch.cat(weights) if weights else torch.zeros(0, component.size, dtype=torch.float64)
        )
        self.positions = [table.contiguous() for (f, _), table in pairs if f.index is not None]
        self.shared = (
            self._shaped(self.weights.sum(0, keepdim=True)) if component.is_shared else None
        )
        # A number of whatever batch of states the natural parameters are: sums must be of it too.
        zero = torch.zeros((), dtype=torch.float64)
        for value in eta.values():
            zero = zero + torch.zeros_like(value.flatten()[0])
        self.zero = zero
        self.sums: Tensor | float = 0.0
        self.added = [
            None if idle >= set(users) else zero.new_zeros(f.shape[0], component.size)
            for f, users in component.positioned
        ]
        self.products: dict[int, Tensor] = {}

    def _table(self, users: dict[int, StreamedStatistic]) -> Tensor:
        parts = [self.component.embedded(s, self.eta[k]) for k, s in users.items()]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def natural(self, start: int, stop: int) -> Tensor:
        """η of a chunk, [rows, *shape]; [1, *shape] where all rows share it."""
        c = self.component
        if self.shared is not None:
            return self.shared
        total: Tensor | float = c.rows(start, stop) @ self.weights if c.width else 0.0
        for (feature, _), table in zip(c.positioned, self.positions, strict=True):
            assert feature.index is not None
            part = table.index_select(0, feature.index[start:stop])
            if feature.weight is not None:
                part = part * feature.weight[start:stop].unsqueeze(1)
            total = part + total
        for key, statistic in c.elementwise.items():
            rows = statistic.feature.rows(start, stop)
            outer, own = self._labels(statistic)
            eta = self.eta[key]
            message = torch.einsum(
                rows,
                [0, *outer, *(own[i] for i in statistic.along)],
                eta,
                [*outer, *own],
                [0, *own],
            )
            shaped = message.unsqueeze(1 + c.axis)
            embedded = c.row.embed(statistic.key, shaped)
            total = embedded.reshape(stop - start, c.size) + total
        assert isinstance(total, Tensor)
        return self._shaped(total)

    def _labels(self, statistic: StreamedStatistic) -> tuple[list[int], list[int]]:
        """Einsum labels of the feature's outer axes and of the statistic's own; 0 is the plate."""
        outer = len(statistic.outer_shape)
        own = len(self.component.row.statistic_shape(statistic.key)) - 1
        return list(range(1, 1 + outer)), list(range(1 + outer, 1 + outer + own))

    def _shaped(self, flat: Tensor) -> Tensor:
        """[rows, cells] → [rows, *shape] without the plate's own axis of one."""
        c = self.component
        shape = (*c.shape[: c.axis], *c.shape[c.axis + 1 :])
        return flat.reshape((-1, *shape))

    def add(self, start: int, stop: int, mean: Tensor, weight: Tensor | None) -> None:
        """Add the chunk's F ⊗ mean to the sums."""
        c = self.component
        if weight is not None:
            mean = mean * weight.reshape(*weight.shape, *(1,) * (mean.dim() - weight.dim()))
        repeats = (stop - start) // len(mean)
        flat = mean.reshape(len(mean), c.size)
        if c.is_shared:
            if c.width:
                self.sums = self.sums + flat.sum(0, keepdim=True) * repeats
            return
        if repeats > 1:
            flat = flat.expand(stop - start, c.size)
        if c.width:
            self.sums = self.sums + c.rows(start, stop).T @ flat
        for (feature, _), target in zip(c.positioned, self.added, strict=True):
            if target is None:
                continue
            assert feature.index is not None
            part = flat
            if feature.weight is not None:
                part = flat * feature.weight[start:stop].unsqueeze(1)
            target.index_add_(0, feature.index[start:stop], part)
        for key, statistic in c.elementwise.items():
            rows = statistic.feature.rows(start, stop)
            outer, own = self._labels(statistic)
            found = c.extracted(statistic, flat)
            along = [own[i] for i in statistic.along]
            product = torch.einsum(rows, [0, *outer, *along], found, [0, *own], [*outer, *own])
            self.products[key] = self.products[key] + product if key in self.products else product

    def finished(self) -> tuple[dict[int, Tensor], Tensor]:
        """The statistics of the component, and Σ_f η_f·T_f."""
        c = self.component
        moments: dict[int, Tensor] = {}
        energy = self.zero
        if c.width:
            assert isinstance(self.sums, Tensor)
            sums = self.sums.expand(c.width, c.size) if c.is_shared else self.sums
            energy = energy + (self.weights * sums).sum()
            start = 0
            for feature, users in c.matrix:
                table = feature.unpacked(sums[start : start + feature.width])
                start += feature.width
                moments.update({k: c.extracted(s, table) for k, s in users.items()})
        for (_, users), table, target in zip(c.positioned, self.positions, self.added, strict=True):
            if target is None:
                target = torch.zeros_like(table)
            energy = energy + (table * target).sum()
            moments.update({k: c.extracted(s, target) for k, s in users.items()})
        for key, product in self.products.items():
            energy = energy + (self.eta[key] * product).sum()
            moments[key] = product
        return moments, energy
