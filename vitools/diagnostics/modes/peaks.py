"""Ends of climbs told apart: which of them are peaks, and which are one.

A climb may end because its steps were used up, or because rounding hides what it could still gain. Newton's
decrement ½ g' H⁻¹ g says how many nats are left there, whatever the units. So an end is a *peak* where
H = -∇² log f is positive definite and the decrement is small, in nats or in roundings of the sum that log f
is, after some steps of Newton's if need be. A peak within the widths of another is the same; and so is one
from which a straight way leads to it without a barrier.

Reference: Boyd, Vandenberghe, *Convex Optimization*, 2004, section 9.5.1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.problem.coordinates.density import Density
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

LEFT = 0.05
"""Nats by which a peak may lie above an end that has arrived, or above the way from it to a higher one."""

ROUNDINGS = 10.0
"""Of the sum of all terms' sizes, by which its value may be off."""

NEWTON_STEPS, WORTH_A_STEP = 3, 10.0
"""Steps that an end is granted to arrive, and the nats left up to which they are likely to help."""

SAME = 0.5  # squared distance, in widths of the peak, below which two ends are one
FLAT = 1e-8
NEAR, IN_WIDTHS, FAR = 1e-6, 1e-3, 1e-2
"""Steps of differences: the first relative to the point, the second in widths, at most the third."""

NEIGHBOURS, PLACES = 3, 20
"""Other peaks that a way is looked for to, and the points looked at on each, as many again close to its
beginning."""


@dataclass
class Peak:
    """A local maximum of log f.

    Attributes:
        point: u ``[P]``.
        height: log f there.
        precision: H ``[P, P]``, float64, on the CPU.
        starts: how many climbs ended there.
    """

    point: Tensor
    height: float
    precision: Tensor
    starts: int = 1

    def squared_distance(self, points: Tensor) -> Tensor:
        """Of ``[n, P]`` from the peak in its own widths, ``[n]``."""
        away = points.double().cpu() - self.point.double().cpu()
        return ((away @ self.precision) * away).sum(-1)


def told_apart(
    space: UnconstrainedSpace, density: Density, ends: Tensor, heights: Tensor
) -> list[Peak]:
    """The peaks among ``[n, P]``, the highest first, with the climbs that ended at each.

    Args:
        density: of the space.
        heights: log f of the ends, ``[n]``, in descending order.
    """
    found: list[Peak] = []
    for end, height in zip(ends, heights.tolist(), strict=True):
        same = next((peak for peak in found if _is_at(peak, end)), None)
        if same is None:
            peak, slack = _arrived(space, density, end, height)
            if peak is None:
                continue
            same = _reached(density, peak, found, slack)
            if same is None:
                found.append(peak)
                continue
        same.starts += 1
    return found


def _is_at(peak: Peak, end: Tensor) -> bool:
    return bool(peak.squared_distance(end) < SAME)


def _arrived(
    space: UnconstrainedSpace, density: Density, point: Tensor, height: float
) -> tuple[Peak | None, float]:
    """The peak at an end, if it is one, and by how many nats values may be off there."""
    slack = LEFT + ROUNDINGS * torch.finfo(space.dtype).eps * _size_of_terms(space, point)
    for step in range(NEWTON_STEPS + 1):
        precision = _hessian(density, point)
        root, failed = torch.linalg.cholesky_ex(precision)
        if bool(failed) or float(torch.linalg.eigvalsh(precision)[0]) <= FLAT:
            break
        slope = density.defined_gradients(point.unsqueeze(0))[1].double().cpu().mT
        move = torch.cholesky_solve(slope, root)
        left = float((slope * move).sum()) / 2
        has_arrived = left <= slack
        if not has_arrived and (step == NEWTON_STEPS or not left <= WORTH_A_STEP):
            break  # as is NaN
        moved = point + move[:, 0].to(point)
        reached = float(density.defined_gradients(moved.unsqueeze(0))[0])
        if reached > height:
            point, height = moved, reached
        elif not has_arrived:
            break
        if has_arrived:
            return Peak(point, height, precision), slack
    return None, slack


def _size_of_terms(space: UnconstrainedSpace, point: Tensor) -> float:
    """Σ |terms| of log f at ``[P]``: its rounding is that of the largest partial sums."""
    with torch.no_grad():
        factors = space.problem.factors(space.to_values(point)).factors
        terms = [torch.as_tensor(factor.log_density).double().abs() for factor in factors]
        terms.append(space.log_jacobian(point).double().abs())
    return sum(float(torch.where(term.isfinite(), term, 0.0).sum()) for term in terms)


def _reached(density: Density, peak: Peak, found: list[Peak], slack: float) -> Peak | None:
    """One of the nearest other peaks that a straight way leads to, never below its beginning or its end.

    Half of the places are near the beginning, from half a width of it on, where a narrow peak has its
    barrier.
    """
    if not found:
        return None
    points = torch.stack([other.point for other in found])
    distance = peak.squared_distance(points)
    nearest = distance.argsort()[:NEIGHBOURS]
    first = (0.5 / distance[nearest].sqrt()).clamp(max=0.5)
    places = torch.linspace(0.0, 1.0, PLACES + 2)[1:-1]
    share = torch.cat([first ** places[:, None], places[:, None].expand(-1, len(nearest))])
    away = points[nearest.to(points.device)] - peak.point
    ways = peak.point + share.to(away)[..., None] * away
    heights, _ = density.defined_gradients(ways.flatten(0, 1))
    lowest = heights.reshape(share.shape).amin(0)
    for number, low in zip(nearest.tolist(), lowest.tolist(), strict=True):
        if low >= min(peak.height, found[number].height) - slack:
            return found[number]
    return None


def _hessian(density: Density, point: Tensor) -> Tensor:
    """-∇² log f ``[P, P]``, float64.

    In float64 by central differences of the gradients, which the climb has compiled, at steps of a
    thousandth of the widths; narrower numbers have no digits for that.
    """
    if point.dtype is torch.float64:
        scale = 1.0 + point.abs()
        rough = _differences(density, point, NEAR * scale).diagonal().abs()
        steps = IN_WIDTHS * rough.clamp(min=torch.finfo(point.dtype).tiny).rsqrt()
        rows = _differences(density, point, torch.minimum(steps, FAR * scale)).cpu()
    else:
        unit = torch.eye(len(point), dtype=point.dtype, device=point.device)
        rows = density.products(point.expand(len(point), -1), unit)[1].double().cpu()
    return -(rows + rows.mT).nan_to_num(nan=0.0) / 2


def _differences(density: Density, point: Tensor, steps: Tensor) -> Tensor:
    """∇² log f ``[P, P]`` by differences over ``steps`` ``[P]`` to both sides."""
    moves = steps.diag()
    above, below = (density.defined_gradients(point + side * moves)[1] for side in (1, -1))
    return (above - below) / (2 * steps[:, None])
