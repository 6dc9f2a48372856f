"""Contractions of a term with one statistic left out, as a graph of cached pairwise steps.

A term is c · einsum(constants, selections, statistics). The message to a statistic is the einsum
of the others. Every message is split into pairwise contractions on the cheapest path; equal steps
are shared between messages, and a step is computed again only when a statistic below it moved. So
the statistics of local latents that several globals need are formed once per sweep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from vitools.calculus.densities.log_joint import Selection


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


class Statistic(Node):
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


@dataclass(frozen=True)
class Operand:
    """A node and the label of each of its axes."""

    node: Node
    labels: tuple[int, ...]


class Contractor:
    """Builds messages; equal steps over equal nodes become one."""

    def __init__(self) -> None:
        self._steps: dict[Any, Node] = {}
        self._fixed: dict[int, Fixed] = {}
        self._statistics: dict[Any, Statistic] = {}

    def fixed(self, tensor: Tensor) -> Node:
        key = id(tensor)
        if key not in self._fixed:
            self._fixed[key] = Fixed(tensor)
        return self._fixed[key]

    def statistic(self, source: Source, key: Any) -> Node:
        name = (id(source), key)
        if name not in self._statistics:
            self._statistics[name] = Statistic(source, key)
        return self._statistics[name]

    def message(
        self,
        operands: Sequence[Operand],
        selections: Sequence[Selection],
        output: Sequence[int],
        sizes: dict[int, int],
    ) -> Operand:
        """Contract to the output's labels, as far as the operands vary along them."""
        parts = list(operands)
        scatter: list[Selection] = []
        for selection in selections:
            readers = [p for p in parts if selection.target in p.labels]
            parts = [p for p in parts if selection.target not in p.labels]
            parts += [self._read(p, selection) for p in readers]
            if selection.target in output:
                scatter.append(selection)
        scattered = {s.target for s in scatter}
        wanted = {x for x in output if x not in scattered}
        for selection in scatter:
            wanted |= set(selection.labels)
        if scatter:
            # Every axis that the selections read must be there before adding up by position.
            needed = sorted({x for s in scatter for x in s.labels})
            have = {x for p in parts for x in p.labels}
            for label in needed:
                if label not in have:
                    ones = torch.ones(sizes[label], dtype=torch.float64)
                    parts.append(Operand(self.fixed(ones), (label,)))
        result = self._pairwise(parts, wanted, sizes)
        if scatter:
            result = self._add(result, scatter, output, sizes)
        return result

    def _pairwise(self, parts: list[Operand], wanted: set[int], sizes: dict[int, int]) -> Operand:
        if not parts:
            return Operand(self.fixed(torch.ones((), dtype=torch.float64)), ())
        keys = tuple(tuple(sorted(p.labels)) for p in parts)
        relevant = {x: sizes[x] for key in keys for x in key}
        path = cheapest_path(keys, frozenset(wanted), tuple(sorted(relevant.items())))
        parts = list(parts)
        if len(parts) == 1 and not set(parts[0].labels) <= wanted:
            return self._einsum(parts, [x for x in parts[0].labels if x in wanted])
        for i, j in path:
            a, b = parts[i], parts[j]
            parts = [p for k, p in enumerate(parts) if k not in (i, j)]
            later = wanted | {x for p in parts for x in p.labels}
            labels = list(dict.fromkeys(x for x in (*a.labels, *b.labels) if x in later))
            parts.append(self._einsum([a, b], labels))
        return parts[0]

    def _einsum(self, parts: list[Operand], labels: Sequence[int]) -> Operand:
        letters: dict[int, str] = {}
        for part in parts:
            for label in part.labels:
                letters.setdefault(label, chr(ord("a") + len(letters)))
        inputs = ",".join("".join(letters[x] for x in p.labels) for p in parts)
        equation = inputs + "->" + "".join(letters[x] for x in labels)
        key = (tuple(id(p.node) for p in parts), equation)
        if key not in self._steps:
            nodes = [p.node for p in parts]
            step = Einsum(nodes, equation)
            known = all(isinstance(node, Fixed) for node in nodes)
            self._steps[key] = Fixed(step.value()) if known else step
        return Operand(self._steps[key], tuple(labels))

    def _read(self, part: Operand, selection: Selection) -> Operand:
        axis = part.labels.index(selection.target)
        rest = tuple(x for x in part.labels if x != selection.target)
        key = (id(part.node), "read", id(selection.index), axis)
        if key not in self._steps:
            self._steps[key] = Read(part.node, axis, selection.index)
        shared = [x for x in selection.labels if x in rest]
        result = Operand(self._steps[key], (*selection.labels, *rest))
        if not shared:
            return result
        # The statistic varies along an axis of the index too: keep the diagonal.
        labels = list(dict.fromkeys(result.labels))
        return self._einsum([result], labels)

    def _add(
        self,
        part: Operand,
        selections: list[Selection],
        output: Sequence[int],
        sizes: dict[int, int],
    ) -> Operand:
        read = sorted({x for s in selections for x in s.labels})
        rest = [x for x in part.labels if x not in read]
        ordered = self._einsum([part], [*read, *rest])
        kept = [x for x in read if x in output]
        cell = torch.zeros([sizes[x] for x in read], dtype=torch.long)
        for label in kept:
            position = torch.arange(sizes[label])
            cell = cell * sizes[label] + position.reshape([-1 if x == label else 1 for x in read])
        for selection in selections:
            order = sorted(range(len(selection.labels)), key=lambda i: selection.labels[i])
            view = [sizes[x] if x in selection.labels else 1 for x in read]
            cell = cell * selection.size + selection.index.permute(order).reshape(view)
        lead = [sizes[x] for x in kept] + [s.size for s in selections]
        step = Add(ordered.node, cell, lead, [sizes[x] for x in rest])
        return Operand(step, (*kept, *(s.target for s in selections), *rest))


@lru_cache(maxsize=10_000)
def cheapest_path(
    keys: tuple[tuple[int, ...], ...],
    wanted: frozenset[int],
    sizes: tuple[tuple[int, int], ...],
) -> tuple[tuple[int, int], ...]:
    """Pairs to contract in turn (the result goes to the end), by exhaustive search up to five
    operands and greedily above."""
    size = dict(sizes)

    def cost(labels: frozenset[int]) -> float:
        return math.prod(size[x] for x in labels)

    def search(parts: tuple[frozenset[int], ...]) -> tuple[float, tuple[tuple[int, int], ...]]:
        if len(parts) < 2:
            return 0.0, ()
        best: tuple[float, tuple[tuple[int, int], ...]] | None = None
        pairs = [(i, j) for i in range(len(parts)) for j in range(i + 1, len(parts))]
        if len(parts) > 5:
            pairs = [min(pairs, key=lambda p: cost(parts[p[0]] | parts[p[1]]))]
        for i, j in pairs:
            rest = tuple(p for k, p in enumerate(parts) if k not in (i, j))
            union = parts[i] | parts[j]
            later = wanted.union(*rest)
            total, path = search((*rest, union & later))
            total += cost(union)
            if best is None or total < best[0]:
                best = total, ((i, j), *path)
        assert best is not None
        return best

    return search(tuple(frozenset(key) for key in keys))[1]
