"""Arrows as Bézier curves: straight where they can be, round other nodes where they cannot.

A curve is its control points, shape [2 to 4, 2]; all of evaluating, measuring and cutting it is
de Casteljau's scheme (Farin, 2002, Curves and Surfaces for CAGD, chapter 4).
"""

from collections.abc import Iterator, Sequence
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
    others = [v for v in range(len(boxes)) if v not in edge]
    around, sizes = centres[others], [boxes[v] for v in others]
    # within an ellipse's rectangle grown by so much it may be nearer than CLEAR
    grown = [CLEAR * max(box.rx, box.ry) / min(box.rx, box.ry) for box in sizes]
    wide = np.array([box.half_width + more for box, more in zip(sizes, grown, strict=True)])
    below = np.array([box.below + more for box, more in zip(sizes, grown, strict=True)])
    best, widest = np.array([]), -np.inf
    for curve in _candidates(centres[edge[0]], centres[edge[1]]):
        low, high = curve.min(0), curve.max(0)  # a curve stays within its control points
        near = np.flatnonzero(
            (np.abs(around[:, 0] - (low[0] + high[0]) / 2) <= (high[0] - low[0]) / 2 + wide)
            & (np.abs(around[:, 1] - (low[1] + high[1]) / 2) <= (high[1] - low[1]) / 2 + below)
        )
        if not len(near):
            return curve
        points = points_on(curve, 100)
        free = float(_distances(points, around[near], [sizes[v] for v in near]).min())
        if free >= CLEAR:
            return curve
        if free > widest:
            best, widest = curve, free
    return best


_BENDS = sorted(np.arange(-24, 25) * 0.15, key=abs)
_PAIRS_OF_BENDS = sorted(
    ((k, m) for k in _BENDS[::2] for m in _BENDS[::2]), key=lambda pair: pair[0] ** 2 + pair[1] ** 2
)


def _candidates(start: NDArray, end: NDArray) -> Iterator[NDArray]:
    """Curves between two points, the gentlest first: straight, bent once, bent twice."""
    along = end - start
    normal = np.array([-along[1], along[0]]) / np.hypot(*along)
    yield np.array([start, end])
    for k in _BENDS:
        yield np.array([start, start + along / 2 + k * normal, end])
    for k, m in _PAIRS_OF_BENDS:
        yield np.array([start, start + along / 3 + k * normal, end - along / 3 + m * normal, end])


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
