"""Uphill from many points at once, by the limited-memory BFGS of each.

Every row of ``[n, P]`` has its own history and its own step; one evaluation of the density and its
gradients serves them all. A step is kept where it gains enough (Armijo), else it is halved.

Reference: Nocedal, Wright, *Numerical Optimization*, 2006, algorithms 7.4 and 7.5.
"""

from collections.abc import Callable

import torch
from torch import Tensor

MEMORY = 10
ENOUGH = 1e-4  # of what the slope promises
SHORTEST = 1e-12
LONGEST = 10.0

Gradients = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From ``[n, P]`` to log f ``[n]`` and its gradients ``[n, P]``."""


def climb(
    gradients: Gradients,
    points: Tensor,
    max_steps: int,
    tol: float,
    longest: float | Tensor = LONGEST,
) -> tuple[Tensor, Tensor, Tensor]:
    """Where each start ends, log f there, and the largest slope left: ``[n, P]``, ``[n]``, ``[n]``.

    Args:
        tol: a slope below which a row has arrived.
        longest: the first step, before there is any curvature; for all, or ``[n, 1]``.

    Example:
        >>> def bowl(x):
        ...     return -(x**2).sum(-1), -2 * x
        >>> ends, _, slopes = climb(bowl, torch.tensor([[3.0, -1.0], [0.5, 2.0]]).double(), 50, 1e-8)
        >>> bool((ends.abs() < 1e-8).all())
        True
    """
    values, slopes = gradients(points)
    values, slopes = _usable(values, slopes)
    moves: list[Tensor] = []
    changes: list[Tensor] = []
    length = torch.ones_like(values)
    for _ in range(max_steps):
        active = torch.isfinite(values) & (slopes.abs().amax(-1) > tol) & (length > SHORTEST)
        if not bool(active.any()):
            break
        direction = _direction(slopes, moves, changes)
        rise = (direction * slopes).sum(-1)
        direction = torch.where((rise > 0)[:, None], direction, slopes)
        if not moves:
            size = direction.norm(dim=-1, keepdim=True)
            most = torch.as_tensor(longest, dtype=size.dtype, device=size.device)
            direction = direction * (most / torch.maximum(size, most))
        rise = (direction * slopes).sum(-1)
        step = (length * active)[:, None] * direction
        tried, new_slopes = values.clone(), slopes.clone()  # rows that have arrived cost nothing
        tried[active], new_slopes[active] = _usable(*gradients((points + step)[active]))
        kept = active & (tried >= values + ENOUGH * length * rise)
        moves.append(torch.where(kept[:, None], step, 0.0))
        changes.append(torch.where(kept[:, None], slopes - new_slopes, 0.0))
        del moves[:-MEMORY], changes[:-MEMORY]
        points = torch.where(kept[:, None], points + step, points)
        values = torch.where(kept, tried, values)
        slopes = torch.where(kept[:, None], new_slopes, slopes)
        length = torch.where(kept, 1.0, torch.where(active, length / 2, length))
    return points, values, slopes.abs().amax(-1)


def _direction(slopes: Tensor, moves: list[Tensor], changes: list[Tensor]) -> Tensor:
    """The inverse Hessian times the slopes, by the two loops; pairs without curvature are skipped."""
    q = slopes.clone()
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    scale = torch.ones_like(slopes[:, :1])
    for s, y in zip(moves, changes, strict=True):
        curvature = (s * y).sum(-1, keepdim=True)
        has_any = curvature > 1e-10 * (y * y).sum(-1, keepdim=True)
        scale = torch.where(has_any, curvature / (y * y).sum(-1, keepdim=True), scale)
        found.append((s, y, torch.where(has_any, 1 / curvature, 0.0)))
    weights = []
    for s, y, inverse in reversed(found):
        weight = inverse * (s * q).sum(-1, keepdim=True)
        q = q - weight * y
        weights.append(weight)
    q = q * scale
    for (s, y, inverse), weight in zip(found, reversed(weights), strict=True):
        q = q + s * (weight - inverse * (y * q).sum(-1, keepdim=True))
    return q


def _usable(values: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """A point without a density or a slope is infinitely low."""
    good = torch.isfinite(values) & torch.isfinite(slopes).all(-1)
    return torch.where(good, values, -torch.inf), torch.where(good[:, None], slopes, 0.0)
