"""A scalar on equally spaced nodes of its line: where its density is, and when the nodes are enough.

    ∫ f(s) ds ≈ h Σ_k (ds/du)(u_k) f(s(u_k))

On the whole line the trapezoid rule's error falls like e^(-c/h) (Trefethen and Weideman 2014, "The
exponentially convergent trapezoidal rule"), so that half the step squares it: what every second node
gives beside all of them tells the error. Between the nodes log q is a polynomial through the nearest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from vitools.distributions.free_form.free_form import FreeForm
from vitools.distributions.free_form.gauss_kronrod import NODES as KRONROD_NODES
from vitools.distributions.free_form.line import Line, line_of

WINDOW, DEPTH = 24.0, 20.0
"""Nats below its top at which q is left out, and that it must have fallen by at either end."""
DEEP, FLAT = 42.0, 0.05
"""The same where something averaged over q falls outwards by less than so much a unit of u."""
REACH, PRIOR = 10.0, 25.0
"""How far from a prior's mode in u, and how many nats below it, a search starts at most."""
FARTHEST_LOOK, LOOKS = 80.0, 3201
"""Where a prior is looked for."""
FEW = 8
"""Nodes within the window's depth below which q is a peak between them."""
STENCIL = 12
"""Nodes that a value between them is computed from."""
NARROW = 4.0
"""(step / sd)² of a peak above which the trapezoid rule is not yet right about it."""
FINEST = 2000
"""Nodes of a window that may hold several peaks narrower than its step."""
FLOOR = 300.0
"""Nats below the top of a density from which on its shape does not matter."""
PANEL = 8
"""Steps in one panel of the density that is handed out."""
STRAIGHT = 1e-3
"""Relative change of the slope over a step below which a tail is a line: a power law of s."""


