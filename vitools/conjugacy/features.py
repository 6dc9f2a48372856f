"""Features of a streamed plate: what the rows of data offer to the discrete latents beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitools.conjugacy.term import Constant, Unsupported
from vitools.conjugacy.terms import Selection


@dataclass
class Feature:
    """F_n of one statistic: a product of data along the plate, or a position on a long axis."""

    key: tuple[str, ...]  # the sites whose indicator it multiplies
    factors: list[Tensor]  # each [N, …]; the product's axes are those after the first, in turn
    axes: list[tuple[int, ...]]  # label positions of each factor's axes within the feature
    shape: tuple[int, ...]
    symmetric: bool  # the outer product of a vector with itself
    index: Tensor | None = None  # [N] positions on a long axis, instead of factors
    weight: Tensor | None = None  # [N], with index

    @property
    def width(self) -> int:
        if self.symmetric:
            return self.shape[0] * (self.shape[0] + 1) // 2
        return math.prod(self.shape)

    def write(self, start: int, stop: int, out: Tensor) -> None:
        """Put F of a chunk into ``out``, [rows, width]."""
        first = self.factors[0][start:stop]
        if self.symmetric:
            # The upper triangle, row by row.
            column, size = 0, self.shape[0]
            for i in range(size):
                torch.mul(first[:, i:], first[:, i : i + 1], out=out[:, column : column + size - i])
                column += size - i
        elif len(self.factors) == 1:
            out.copy_(first.reshape(stop - start, -1))
        else:
            arguments: list[Any] = []
            every = len(self.shape)
            for factor, axes in zip(self.factors, self.axes, strict=True):
                arguments += [factor[start:stop], [every, *axes]]
            product = torch.einsum(*arguments, [every, *range(every)])
            out.copy_(product.reshape(stop - start, -1))


def read_feature(
    key: tuple[str, ...],
    plate: int,
    count: int,
    local: list[Constant],
    selected: list[Selection],
    supports: tuple[int, ...],
) -> tuple[Feature, tuple[int, ...], Any]:
    """The feature in a term's data along the plate, the labels of its axes, and a name for it.

    ``local`` are the constants with the label ``plate`` of an axis of ``count`` rows; ``key`` are the
    sites whose indicators, on the labels ``supports``, multiply them.
    """
    local = [_plate_first(c, plate) for c in local]
    if any(set(c.labels[1:]) & set(supports) for c in local):
        raise Unsupported("data that vary with the value of a discrete site")
    if selected:
        (selection,) = selected
        if any(len(c.labels) > 1 for c in local):
            raise Unsupported("a long axis read beside data with axes of their own")
        weight = None
        for c in local:
            weight = c.tensor if weight is None else weight * c.tensor
        name = (key, "index", id(selection.index), *(id(c.tensor) for c in local))
        feature = Feature(key, [], [], (selection.size,), False, selection.index, weight)
        return feature, (selection.target,), name
    labels: list[int] = []
    for c in local:
        labels += [x for x in c.labels[1:] if x not in labels]
    shape: dict[int, int] = {}
    for c in local:
        shape.update(zip(c.labels[1:], c.tensor.shape[1:], strict=True))
    axes = [tuple(labels.index(x) for x in c.labels[1:]) for c in local]
    symmetric = (
        len(local) == 2
        and local[0].tensor.data_ptr() == local[1].tensor.data_ptr()
        and local[0].tensor.stride() == local[1].tensor.stride()
        and axes == [(0,), (1,)]
    )
    factors = [c.tensor for c in local]
    if not factors:
        factors = [torch.ones((), dtype=torch.float64).expand(count)]
        axes = [()]
    feature = Feature(key, factors, axes, tuple(shape[x] for x in labels), symmetric)
    name = (key, *((c.tensor.data_ptr(), c.tensor.stride()) for c in local), tuple(axes))
    return feature, tuple(labels), name


def _plate_first(constant: Constant, plate: int) -> Constant:
    axis = constant.labels.index(plate)
    labels = (plate, *(x for x in constant.labels if x != plate))
    return Constant(constant.tensor.movedim(axis, 0), labels)
