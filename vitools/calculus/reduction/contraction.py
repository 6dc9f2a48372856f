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
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.densities.closed_terms import Selection
from vitools.calculus.reduction.nodes import Add, Einsum, Fixed, Node, Read, Source, StatisticNode
from vitools.calculus.reduction.sparse import Either, Pattern, RowByRow, SparseProduct


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
        self._statistics: dict[Any, StatisticNode] = {}
        self._patterns: dict[Any, Pattern] = {}

    def fixed(self, tensor: Tensor) -> Node:
        key = id(tensor)
        if key not in self._fixed:
            self._fixed[key] = Fixed(tensor)
        return self._fixed[key]

    def _ones(self, label: int, sizes: dict[int, int]) -> Operand:
        key = ("ones", sizes[label])
        if key not in self._steps:
            self._steps[key] = Fixed(torch.ones(sizes[label], dtype=torch.float64))
        return Operand(self._steps[key], (label,))

    def statistic(self, source: Source, key: Any) -> Node:
        name = (id(source), key)
        if name not in self._statistics:
            self._statistics[name] = StatisticNode(source, key)
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
        if read_together(parts, selections, output):
            return self._over_rows(parts, selections, output, sizes)
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
                    parts.append(self._ones(label, sizes))
        result = self._pairwise(parts, wanted, sizes)
        if scatter:
            result = self._add(result, scatter, output, sizes)
        return result

    # ---- rows that read several plates ---------------------------------------------------------

    def _over_rows(
        self,
        parts: Sequence[Operand],
        selections: Sequence[Selection],
        output: Sequence[int],
        sizes: dict[int, int],
    ) -> Operand:
        """Sums over rows n of which every selection reads another plate, without what is as long as
        the rows and as wide as a statistic (:mod:`vitools.calculus.reduction.sparse`)."""
        (row,) = selections[0].labels
        of_rows = [p for p in parts if row in p.labels]
        if len(selections) > 2 or row in output or any(len(p.labels) > 1 for p in of_rows):
            return self._row_by_row(parts, selections, output, sizes)
        weights = self._pairwise(of_rows or [self._ones(row, sizes)], {row}, sizes).node
        away = [p for p in parts if row not in p.labels]
        ways, needs = [], []
        for i, selection in enumerate(selections):
            other = selections[1 - i]
            if other.target in output:
                continue
            beyond = [p for p in away if other.target in p.labels]
            beside = [p for p in away if other.target not in p.labels]
            asked = {x for p in beside for x in p.labels} | {*output, other.target}
            x = self._pairwise(beyond, asked, sizes)
            rest = [label for label in x.labels if label != other.target]
            x = self._einsum([x], [other.target, *rest])
            product = self._product(x.node, weights, selection, other)
            found = [Operand(product, (selection.target, *rest)), *beside]
            ways.append(self._pairwise(found, set(output), sizes))
            needs.append(product)
        if len(ways) == 1:
            return ways[0]
        second = self._einsum([ways[1]], ways[0].labels).node
        return Operand(Either([ways[0].node, second], needs), ways[0].labels)

    def _product(self, x: Node, weights: Node, into: Selection, read: Selection) -> SparseProduct:
        which = (id(into.index), id(read.index))
        if which not in self._patterns:
            self._patterns[which] = Pattern(into.index, into.size, read.index, read.size)
        key = ("product", id(x), id(weights), *which)
        if key not in self._steps:
            self._steps[key] = SparseProduct(x, weights, self._patterns[which])
        step = self._steps[key]
        assert isinstance(step, SparseProduct)
        return step

    def _row_by_row(
        self,
        parts: Sequence[Operand],
        selections: Sequence[Selection],
        output: Sequence[int],
        sizes: dict[int, int],
    ) -> Operand:
        (row,) = selections[0].labels
        targets = {s.target: s for s in selections}
        added = [s for s in selections if s.target in output]
        rows = torch.arange(sizes[row])
        kept = dict.fromkeys(
            x for p in parts for x in p.labels if x in output and x not in targets and x != row
        )
        lead = [row] if row in output or added else []
        nodes, reads, inputs = [], [], []
        letters: dict[int, str] = {}
        if lead and not any(row in p.labels or targets.keys() & set(p.labels) for p in parts):
            parts = [*parts, self._ones(row, sizes)]
        for part in parts:
            first = next((x for x in part.labels if x == row or x in targets), None)
            labels = list(part.labels)
            index = None
            if first is not None:
                labels = [first, *(x for x in part.labels if x != first)]
                part = self._einsum([part], labels)
                index = rows if first == row else targets[first].index
                labels[0] = row
            for x in labels:
                letters.setdefault(x, chr(ord("a") + len(letters)))
            nodes.append(part.node)
            reads.append(index)
            inputs.append("".join(letters[x] for x in labels))
        out = [*lead, *kept]
        equation = ",".join(inputs) + "->" + "".join(letters[x] for x in out)
        into = (added[0].index, added[0].size) if added else None
        key = (
            "rows",
            tuple(map(id, nodes)),
            equation,
            *(id(s.index) for s in selections),
            bool(added),
        )
        if key not in self._steps:
            self._steps[key] = RowByRow(nodes, reads, equation, sizes[row], into, not lead)
        labels = [added[0].target, *kept] if added else out
        return Operand(self._steps[key], tuple(labels))

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


def read_together(
    parts: Sequence[Operand], selections: Sequence[Selection], output: Sequence[int]
) -> bool:
    """Whether every selection is of the same rows, each part reads one plate of theirs at most, and
    the output is of one of those plates, of the rows, or of neither."""
    if len(selections) < 2 or len(selections[0].labels) != 1:
        return False
    (row,) = selections[0].labels
    special = {row, *(s.target for s in selections)}
    return (
        all(s.labels == (row,) for s in selections)
        and len(special) == len(selections) + 1
        and all(len(special & set(p.labels)) <= 1 for p in parts)
        and len(special & set(output)) <= 1
        and all({s.target} & {*output, *(x for p in parts for x in p.labels)} for s in selections)
    )


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
