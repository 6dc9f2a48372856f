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
    return float(_distances(points, centre[None], [box]).min())


def _distances(points: NDArray, centres: NDArray, boxes: Sequence[Box]) -> NDArray:
    """The distance of each point [points, 2] to each node [nodes, 2]: [nodes, points]."""
    rx, ry, width, below = np.array(
        [(box.rx, box.ry, box.caption_width, box.below) for box in boxes]
    ).T[:, :, None]
    offset = points - centres[:, None]
    radial = np.hypot(offset[..., 0] / rx, offset[..., 1] / ry) - 1
    distance = radial * np.minimum(rx, ry)
    sideways = np.abs(offset[..., 0]) - width / 2
    beyond = np.maximum(ry - offset[..., 1], offset[..., 1] - below)
    captioned = np.minimum(distance, np.maximum(sideways, beyond))
    return np.where(width > 0, captioned, distance)


def route(edge: tuple[int, int], boxes: Sequence[Box], centres: NDArray) -> NDArray:
    """Straight where nothing stands between, else the gentlest curve that keeps clear of all."""
    start, end = centres[edge[0]], centres[edge[1]]
    along = end - start
    normal = np.array([-along[1], along[0]]) / np.hypot(*along)
    others = [v for v in range(len(boxes)) if v not in edge]
    around, sizes = centres[others], [boxes[v] for v in others]
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
        free = float(_distances(points, around, sizes).min()) if others else np.inf
        if free >= CLEAR:
            return curve
        if free > widest:
            best, widest = curve, free
    return best


def leaving(curve: NDArray, centre: NDArray, box: Box, margin: float) -> float:
    """The last parameter in [0, 1] at which a curve from a node's centre is near that node."""
    points = points_on(curve, 400)
    near = _distances(points, centre[None], [box])[0] < margin
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
