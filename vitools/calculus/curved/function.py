"""What is known of a nonlinear function f(η) whose expectation under a Gaussian is wanted."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


class Expected(NamedTuple):
    """F = E f(η) for η ~ N(m, v), with ∂F/∂m and ∂F/∂v of the sum that gave it; each [N].

    Infinite where the expectation is, nan where f is. ``error`` is an estimate of the largest error of the three,
    relative to E|f|, E|f'| and E|z f'| / 2√v.
    """

    value: Tensor
    d_mean: Tensor
    d_variance: Tensor
    error: Tensor


Rule = Callable[..., Expected]


@dataclass(frozen=True)
class CurvedFunction:
    """f(η, *data), elementwise, and whatever makes its expectation cheaper or surer.

    ``data``: tensors [N] (or of one element), one number a row; ``value`` and ``derivative`` see
    them as [rows, 1] beside η [rows, nodes]. ``derivative`` is left to autograd where it is None.
    ``centre`` ± i ``distance``: f's singularities nearest to the real axis, a float or one a row;
    with ``centre`` f must be analytic in the sectors to its left and right too (|arg| < .65).
    ``rule``: E f in closed form or at constant cost, a function of (mean, variance, *data [N]).
    """

    value: Callable[..., Tensor]
    data: tuple[Tensor, ...] = ()
    derivative: Callable[..., Tensor] | None = None
    distance: float | Tensor | None = None
    centre: float | Tensor | None = None
    rule: Rule | None = None

    def at(self, rows: Tensor | slice) -> "CurvedFunction":
        """The same function for some of the rows."""
        return replace(
            self,
            data=tuple(of_rows(d, rows) for d in self.data),
            distance=of_rows(self.distance, rows),
            centre=of_rows(self.centre, rows),
        )

    def with_derivatives(self, eta: Tensor, second: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """f, f' and, if asked for, f'' at η [rows, nodes]."""
        data = tuple(d.unsqueeze(-1) if d.dim() else d for d in self.data)
        if self.derivative is not None and not second:
            with torch.no_grad():
                return self.value(eta, *data), self.derivative(eta, *data), None
        with torch.enable_grad():
            eta = eta.detach().requires_grad_()
            value = self.value(eta, *data)
            if self.derivative is not None:
                first = self.derivative(eta, *data)
            else:
                first = _derivative(value, eta, second)
            curvature = _derivative(first, eta, False).detach() if second else None
            return value.detach().expand_as(eta), first.detach().expand_as(eta), curvature


def of_rows(value, rows):
    """A number a row taken for some rows; one number stays."""
    is_rowwise = isinstance(value, Tensor) and value.numel() > 1
    return value[rows] if is_rowwise else value


def _derivative(value: Tensor, eta: Tensor, again: bool) -> Tensor:
    """∂ value / ∂ η of an elementwise function; zero where the function is constant."""
    if not value.requires_grad:
        return torch.zeros_like(eta)
    (gradient,) = torch.autograd.grad(value.sum(), eta, create_graph=again, allow_unused=True)
    return torch.zeros_like(eta) if gradient is None else gradient
