"""Arrows as Bézier curves: straight where they can be, round other nodes where they cannot.

A curve is its control points, shape [2 to 4, 2]; all of evaluating, measuring and cutting it is
de Casteljau's scheme (Farin, 2002, Curves and Surfaces for CAGD, chapter 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLEAR", "Box", "clearance", "leaving", "part_of", "points_on", "route"]

CLEAR = 0.065  # inches from an arrow to a node that is not its own


@dataclass(frozen=True)
class Box:
    """A node's size: an ellipse of radii ``rx``, ``ry`` and a caption right beneath it."""

    rx: float
    ry: float
    caption_width: float = 0.0
    caption_height: float = 0.0

    @property
    def half_width(self) -> float:
        return max(self.rx, self.caption_width / 2)

    @property
    def below(self) -> float:
        return self.ry + self.caption_height


def points_on(curve: NDArray, count: int = 60) -> NDArray:
    """Points along a curve, evenly spaced in its parameter, shape [count, 2]."""
    share = np.linspace(0, 1, count)[:, None, None]
    level = np.repeat(curve[None], count, 0)
    while level.shape[1] > 1:
        level = (1 - share) * level[:, :-1] + share * level[:, 1:]
    return level[:, 0]


def clearance(points: NDArray, centre: NDArray, box: Box) -> float:
    """Least distance, roughly, from points to a node with its caption; negative inside it."""
    offset = points - centre
    radial = np.hypot(offset[:, 0] / box.rx, offset[:, 1] / box.ry) - 1
    distance = radial * min(box.rx, box.ry)
    if box.caption_width:
        sideways = np.abs(offset[:, 0]) - box.caption_width / 2
        beyond = np.maximum(box.ry - offset[:, 1], offset[:, 1] - box.below)
        distance = np.minimum(distance, np.maximum(sideways, beyond))
    return float(distance.min())


def route(edge: tuple[int, int], boxes: Sequence[Box], centres: NDArray) -> NDArray:
    """Straight where nothing stands between, else the gentlest curve that keeps clear of all."""
    start, end = centres[edge[0]], centres[edge[1]]
    along = end - start
    normal = np.array([-along[1], along[0]]) / np.hypot(*along)
    others = [v for v in range(len(boxes)) if v not in edge]
    bends = sorted(np.arange(-24, 25) * 0.15, key=abs)
    candidates = [np.array([start, end])]
    candidates += [np.array([start, start + along / 2 + k * normal, end]) for k in bends]
    coarse = [(k, m) for k in bends[::2] for m in bends[::2]]
    candidates += [
        np.array([start, start + along / 3 + k * normal, end - along / 3 + m * normal, end])
        for k, m in sorted(coarse, key=lambda pair: pair[0] ** 2 + pair[1] ** 2)
    ]
    best, widest = candidates[0], -np.inf
    for curve in candidates:
        points = points_on(curve, 100)
        free = min((clearance(points, centres[v], boxes[v]) for v in others), default=np.inf)
        if free >= CLEAR:
            return curve
        if free > widest:
            best, widest = curve, free
    return best


def leaving(curve: NDArray, centre: NDArray, box: Box, margin: float) -> float:
    """The last parameter in [0, 1] at which a curve from a node's centre is near that node."""
    points = points_on(curve, 400)
    near = [clearance(point[None], centre, box) < margin for point in points]
    return float(max(np.flatnonzero(near), default=0)) / 399


def part_of(curve: NDArray, begin: float, end: float) -> NDArray:
    """Control points of the piece of a Bézier curve between two parameters."""

    def head(points: NDArray, share: float) -> NDArray:
        kept = [points[0]]
        while len(points) > 1:
            points = (1 - share) * points[:-1] + share * points[1:]
            kept.append(points[0])
        return np.array(kept)

    first = head(curve, end)
    return head(first[::-1], 1 - begin / end if end else 0.0)[::-1]
