"""From grid cells to the page: coordinates in inches, plates as rectangles, arrows as curves.

The grid says what stands left of, above, or inside what. Each such statement is a linear
inequality between coordinates, and the drawing is the least-squares one that satisfies all:

    minimise ‖M x - m‖²  subject to  G x ≥ h          arrows as springs; distances as bounds

which is a least-distance problem, solved exactly by one non-negative least squares (Lawson and
Hanson, 1974, Solving Least Squares Problems, chapter 23). The grid, stretched enough, satisfies
every inequality, so a solution exists. Coordinates run rightwards and downwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from vitools.reporting.graph.curves import CLEAR, Box, route

__all__ = ["Drawing", "Frame", "draw_up"]

GAP = 0.28  # between neighbours in a row, inches
ROW_GAP = 0.42  # between a row's captions and the next row's circles: room for an arrow
PAD = 0.12  # from a node to the plate around it
INSET = 0.09  # from a plate to the plate around it
LABEL = 0.17  # the strip at a plate's bottom in which its label stands
AWAY = 0.16  # from a plate to what is not in it


@dataclass(frozen=True)
class Frame:
    """A plate's rectangle to be: the nodes inside it and the width of its label."""

    nodes: tuple[int, ...]
    label_width: float


@dataclass(frozen=True)
class Drawing:
    """Centres [nodes, 2]; rectangles [frames, 4]: left, top, right, bottom; Bézier control points."""

    centres: NDArray
    rectangles: NDArray
    routes: list[NDArray]


