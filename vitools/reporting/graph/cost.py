"""The price of an arrangement of nodes on a grid: what makes a drawing of a graph hard to read.

Crossings, lines through nodes, uphill arrows and length cost a little; a plate whose bounding
rectangle holds a foreign node costs more than everything else together. Prices of many candidates
are computed at once, and a move is compared by the terms it can change.

Positions are (column, row), rows downwards. Neighbours in a row stand two columns apart, so that
a node can also stand over the middle of two others.
"""

from collections.abc import Callable, Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cost", "Positions"]

Positions = NDArray[np.float32]
"""Columns and rows, shape [..., nodes, 2]."""

_FORBIDDEN = 1000.0
_CHUNK = 2_000_000  # numbers held at once while candidates are compared


class Cost:
    """Price of many candidate arrangements at once: positions [candidates, nodes, 2] → [candidates].

    ``forbidden`` counts by how much the rules are broken: zero is a drawing that can be made.
    """

    def __init__(
        self,
        size: int,
        edges: Sequence[tuple[int, int]],
        plates: Sequence[Sequence[int]],
        kin: Sequence[tuple[int, int]],
    ) -> None:
        self.size = size
        self.edges = np.array(edges, dtype=int).reshape(-1, 2)
        self.kin = np.array(kin, dtype=int).reshape(-1, 2)
        self.sequential = np.array([tuple(edge) in set(kin) for edge in edges], dtype=bool)
        self.plates = [np.array(sorted(plate)) for plate in plates]
        members = [set(plate) for plate in plates]
        self.outside = [np.array(sorted(set(range(size)) - m), dtype=int) for m in members]
        self.passing = [
            np.array([k for k, (u, v) in enumerate(edges) if u not in m and v not in m], dtype=int)
            for m in members
        ]
        self.apart = _pairs(len(plates), lambda i, j: not members[i] & members[j])
        self.nodes = _pairs(size, lambda i, j: True)
        self.crossings = _pairs(len(edges), lambda i, j: not set(edges[i]) & set(edges[j]))
        strangers = [(k, v) for k, e in enumerate(edges) for v in range(size) if v not in e]
        self.strangers = np.array(strangers, dtype=int).reshape(-1, 2).T
        blocks = [np.array([v]) for v in range(size)]
        blocks += [plate for plate in self.plates if len(plate) > 1] + list(self.edges)
        self.blocks = [(block, self.around(block)) for block in blocks]

    def around(self, block: NDArray) -> "Cost":
        """The same cost less terms that moving ``block`` cannot change: differences agree."""
        part = copy(self)
        moving = np.zeros(self.size, dtype=bool)
        moving[block] = True
        arrows = moving[self.edges].any(1)
        part.nodes = self.nodes[:, moving[self.nodes].any(0)]
        part.crossings = self.crossings[:, arrows[self.crossings].any(0)]
        edge, node = self.strangers
        part.strangers = self.strangers[:, arrows[edge] | moving[node]]
        return part

    @property
    def pairs(self) -> int:
        """How many pairs of arrows and nodes are compared for one candidate."""
        return len(self.crossings[0]) + len(self.strangers[0]) + len(self.nodes[0])

    def __call__(self, positions: Positions) -> NDArray[np.float32]:
        """Total cost of each candidate."""
        widest = max(1, len(self.crossings[0]), len(self.strangers[0]), len(self.nodes[0]))
        step = max(1, _CHUNK // widest)
        if len(positions) > step:
            parts = [self(positions[i : i + step]) for i in range(0, len(positions), step)]
            return np.concatenate(parts)
        x, y = _coordinates(positions)
        return _FORBIDDEN * self.forbidden(positions) + self._shape(x, y) + self._lines(x, y)

    def forbidden(self, positions: Positions) -> NDArray[np.float32]:
        """Overlap of nodes with nodes, of plates with foreign nodes, and of separate plates."""
        x, y = _coordinates(positions)
        i, j = self.nodes
        near = np.clip(1 - np.abs(x[i] - x[j]), 0, None)
        total = (near * (y[i] == y[j])).sum(0)
        boxes = self._boxes(x, y)
        for (left, right, top, bottom), outside in zip(boxes, self.outside, strict=True):
            u, v = x[outside], y[outside]
            inside = np.clip(np.minimum(u - left, right - u) + 1, 0, None)
            total += (inside * ((v >= top) & (v <= bottom))).sum(0)
        for p, q in zip(*self.apart, strict=True):
            (l1, r1, t1, b1), (l2, r2, t2, b2) = boxes[p], boxes[q]
            wide = np.clip(np.minimum(r1 - l2, r2 - l1) + 1, 0, None)
            total += wide * ((t1 <= b2) & (t2 <= b1))
        return total

    def _boxes(self, x: NDArray, y: NDArray) -> list[tuple[NDArray, NDArray, NDArray, NDArray]]:
        """Left, right, top and bottom of each plate."""
        sides = []
        for plate in self.plates:
            u, v = x[plate], y[plate]
            sides.append((u.min(0), u.max(0), v.min(0), v.max(0)))
        return sides

    def _shape(self, x: NDArray, y: NDArray) -> NDArray:
        """Short downward arrows, or rightward ones; a compact page; sites in the model's order."""
        u, v = self.edges.T
        dx, dy = x[v] - x[u], y[v] - y[u]
        wide = np.abs(dx)
        near = np.minimum(wide, 1)  # over the middle of two is cheaper than over one of them
        step = self.sequential[:, None]
        down = 0.2 * near + 0.5 * near**2 + 0.2 * (wide - near) + 0.6 * (dy - 1) + 2 * step
        along = np.where(dx > 0, 0.7 + 0.5 * wide - 0.5 * step, 3 + wide)
        up = 2.5 + 0.6 * wide - 0.3 * dy
        arrows = np.where(dy > 0, down, np.where(dy == 0, along, up)).sum(0)
        width, height = np.ptp(x, axis=0), np.ptp(y, axis=0)
        page = 0.25 * (width + height) + np.clip(width - 9, 0, None)
        page += 2 * np.clip(height - 5, 0, None)
        i, j = self.nodes
        disorder = ((y[i] == y[j]) & (x[i] > x[j])).sum(0)
        i, j = self.kin.T
        uneven = ((y[i] != y[j]) | (x[i] >= x[j])).sum(0)
        total = arrows + page + 0.05 * disorder + 4 * uneven
        for left, right, top, bottom in self._boxes(x, y):
            total += 0.3 * (right - left + bottom - top)
        return total

    def _lines(self, x: NDArray, y: NDArray) -> NDArray:
        """Arrows that cross each other, run through nodes, or run through plates of others."""
        total = np.zeros(x.shape[1], dtype=np.float32)
        u, v = self.edges.T
        x0, y0 = x[u], y[u]
        dx, dy = x[v] - x0, y[v] - y0
        if self.crossings.size:  # ends of each arrow on both sides of the other's line
            e, f = self.crossings
            ex, ey, fx, fy = dx[e], dy[e], dx[f], dy[f]
            px, py = x0[f] - x0[e], y0[f] - y0[e]
            turn, one, two = ex * fy - ey * fx, ex * py - ey * px, fx * py - fy * px
            total += 2.5 * ((one * (one + turn) < 0) & (two * (two + turn) < 0)).sum(0)
        if self.strangers.size:
            e, node = self.strangers
            ex, ey, square = dx[e], dy[e], (dx**2 + dy**2 + 1e-9)[e]
            px, py = x[node] - x0[e], y[node] - y0[e]
            along = np.clip((px * ex + py * ey) / square, 0, 1)
            distance = np.sqrt((px - along * ex) ** 2 + (py - along * ey) ** 2)
            total += 4 * np.clip(1.2 - 2 * distance, 0, 1).sum(0)
        for box, passing in zip(self._boxes(x, y), self.passing, strict=True):
            if len(passing):
                u, v = self.edges[passing].T
                total += 2 * _meets(x[u], y[u], x[v], y[v], box).sum(0)
        return total


def _coordinates(positions: Positions) -> tuple[NDArray, NDArray]:
    """x and y in units of neighbouring nodes, [nodes, candidates]: gathering rows is quick."""
    columns, rows = np.ascontiguousarray(positions.transpose(2, 1, 0))
    return columns / 2, rows


def _pairs(size: int, keep: Callable[[int, int], bool]) -> NDArray:
    """Index pairs i < j that ``keep``, shape [2, pairs]."""
    chosen = [(i, j) for i in range(size) for j in range(i + 1, size) if keep(i, j)]
    return np.array(chosen, dtype=int).reshape(-1, 2).T


def _meets(x0: NDArray, y0: NDArray, x1: NDArray, y1: NDArray, box: tuple) -> NDArray:
    """Whether segments meet a box with a margin of 0.4 (Liang and Barsky's clipping)."""
    left, right, top, bottom = box
    first, last = np.zeros_like(x0), np.ones_like(x0)
    for start, end, low, high in ((x0, x1, left, right), (y0, y1, top, bottom)):
        change = np.where(end == start, 1e-6, end - start)
        one, two = (low - 0.4 - start) / change, (high + 0.4 - start) / change
        first = np.maximum(first, np.minimum(one, two))
        last = np.minimum(last, np.maximum(one, two))
    return first < last
