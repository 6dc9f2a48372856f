"""SQUAREM: squared extrapolation of a fixed-point map, guarded by the bound.

From θ₀, θ₁ = F(θ₀), θ₂ = F(θ₁) with r = θ₁-θ₀ and v = (θ₂-θ₁)-r, the scheme S3 of Varadhan and
Roland (2008, "Simple and globally convergent methods for accelerating the convergence of any EM
algorithm") jumps to θ₀ - 2αr + α²v with α = -‖r‖/‖v‖, then applies F once more. The jump is kept
only where the bound after it is at least that of θ₂.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Point = list[Tensor]


def step_length(first: Point, second: Point, third: Point, limit: float) -> float:
    """α = -‖r‖/‖v‖, kept within [-limit, -1]; -1 is no extrapolation at all."""
    r = [b - a for a, b in zip(first, second, strict=True)]
    v = [(c - b) - d for b, c, d in zip(second, third, r, strict=True)]
    curvature = _norm(v)
    if curvature == 0:
        return -1.0
    return max(-limit, min(-1.0, -_norm(r) / curvature))


def extrapolate(first: Point, second: Point, third: Point, alpha: float) -> Point:
    """θ₀ - 2αr + α²v."""
    jumped = []
    for a, b, c in zip(first, second, third, strict=True):
        r = b - a
        v = (c - b) - r
        jumped.append(a - 2 * alpha * r + alpha**2 * v)
    return jumped


def _norm(parts: Sequence[Tensor]) -> float:
    return float(torch.stack([(part**2).sum() for part in parts]).sum().sqrt())
