"""Nodes of the graph of messages: statistics, data, and cached functions of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Source(Protocol):
    """Holds the current statistics of a block; ``version`` grows whenever they change."""

    version: int
    moments: dict[Any, Tensor]


class Node:
    """A tensor that depends on statistics; ``stamp`` is the latest version below it."""

    def stamp(self) -> int:
        return 0

    def value(self) -> Tensor:
        raise NotImplementedError


class Fixed(Node):
    def __init__(self, tensor: Tensor):
        self.tensor = tensor

    def value(self) -> Tensor:
        return self.tensor


class StatisticNode(Node):
    def __init__(self, source: Source, key: Any):
        self.source, self.key = source, key

    def stamp(self) -> int:
        return self.source.version

    def value(self) -> Tensor:
        return self.source.moments[self.key]


class Step(Node):
    """A function of other nodes, cached until one of them moves."""

    def __init__(self, parents: Sequence[Node]):
        self.parents = parents
        self._computed_at = -1
        self._value: Tensor | None = None

    def stamp(self) -> int:
        return max(parent.stamp() for parent in self.parents)

    @property
    def is_current(self) -> bool:
        return self._value is not None and self.stamp() <= self._computed_at

    def value(self) -> Tensor:
        stamp = self.stamp()
        if self._value is None or stamp > self._computed_at:
            self._value = self.compute([parent.value() for parent in self.parents])
            self._computed_at = stamp
        return self._value

    def compute(self, values: list[Tensor]) -> Tensor:
        raise NotImplementedError


class Einsum(Step):
    def __init__(self, parents: Sequence[Node], equation: str):
        super().__init__(parents)
        self.equation = equation

    def compute(self, values: list[Tensor]) -> Tensor:
        return torch.einsum(self.equation, *values)


class Read(Step):
    """Read an axis at data positions: x[…, a, …] → x[index] with the index's axes first."""

    def __init__(self, parent: Node, axis: int, index: Tensor):
        super().__init__([parent])
        self.axis, self.shape = axis, tuple(index.shape)
        self.index = index.reshape(-1)

    def compute(self, values: list[Tensor]) -> Tensor:
        moved = values[0].movedim(self.axis, 0)
        picked = moved.index_select(0, self.index)
        return picked.reshape(*self.shape, *moved.shape[1:])


class Add(Step):
    """Add up by position: x[read…, rest…] → y[kept…, target, rest…]."""

    def __init__(self, parent: Node, cell: Tensor, lead: Sequence[int], rest: Sequence[int]):
        super().__init__([parent])
        self.cell, self.lead, self.rest = cell.reshape(-1), tuple(lead), tuple(rest)

    def compute(self, values: list[Tensor]) -> Tensor:
        width = math.prod(self.rest)
        flat = values[0].new_zeros(math.prod(self.lead), width)
        flat.index_add_(0, self.cell, values[0].reshape(-1, width))
        return flat.reshape(*self.lead, *self.rest)
