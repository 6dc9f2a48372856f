"""What is known of a function f(η₁, η₂) whose expectation under a Gaussian is wanted."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from vitools.calculus.curved.function import of_rows


class ExpectedPair(NamedTuple):
    """F [N], ∂F/∂m [N, 2], ∂F/∂Σ [N, 2, 2] (symmetric: dF = tr(∂F/∂Σ dΣ)), the error's estimate [N]."""

    value: Tensor
    d_mean: Tensor
    d_covariance: Tensor
    error: Tensor


class Inner(NamedTuple):
    """f's singularities in one predictor given the other: centre ± i distance, functions of (η, *data)."""

    predictor: int
    centre: Callable[..., Tensor]
    distance: Callable[..., Tensor]


@dataclass(frozen=True)
class PairFunction:
    """f(η₁, η₂, *data), elementwise; data [N] are seen as [rows, 1].

    ``distances``: of the singularities in each predictor from the real axis, whatever the other;
    None where unknown. ``rule``: E f in closed form, a function of (mean [N, 2], covariance
    [N, 2, 2], *data [N]) that autograd can differentiate. ``inner``: which predictor is better
    integrated first, given the other, and where its singularities then are.
    """

    value: Callable[..., Tensor]
    data: tuple[Tensor, ...] = ()
    distances: tuple[float | Tensor, float | Tensor] | None = None
    rule: Callable[..., Tensor] | None = None
    inner: Inner | None = None

    def at(self, rows: Tensor) -> "PairFunction":
        """The same function for some of the rows."""
        return replace(self, data=tuple(of_rows(d, rows) for d in self.data))

    def derivatives(self, eta: tuple[Tensor, Tensor], second: bool) -> list[Tensor]:
        """f, ∂₁f, ∂₂f and, if asked for, ∂₁₁f, ∂₁₂f, ∂₂₂f."""
        data = tuple(d.unsqueeze(-1) if d.dim() else d for d in self.data)
        with torch.enable_grad():
            x, y = (e.detach().requires_grad_() for e in eta)
            value = self.value(x, y, *data)
            found = [value, *_gradient(value, x, y, second)]
            if second:
                first, cross = _gradient(found[1], x, y, True)
                found += [first, cross, _gradient(found[2], x, y, True)[1]]
        return [f.detach().expand_as(x) for f in found]


def _gradient(value: Tensor, x: Tensor, y: Tensor, again: bool) -> list[Tensor]:
    if not value.requires_grad:
        return [torch.zeros_like(x), torch.zeros_like(y)]
    gradient = torch.autograd.grad(value.sum(), (x, y), create_graph=again, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g in gradient]