@dataclass(frozen=True)
class Nodes:
    """u_k = first + k step for each element ``[*batch]``, k < count (odd), and bounds of s."""

    lower: Tensor
    upper: Tensor
    first: Tensor
    step: Tensor
    count: int

    @staticmethod
    def first_look(
        bounds: tuple[Tensor, Tensor],
        batch: Sequence[int],
        count: int,
        log_prior: Callable[[Tensor], Tensor] | None = None,
    ) -> Nodes:
        """Where the prior is, and at most so many scales to either side of its mode.

        Args:
            log_prior: its log density, s ``[*batch, n]`` to the same shape; None where it has latents.
        """
        batch = tuple(batch)
        if log_prior is None:
            low = torch.full(batch, -REACH, dtype=torch.float64)
            return Nodes(*bounds, low, -2 * low / (count - 1), count)
        line = line_of(*bounds, torch.Size(batch))
        u = torch.linspace(-FARTHEST_LOOK, FARTHEST_LOOK, LOOKS, dtype=torch.float64)
        u = u.expand(*batch, LOOKS)
        density = (log_prior(line.value(u)) + line.log_jacobian(u)).nan_to_num(nan=-torch.inf)
        top, mode = density.max(-1, keepdim=True)
        mode = u.gather(-1, mode)
        counts = (density > top - PRIOR) & ((u - mode).abs() <= REACH)
        apart = 2 * FARTHEST_LOOK / (LOOKS - 1)
        low = torch.where(counts, u, torch.inf).amin(-1) - apart
        high = torch.where(counts, u, -torch.inf).amax(-1) + apart
        return Nodes(*bounds, low, (high - low) / (count - 1), count)

    @property
    def line(self) -> Line:
        return line_of(self.lower, self.upper, self.first.shape)

    @property
    def coordinates(self) -> Tensor:
        """u ``[*batch, count]``."""
        place = torch.arange(self.count, dtype=torch.float64)
        return self.first.unsqueeze(-1) + self.step.unsqueeze(-1) * place

    @property
    def values(self) -> Tensor:
        """s ``[*batch, count]``."""
        return self.line.value(self.coordinates)

    @property
    def log_weights(self) -> Tensor:
        """log of h ds/du, the base measure of a table on the nodes, ``[*batch, count]``."""
        return self.line.log_jacobian(self.coordinates) + self.step.log().unsqueeze(-1)

    # ---- where the density is ----------------------------------------------------------------

    def moved(self, log_density: Tensor, weighted: Tensor, count: int) -> Nodes | None:
        """Nodes where q and what is averaged over it are; None where these are there.

        Args:
            log_density: in u, up to a constant, ``[*batch, count]``.
            weighted: the highest of it and of it times what is averaged, each below its own top.
            count: of the new nodes.
        """
        u = self.coordinates.reshape(-1, self.count)
        rows = list(zip(u, log_density.reshape(u.shape), weighted.reshape(u.shape), strict=True))
        several = [_several(*row[:2]) for row in rows]
        if any(several):
            return self._around(several, u)
        windows = [_window(*row) for row in rows]
        if all(window is None for window in windows):
            return None
        low, high = (
            torch.stack(
                [
                    row[i] if w is None else torch.tensor(w[j]).double()
                    for row, w in zip(u, windows, strict=True)
                ]
            )
            for i, j in ((0, 0), (-1, 1))
        )
        for i, (_, density, _) in enumerate(rows):
            if len(_peaks(density)[0]) > 1:  # no coarser, so that none of them is lost again
                near = math.ceil(float((high - low)[i] / self.step.reshape(-1)[i])) // 2 * 2 + 1
                count = max(count, min(near, FINEST))
        step = (high - low) / (count - 1)
        shape = self.first.shape
        return replace(self, first=low.reshape(shape), step=step.reshape(shape), count=count)

    def _around(self, places: Sequence[tuple[float, float] | None], u: Tensor) -> Nodes:
        """Twice as close about peaks that lie between nodes, and where there were nodes in other elements."""
        spans = [
            (float(row[0]), float(row[-1])) if place is None else place
            for place, row in zip(places, u, strict=True)
        ]
        low, high = torch.tensor(spans, dtype=torch.float64).reshape(-1, 2).unbind(-1)
        steps = (high - low) / self.step.reshape(-1)
        count = 2 * math.ceil(min(float(steps.max()), (FINEST - 1) / 2)) + 1
        shape = self.first.shape
        step = (high - low) / (count - 1)
        return replace(self, first=low.reshape(shape), step=step.reshape(shape), count=count)

    def finer(self) -> Nodes:
        """Half as many nodes again in the same window."""
        count = 2 * math.ceil(0.75 * self.count) + 1
        return replace(self, step=self.step * ((self.count - 1) / (count - 1)), count=count)

    def density(self, log_density: Tensor) -> FreeForm:
        """The density through values of log q in u (up to a constant) ``[*batch, count]``."""
        panels = max(1, -(-(self.count - 1) // PANEL))
        edges = torch.linspace(0, self.count - 1, panels + 1, dtype=torch.float64)
        half = edges.diff() / 2
        place = (edges[:-1] + half).unsqueeze(-1) + half.unsqueeze(-1) * KRONROD_NODES
        inside = interpolated(gently(log_density, (-1,)), place.flatten())
        shape = self.first.shape
        return FreeForm(
            self.first.unsqueeze(-1) + self.step.unsqueeze(-1) * edges,
            inside.reshape(*shape, panels, -1),
            self.lower,
            self.upper,
            torch.stack(
                [_tail(log_density, self.step), _tail(log_density.flip(-1), self.step)], -1
            ),
            validate_args=False,
        )


def _window(u: Tensor, log_density: Tensor, weighted: Tensor) -> tuple[float, float] | None:
    """From where to where q reaches; None where these nodes hold it well."""
    top = float(log_density.max())
    if not math.isfinite(top):
        return None  # no density, which is for others to tell
    log_density = log_density - top
    inside = ((weighted > -WINDOW) | (log_density > -WINDOW)).nonzero().squeeze(-1)
    first, last = int(inside[0]), int(inside[-1])
    end = len(u) - 1
    low, high, step = float(u[0]), float(u[-1]), float(u[1] - u[0])
    if last - first + 1 < FEW:
        peak = min(max(int(log_density.argmax()), 1), end - 1)
        centre, spread = _peak(log_density[peak - 1 : peak + 2].tolist())
        centre = float(u[peak]) + step * centre
        half = min(step, 2 * math.sqrt(2 * WINDOW) * step * spread)
        return centre - half, centre + half
    left = _end(log_density[:2], weighted[:2], step, high - low)
    right = _end(log_density[-2:].flip(0), weighted[-2:].flip(0), step, high - low)
    around = max(last - first + 2, 2)
    if left is None and right is None and around > 0.6 * end:
        return None
    return (
        float(u[max(first - 1, 0)]) if left is None else low - left,
        float(u[min(last + 1, end)]) if right is None else high + right,
    )


def _peaks(log_density: Tensor) -> tuple[Tensor, Tensor]:
    """Where density has peaks that count, and (step / sd)² of each.

    The top of each is that of a parabola through three nodes, which may be far above all of them: of peaks
    much narrower than the step those that no node is near would be lost. Of those nearer to one another than
    two steps only the highest is seen.
    """
    left, middle, right = log_density[:-2], log_density[1:-1], log_density[2:]
    curvature = 2 * middle - left - right
    is_top = (middle >= left) & (middle >= right) & curvature.isfinite() & (curvature > 0)
    top = middle + torch.where(is_top, (right - left) ** 2 / (8 * curvature), 0.0)
    top = torch.where(is_top, top, -torch.inf)
    places = (is_top & (top > top.max() - WINDOW)).nonzero().squeeze(-1)
    return places + 1, curvature[places]


def _several(u: Tensor, log_density: Tensor) -> tuple[float, float] | None:
    """From where to where peaks reach that lie between the nodes, where they are several; else None."""
    places, curvature = _peaks(log_density)
    if len(places) < 2 or not bool((curvature > NARROW).any()) or len(u) >= FINEST:
        return None
    first, last = int(places[0]), int(places[-1])
    return float(u[max(first - 2, 0)]), float(u[min(last + 2, len(u) - 1)])


def _peak(heights: Sequence[float]) -> tuple[float, float]:
    """Where a parabola through three nodes has its top, in steps from the middle, and its sd."""
    left, middle, right = (max(x, -1e280) for x in heights)
    curvature = 2 * middle - left - right
    if not curvature > 0:
        return (-1.0 if left > right else 1.0), 1.0
    return min(max((right - left) / (2 * curvature), -1.0), 1.0), curvature**-0.5


def _end(log_density: Tensor, weighted: Tensor, step: float, width: float) -> float | None:
    """How far beyond its end a window must go, if at all, from the heights there and one node inside.

    Where an average does not fall, it is infinite unless q bends down: q is followed until it would have.
    """
    depth, pair = DEPTH, weighted
    if float(weighted[1] - weighted[0]) < FLAT * step:
        depth, pair = DEEP, log_density
    if float(pair[0]) <= -depth:
        return None
    slope = float(pair[1] - pair[0]) / step
    needed = (depth + WINDOW - DEPTH + float(pair[0])) / slope if slope > 0 else width
    return min(max(needed, 0.1 * width), width)


def halving_change(table: Tensor, log_table: Tensor, axes: Sequence[int]) -> Tensor:
    """Of Σ w over weighted nodes: by how much every second one along ``axes`` misses it, relatively.

    Args:
        table: weights ``w`` beside e^log_table, which broadcast to it.
        axes: one axis, or two of which only nodes with an even sum of places are taken.
    """
    mass = (log_table - log_table.amax(tuple(range(-2, 0)), keepdim=True)).exp() * table
    place = torch.zeros((), dtype=torch.long)
    for axis in axes:
        view = [1] * mass.dim()
        view[axis] = -1
        place = place + torch.arange(mass.shape[axis]).reshape(view)
    some = torch.where(place % 2 == 0, 2.0, 0.0) * mass
    total = mass.abs().sum((-2, -1)).clamp(min=1e-300)
    return (some.sum((-2, -1)) - mass.sum((-2, -1))).abs() / total


# ---- between the nodes -----------------------------------------------------------------------


def interpolated(values: Tensor, place: Tensor) -> Tensor:
    """``[…, n]``: values ``[…, count]`` at nodes 0, 1, … between them, at places ``[n]``."""
    start, weights = stencil(place, values.shape[-1])
    near = start.unsqueeze(-1) + torch.arange(weights.shape[-1])
    return (values[..., near] * weights).sum(-1)


def gently(log_density: Tensor, dims: Sequence[int]) -> Tensor:
    """The same near its top along ``dims``, and below :data:`FLOOR` nats falling by its logarithm only.

    A density may fall by e^(-x^k) over a few nodes, and no polynomial through numbers of other sizes is
    right about those of ordinary size. With x = nats / FLOOR that is x (1 + x^16)^(-1/16) + log(1 + x^16) / 16:
    the same to 1e-9 nats down to 60 below the top.
    """
    top = log_density.amax(tuple(dims), keepdim=True)
    top = torch.where(top.isfinite(), top, 0.0)
    x = ((top - log_density) / FLOOR).clamp(max=1e18)
    power = x**16
    return top - FLOOR * (x * (1 + power) ** -0.0625 + power.log1p() / 16)


def stencil(place: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first of the nodes near each place ``[n]``, and the weights of them ``[n, STENCIL]``."""
    width = min(STENCIL, count)
    start = (place.floor().long() - width // 2 + 1).clamp(0, count - width)
    offset = (place - start).unsqueeze(-1) - torch.arange(width, dtype=torch.float64)
    hit = offset.abs() < 1e-9
    weights = _barycentric(width) / torch.where(hit, 1.0, offset)
    weights = torch.where(hit.any(-1, keepdim=True), hit.double(), weights)
    return start, weights / weights.sum(-1, keepdim=True)


@lru_cache
def _barycentric(width: int) -> Tensor:
    signs = [(-1.0) ** j * math.comb(width - 1, j) for j in range(width)]
    return torch.tensor(signs, dtype=torch.float64)


def _tail(log_density: Tensor, step: Tensor) -> Tensor:
    """The slope outwards at the first node where log q is a line there, else -∞."""
    first, second = (log_density[..., i + 1] - log_density[..., i] for i in (0, 1))
    is_line = (second - first).abs() <= STRAIGHT * first.abs()
    slope = -first / step
    nearest = (
        slope.round()
    )  # E s^p hinges on whole exponents, of which rounding may have taken a bit
    slope = torch.where((slope - nearest).abs() <= STRAIGHT, nearest, slope)
    return torch.where(is_line & (first > 0), slope, -torch.inf)
