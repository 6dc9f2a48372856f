"""SQUAREM: squared extrapolation of a fixed-point map, guarded by the bound.

From θ₀, θ₁ = F(θ₀), θ₂ = F(θ₁) with r = θ₁-θ₀ and v = (θ₂-θ₁)-r, the scheme S3 of Varadhan and
Roland (2008, "Simple and globally convergent methods for accelerating the convergence of any EM
algorithm") jumps to θ₀ - 2αr + α²v with α = -‖r‖/‖v‖, then applies F once more. The jump is kept
only where the bound after it is at least that of θ₂.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Point = list[Tensor]


def length_of(parts: Sequence[Tensor]) -> Tensor:
    """‖θ‖."""
    return torch.stack([torch.linalg.vector_norm(part) for part in parts]).norm()


def extrapolate(
    first: Point,
    second: Point,
    third: Point,
    longest: Tensor,
    norm: Callable[[Point], Tensor] = length_of,
) -> tuple[Point, Tensor]:
    """θ₀ - 2αr + α²v, and -α, which is kept within [1, longest]; at 1 the jump ends at θ₂."""
    r = [b - a for a, b in zip(first, second, strict=True)]
    v = [(c - b) - d for b, c, d in zip(second, third, r, strict=True)]
    # Where nothing moved, 0/0 is no number and the jump is none.
    length = torch.minimum((norm(r) / norm(v)).nan_to_num(1.0, 1.0).clamp(min=1.0), longest)
    jumped = [a + 2 * length * s + length**2 * w for a, s, w in zip(first, r, v, strict=True)]
    return jumped, length