class _Bounds:
    """Inequalities Σ coefficient · variable ≥ bound, and springs Σ coefficient · variable ≈ goal."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.bounds: list[tuple[NDArray, float]] = []
        self.springs: list[tuple[NDArray, float]] = []

    def row(self, terms: Sequence[tuple[float, int]]) -> NDArray:
        row = np.zeros(self.size)
        for coefficient, index in terms:
            row[index] += coefficient
        return row

    def apart(self, low: int, high: int, distance: float) -> None:
        self.bounds.append((self.row([(-1, low), (1, high)]), distance))

    def spring(self, terms: Sequence[tuple[float, int]], goal: float, stiffness: float) -> None:
        scale = np.sqrt(stiffness)
        self.springs.append((self.row(terms) * scale, goal * scale))

    def solve(self) -> NDArray:
        matrix, goal = (np.array(part) for part in zip(*self.springs, strict=True))
        orthogonal, triangle = np.linalg.qr(matrix)
        free = np.linalg.solve(triangle, orthogonal.T @ goal)
        if not self.bounds:
            return free
        rows, bounds = (np.array(part) for part in zip(*self.bounds, strict=True))
        slopes = np.linalg.solve(triangle.T, rows.T)
        stacked = np.vstack([slopes, bounds - rows @ free])
        target = np.zeros(len(stacked))
        target[-1] = 1
        weights, _ = nnls(stacked, target, maxiter=50 * stacked.shape[1])
        residual = stacked @ weights - target
        return free + np.linalg.solve(triangle, -residual[:-1] / residual[-1])


def draw_up(
    boxes: Sequence[Box],
    edges: Sequence[tuple[int, int]],
    frames: Sequence[Frame],
    grid: NDArray,
) -> Drawing:
    """Coordinates for nodes at grid cells [nodes, 2], their frames and their arrows."""
    y, vertical = _rows(boxes, frames, grid)
    x, horizontal = _columns(boxes, edges, frames, grid, y, vertical[:, 1])
    centres = np.stack([x, y], 1)
    rectangles = np.stack([horizontal[:, 0], vertical[:, 0], horizontal[:, 1], vertical[:, 1]], 1)
    routes = [route(edge, boxes, centres) for edge in edges]
    return Drawing(centres, rectangles, routes)


def _cells(frames: Sequence[Frame], grid: NDArray) -> NDArray:
    """First and last column and row of each frame: [frames, 2 (first, last), 2 (column, row)]."""
    inside = [grid[list(frame.nodes)] for frame in frames]
    return np.array([[g.min(0), g.max(0)] for g in inside]).reshape(-1, 2, 2)


def _nest(
    system: _Bounds, frames: Sequence[Frame], cells: NDArray, axis: int, insets: tuple[float, float]
) -> None:
    """Sides of overlapping frames stay apart, in the order the grid gives; outer ones outside."""
    start = system.size - 2 * len(frames)
    for side, sign in ((0, 1), (1, -1)):
        keys = [
            (sign * cells[p, side, axis], -len(frame.nodes), p) for p, frame in enumerate(frames)
        ]
        for p, one in enumerate(frames):
            for q, other in enumerate(frames):
                if keys[p] < keys[q] and set(one.nodes) & set(other.nodes):
                    ends = (start + 2 * p + side, start + 2 * q + side)
                    system.apart(*(ends if side == 0 else ends[::-1]), insets[side])


def _rows(boxes: Sequence[Box], frames: Sequence[Frame], grid: NDArray) -> tuple[NDArray, NDArray]:
    """y of each node, and the top and bottom of each frame."""
    used, row = np.unique(grid[:, 1], return_inverse=True)
    system = _Bounds(len(used) + 2 * len(frames))
    system.spring([(1, 0)], 0, 1)
    cells = _cells(frames, grid)
    for r in range(len(used) - 1):
        above = max(boxes[int(v)].below for v in np.flatnonzero(row == r))
        below = max(boxes[int(v)].ry for v in np.flatnonzero(row == r + 1))
        empty = 0.3 * (used[r + 1] - used[r] - 1)  # the room a wide fan of arrows asked for
        system.apart(r, r + 1, above + ROW_GAP + empty + below)
        system.spring([(1, r + 1), (-1, r)], 0, 1)
    for p, frame in enumerate(frames):
        top, bottom = len(used) + 2 * p, len(used) + 2 * p + 1
        first, last = cells[p, :, 1]
        system.spring([(1, bottom), (-1, top)], 0, 0.05)
        system.spring([(1, bottom), (1, top), (-2, row[frame.nodes[0]])], 0, 1e-4)
        for v in range(len(boxes)):
            if v in frame.nodes:
                system.apart(top, row[v], boxes[v].ry + PAD)
                system.apart(row[v], bottom, boxes[v].below + PAD / 2 + LABEL)
            elif grid[v, 1] < first:
                system.apart(row[v], top, boxes[v].below + AWAY)
            elif grid[v, 1] > last:
                system.apart(bottom, row[v], boxes[v].ry + AWAY)
        for q in range(len(frames)):
            if cells[q, 0, 1] > last and not set(frame.nodes) & set(frames[q].nodes):
                system.apart(bottom, len(used) + 2 * q, AWAY)
    _nest(system, frames, cells, 1, (INSET, LABEL + 0.04))
    solution = system.solve()
    return solution[row], solution[len(used) :].reshape(-1, 2)


def _columns(
    boxes: Sequence[Box],
    edges: Sequence[tuple[int, int]],
    frames: Sequence[Frame],
    grid: NDArray,
    y: NDArray,
    bottoms: NDArray,
) -> tuple[NDArray, NDArray]:
    """x of each node, and the left and right of each frame."""
    size = len(boxes)
    system = _Bounds(size + 2 * len(frames))
    cells = _cells(frames, grid)
    for v in range(size):
        system.spring([(1, v)], 0.42 * grid[v, 0], 1e-3)
        for w in range(size):
            if grid[v, 1] == grid[w, 1] and grid[v, 0] < grid[w, 0]:
                system.apart(v, w, boxes[v].half_width + GAP + boxes[w].half_width)
    for u, v in edges:
        rigid = grid[u, 0] == grid[v, 0]
        system.spring([(1, u), (-1, v)], 0, 1000 if rigid else 1)
        for w in set(range(size)) - {u, v}:
            _beside(system, u, v, w, boxes[w], grid, y)
    for p, frame in enumerate(frames):
        left, right = size + 2 * p, size + 2 * p + 1
        (first, top), (last, bottom) = cells[p]
        system.apart(left, right, frame.label_width + 2 * INSET)
        system.spring([(1, right), (-1, left)], 0, 0.1)
        # A label wider than the nodes widens the plate on both sides alike.
        middle = [(-2 / len(frame.nodes), v) for v in frame.nodes]
        system.spring([(1, left), (1, right), *middle], 0, 0.3)
        for v in range(size):
            if v in frame.nodes:
                system.apart(left, v, boxes[v].half_width + PAD)
                system.apart(v, right, boxes[v].half_width + PAD)
            elif top <= grid[v, 1] <= bottom:
                if grid[v, 0] < first:
                    system.apart(v, left, boxes[v].half_width + AWAY)
                else:
                    system.apart(right, v, boxes[v].half_width + AWAY)
        for q in range(len(frames)):
            meet = cells[q, 0, 1] <= bottom and cells[q, 1, 1] >= top
            if meet and cells[q, 0, 0] > last and not set(frame.nodes) & set(frames[q].nodes):
                system.apart(right, size + 2 * q, AWAY)
    for p, frame in enumerate(frames):
        _label_room(system, p, frame, edges, grid, y, bottoms[p] - LABEL / 2)
    _nest(system, frames, cells, 0, (INSET, INSET))
    solution = system.solve()
    return solution[:size], solution[size:].reshape(-1, 2)


def _beside(system: _Bounds, u: int, v: int, w: int, box: Box, grid: NDArray, y: NDArray) -> None:
    """Keeps w on the side of the straight arrow u → v on which the grid has it."""
    low, high = sorted((y[u], y[v]))
    levels = [level for level in (y[w] - box.ry, y[w] + box.below) if low < level < high]
    shares = [(level - y[u]) / (y[v] - y[u]) for level in levels]
    sides = [grid[w, 0] - (1 - t) * grid[u, 0] - t * grid[v, 0] for t in shares]
    if len(sides) < 2 or min(abs(s) for s in sides) < 0.3 or sides[0] * sides[1] < 0:
        return
    sign = np.sign(sides[0])
    for t in shares:
        row = system.row([(sign, w), (-sign * (1 - t), u), (-sign * t, v)])
        system.bounds.append((row, box.half_width + 2 * CLEAR))


def _label_room(
    system: _Bounds,
    p: int,
    frame: Frame,
    edges: Sequence[tuple[int, int]],
    grid: NDArray,
    y: NDArray,
    level: float,
) -> None:
    """Keeps arrows through a plate's bottom to one half of it, so that the label has the other."""
    through = []
    for edge in edges:
        inner, outer = edge if edge[0] in frame.nodes else edge[::-1]
        if inner in frame.nodes and y[inner] < level < y[outer]:
            share = (level - y[inner]) / (y[outer] - y[inner])
            through.append((inner, outer, share, grid[outer, 0] - grid[inner, 0]))
    left = len(grid) + 2 * p
    room = frame.label_width + 0.13
    if all(lean <= 1 for *_, lean in through):
        side, sign = left + 1, 1
    elif all(lean >= -1 for *_, lean in through):
        side, sign = left, -1
    else:
        return
    for inner, outer, share, _ in through:
        row = system.row([(sign, side), (-sign * (1 - share), inner), (-sign * share, outer)])
        system.bounds.append((row, room))
