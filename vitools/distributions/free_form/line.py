"""One scalar with or without bounds, on an unconstrained coordinate u that takes in every scale.

    ℝ         s = sinh u                  log ds/du = log cosh u
    (a, ∞)    s = a + e^u                 log ds/du = u
    (-∞, b)   s = b - e^-u                log ds/du = -u
    (a, b)    s = a + (b - a) σ(u)        log ds/du = log (b - a) + log σ(u) + log σ(-u)

Every one increases, and log ds/du becomes linear at either end: a power law of s, or of the
distance to a bound, is an exponential in u.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

FARTHEST = 708.0
"""|u| up to which e^u is an ordinary number."""


@dataclass(frozen=True)
class Line:
    """The coordinate for bounds [*batch, 1], infinite where there is none.

    All elements must have the same ends bounded; ``s`` and ``u`` are [*batch, n].
    """

    lower: Tensor
    upper: Tensor

    @cached_property
    def bounded_below(self) -> bool:
        return bool(self.lower.isfinite().all())

    @cached_property
    def bounded_above(self) -> bool:
        return bool(self.upper.isfinite().all())

    @property
    def slopes(self) -> tuple[float, float]:
        """d/du of log ds/du at the lower and at the upper end."""
        return (1.0 if self.bounded_below else -1.0), (-1.0 if self.bounded_above else 1.0)

    def value(self, u: Tensor) -> Tensor:
        """s(u)."""
        below, above = self.bounded_below, self.bounded_above
        if below and above:
            width = self.upper - self.lower
            step = width * torch.sigmoid(-u.abs())
            return torch.where(u < 0, self.lower + step, self.upper - step)
        if below:
            return self.lower + u.exp()
        return self.upper - (-u).exp() if above else u.sinh()

    def value_near(self, middle: Tensor, offset: Tensor) -> Tensor:
        """s(middle + offset) without rounding the sum: a narrow peak far from u = 0 needs it."""
        below, above = self.bounded_below, self.bounded_above
        if not below and not above:  # far from the middle the two terms would cancel
            near = middle.sinh() * offset.cosh() + middle.cosh() * offset.sinh()
            return torch.where(offset.abs() < 0.1, near, self.value(middle + offset))
        if below != above:
            sign = 1.0 if below else -1.0
            step = (sign * middle).exp() * (sign * offset).exp()
            return self.lower + step if below else self.upper - step
        odds = middle.exp() * offset.exp()
        step = (self.upper - self.lower) / (1 + odds.maximum(1 / odds))
        return torch.where(odds < 1, self.lower + step, self.upper - step)

    def coordinate(self, s: Tensor) -> Tensor:
        """u(s)."""
        below, above = self.bounded_below, self.bounded_above
        if not below and not above:
            return s.asinh()
        from_below = (s - self.lower).log() if below else torch.zeros_like(s)
        return from_below - (self.upper - s).log() if above else from_below

    def log_jacobian(self, u: Tensor) -> Tensor:
        """log ds/du."""
        below, above = self.bounded_below, self.bounded_above
        if below and above:
            return (self.upper - self.lower).log() + logsigmoid(u) + logsigmoid(-u)
        if below or above:
            return u if below else -u
        size = u.abs()
        return size + torch.log1p((-2 * size).exp()) - math.log(2)

    def resolved(self, share: float) -> tuple[Tensor, Tensor]:
        """The range of u in which s is farther from each bound than ``share`` of that bound.

        Nearer to a bound other than 0, s is so coarse that it cannot say how near. [*batch, 1].
        """
        far = torch.full_like(self.lower + self.upper, FARTHEST)
        width = (self.upper - self.lower) if self.bounded_below and self.bounded_above else 1.0

        def reach(bound: Tensor) -> Tensor:
            nearest = (share * bound.abs() / width).log()  # -inf at a bound of 0
            return (-nearest).clamp(1.0, FARTHEST).expand_as(far)

        low = -reach(self.lower) if self.bounded_below else -far
        return low, reach(self.upper) if self.bounded_above else far


def line_of(lower: Tensor, upper: Tensor, batch: torch.Size) -> Line:
    """The line for bounds that broadcast to ``batch``."""
    return Line(*(bound.double().expand(batch).unsqueeze(-1) for bound in (lower, upper)))
