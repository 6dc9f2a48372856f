"""Features of a streamed plate: what the rows of data offer to the latents beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Constant, Unsupported
from vitools.calculus.densities.closed_terms import Selection


@dataclass
class Feature:
    """F_n of one statistic: a product of data along the plate, or a position on a long axis."""

    count: int
    factors: list[Tensor]  # each [N, …]; the product's axes are those after the first, in turn
    axes: list[tuple[int, ...]]  # label positions of each factor's axes within the feature
    shape: tuple[int, ...]
    symmetric: bool = False  # the outer product of a vector with itself
    index: Tensor | None = None  # [N] positions on a long axis, instead of factors
    weight: Tensor | None = None  # [N], with index

    @property
    def is_constant(self) -> bool:
        """One for every row."""
        return not self.factors and self.index is None

    @property
    def width(self) -> int:
        if self.symmetric:
            return self.shape[0] * (self.shape[0] + 1) // 2
        return math.prod(self.shape)

    def write(self, start: int, stop: int, out: Tensor) -> None:
        """Put F of a chunk into ``out``, [rows, width]."""
        if self.is_constant:
            out.fill_(1.0)
        elif self.symmetric:
            # The upper triangle, row by row.
            first = self.factors[0][start:stop]
            column, size = 0, self.shape[0]
            for i in range(size):
                torch.mul(first[:, i:], first[:, i : i + 1], out=out[:, column : column + size - i])
                column += size - i
        elif len(self.factors) == 1 and self.axes[0] == tuple(range(len(self.shape))):
            out.copy_(self.factors[0][start:stop].reshape(stop - start, -1))
        else:
            arguments: list[Any] = []
            every = len(self.shape)
            for factor, axes in zip(self.factors, self.axes, strict=True):
                arguments += [factor[start:stop], [every, *axes]]
            product = torch.einsum(*arguments, [every, *range(every)])
            out.copy_(product.reshape(stop - start, -1))

    def rows(self, start: int, stop: int) -> Tensor:
        """F of a chunk, [rows, *shape]."""
        out = torch.empty(stop - start, math.prod(self.shape), dtype=torch.float64)
        self.write(start, stop, out)
        return out.reshape(stop - start, *self.shape)

    def packed(self, table: Tensor) -> Tensor:
        """η as [*shape, cells] → [width, cells]: equal products of a symmetric feature count once."""
        if not self.symmetric:
            return table.reshape(self.width, table.shape[-1])
        size = self.shape[0]
        i, j = torch.triu_indices(size, size)
        half = torch.where(i == j, 0.5, 1.0).to(torch.float64).unsqueeze(-1)
        return (table[i, j] + table[j, i]) * half

    def unpacked(self, sums: Tensor) -> Tensor:
        """Sums as [width, cells] → [*shape, cells]."""
        if not self.symmetric:
            return sums.reshape(*self.shape, sums.shape[-1])
        size = self.shape[0]
        position = torch.empty(size, size, dtype=torch.long)
        i, j = torch.triu_indices(size, size)
        position[i, j] = position[j, i] = torch.arange(len(i))
        return sums[position]


@dataclass(frozen=True)
class ReadFeature:
    """A feature beside a statistic with the labels ``statistic``.

    The feature's axes are those that it brings along (``outer``), then those that it shares with
    the statistic, at the statistic's axes ``along``.
    """

    feature: Feature
    outer: tuple[int, ...]
    along: tuple[int, ...]
    name: Any


def read_feature(
    plate: int,
    count: int,
    local: Sequence[Constant],
    selected: Sequence[Selection],
    statistic: Sequence[int],
) -> ReadFeature:
    """The feature in a term's data along the plate.

    ``local`` are the constants with the label ``plate`` of an axis of ``count`` rows; the
    statistic that they multiply has the labels ``statistic`` besides.
    """
    local = [_plate_first(c, plate) for c in local]
    if selected:
        (selection,) = selected
        if any(len(c.labels) > 1 for c in local):
            raise Unsupported("a long axis read beside data with axes of their own")
        weight = None
        for c in local:
            weight = c.tensor if weight is None else weight * c.tensor
        name = ("index", id(selection.index), *(id(c.tensor) for c in local))
        feature = Feature(count, [], [], (selection.size,), False, selection.index, weight)
        return ReadFeature(feature, (selection.target,), (), name)
    sizes: dict[int, int] = {}
    for c in local:
        sizes.update(zip(c.labels[1:], c.tensor.shape[1:], strict=True))
    outer = tuple(label for label in sizes if label not in statistic)
    shared = tuple(label for label in sizes if label in statistic)
    labels = outer + shared
    axes = [tuple(labels.index(x) for x in c.labels[1:]) for c in local]
    symmetric = (
        len(local) == 2
        and not shared
        and _same(local[0].tensor, local[1].tensor)
        and axes == [(0,), (1,)]
    )
    shape = tuple(sizes[x] for x in labels)
    feature = Feature(count, [c.tensor for c in local], axes, shape, symmetric)
    name = (*((c.tensor.data_ptr(), *_layout(c.tensor)) for c in local), tuple(axes))
    return ReadFeature(feature, outer, tuple(statistic.index(x) for x in shared), name)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and _layout(a) == _layout(b)


def _layout(tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(tensor.shape), tensor.stride()


def _plate_first(constant: Constant, plate: int) -> Constant:
    axis = constant.labels.index(plate)
    labels = (plate, *(x for x in constant.labels if x != plate))
    return Constant(constant.tensor.movedim(axis, 0), labels)
