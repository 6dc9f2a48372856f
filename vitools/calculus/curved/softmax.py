"""An upper bound on E log Σ_k e^(η_k) for Gaussian predictors: the tilted bound (Knowles & Minka 2011).

For any a, E log Σ e^(η_k) = aᵀm + E log Σ e^(η_k - aᵀη) ≤ aᵀm + log Σ E e^(η_k - aᵀη), that is

    B(a) = ½ aᵀΣa + log Σ_k exp(m_k + ½ Σ_kk - (Σa)_k),

convex in a, with gradient Σ(a - p), p the softmax of the exponents: the best a is its own p. a = 0 is
log Σ e^(m + v/2). Newton steps solve (I + (diag p - ppᵀ)Σ) δ = p - a, halved while B rises. Large
variances make p nearly one-hot and B nearly polyhedral, so log Σ exp x is cooled, T log Σ exp(x / T),
from T = max v / 4 down to 1. At the best a the
derivatives are ∂B/∂m = p and ∂B/∂Σ = ½ (diag p - ppᵀ); reported are those at the a reached, for which
B is a bound whether or not it is the best.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vitools.errors import NumericalError

NUMBERS_AT_ONCE = 1 << 18
MOST_STEPS, MOST_HALVINGS = 200, 40
COOLING, LOOSE = 3.0, 0.1


class SoftmaxBound(NamedTuple):
    """B [N], ∂B/∂m [N, K], ∂B/∂v [N, K] or ∂B/∂Σ [N, K, K], and the tilt a [N, K]."""

    value: Tensor
    d_mean: Tensor
    d_covariance: Tensor
    tilt: Tensor


def softmax_bound(mean: Tensor, covariance: Tensor, *, tolerance: float = 1e-10) -> SoftmaxBound:
    """The bound for means [N, K] and variances [N, K] or covariances [N, K, K].

    Each a is found until it differs from its p by at most ``tolerance``, or B no longer falls.
    """
    mean, covariance = mean.detach().double(), covariance.detach().double()
    if mean.dim() != 2 or covariance.shape not in (mean.shape, (*mean.shape, mean.shape[-1])):
        raise NumericalError(
            "the softmax bound takes means [N, K] and variances [N, K] or covariances [N, K, K]; "
            f"got {tuple(mean.shape)} and {tuple(covariance.shape)}."
        )
    variance = covariance if covariance.dim() == 2 else covariance.diagonal(dim1=-2, dim2=-1)
    if not bool(mean.isfinite().all()) or not bool((variance >= 0).all()):
        raise NumericalError(
            "the softmax bound takes finite means and variances that are not negative; "
            f"got {int((~mean.isfinite()).sum())} means that are not finite, "
            f"{int((~(variance >= 0)).sum())} variances that are negative or nan."
        )
    at_once = max(1, NUMBERS_AT_ONCE // max(1, covariance[:1].numel()))
    parts = [
        _bound(m, c, tolerance)
        for m, c in zip(mean.split(at_once), covariance.split(at_once), strict=True)
    ]
    return SoftmaxBound(*(torch.cat(pieces) for pieces in zip(*parts, strict=True)))


def softmax_bound_of_runs(
    runs: int, mean: Tensor, covariance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """B, ∂B/∂m and ∂B/∂Σ of any rows; nan where a row is not finite."""
    fine = mean.isfinite().all(-1) & covariance.isfinite().all(-1).all(-1)
    found = softmax_bound(
        torch.where(fine[:, None], mean, 0.0), torch.where(fine[:, None, None], covariance, 0.0)
    )
    value, d_mean, d_covariance = (
        torch.where(fine.reshape(-1, *[1] * (x.dim() - 1)), x, torch.nan) for x in found[:3]
    )
    return value, d_mean, d_covariance


class _Independent:
    """Σ = diag v, of [N, K]."""

    def __init__(self, variance: Tensor):
        self.variance = self.diagonal = variance

    def times(self, a: Tensor) -> Tensor:
        return self.variance * a

    def step(self, p: Tensor, residual: Tensor, heat: Tensor) -> Tensor:
        """(I + diag(pv) - p(pv)ᵀ)⁻¹ r by Sherman and Morrison; 1 - Σ pv p/(1 + pv) = Σ p/(1 + pv)."""
        pv = p * self.variance / heat.unsqueeze(-1)
        within, along = residual / (1 + pv), p / (1 + pv)
        share = (pv * within).sum(-1, keepdim=True) / along.sum(-1, keepdim=True)
        return within + along * share

    def slope(self, p: Tensor, a: Tensor) -> Tensor:
        return a**2 / 2 + p * (0.5 - a)

    def at(self, rows: Tensor) -> "_Independent":
        return _Independent(self.variance[rows])


class _Joint:
    """Σ of [N, K, K]."""

    def __init__(self, covariance: Tensor):
        self.covariance = covariance
        self.diagonal = covariance.diagonal(dim1=-2, dim2=-1)

    def times(self, a: Tensor) -> Tensor:
        return (self.covariance @ a.unsqueeze(-1)).squeeze(-1)

    def step(self, p: Tensor, residual: Tensor, heat: Tensor) -> Tensor:
        """(I + (diag p - ppᵀ)Σ)⁻¹ r."""
        average = p.unsqueeze(-2) @ self.covariance
        curvature = (p / heat.unsqueeze(-1)).unsqueeze(-1) * (self.covariance - average)
        identity = torch.eye(p.shape[-1], dtype=p.dtype, device=p.device)
        return torch.linalg.solve(identity + curvature, residual)

    def slope(self, p: Tensor, a: Tensor) -> Tensor:
        cross = p.unsqueeze(-1) * a.unsqueeze(-2)
        own = a.unsqueeze(-1) * a.unsqueeze(-2)
        return (torch.diag_embed(p) + own - cross - cross.mT) / 2

    def at(self, rows: Tensor) -> "_Joint":
        return _Joint(self.covariance[rows])


def _evaluate(mean: Tensor, spread: _Independent | _Joint, a: Tensor, heat: Tensor):
    """½ aᵀΣa + T log Σ exp(exponents / T) and p; B(a) at T = 1."""
    moved = spread.times(a)
    exponents = (mean + spread.diagonal / 2 - moved) / heat.unsqueeze(-1)
    return (a * moved).sum(-1) / 2 + heat * exponents.logsumexp(-1), exponents.softmax(-1)


def _bound(mean: Tensor, covariance: Tensor, tolerance: float) -> SoftmaxBound:
    spread = _Independent(covariance) if covariance.dim() == 2 else _Joint(covariance)
    heat = (spread.diagonal.amax(-1) / 4).clamp(min=1.0)
    tilt = (mean / heat.unsqueeze(-1)).softmax(-1)
    rows = torch.arange(len(mean), device=mean.device)
    for _ in range(MOST_STEPS):
        hot = heat[rows]
        tilt[rows], off, falls = _newton(mean[rows], spread.at(rows), tilt[rows], hot)
        done = ~falls | (off <= torch.where(hot > 1, LOOSE, tolerance))
        heat[rows] = torch.where(done, hot / COOLING, hot).clamp(min=1.0)
        rows = rows[~done | (hot > 1)]
        if not len(rows):
            break
    value, p = _evaluate(mean, spread, tilt, torch.ones_like(heat))
    return SoftmaxBound(value, p, spread.slope(p, tilt), tilt)


def _newton(mean, spread, a: Tensor, heat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """a after a step that is halved until B falls, its distance from p, and whether B fell."""
    value, p = _evaluate(mean, spread, a, heat)
    residual = p - a
    direction = spread.step(p, residual, heat)
    descent = (spread.times(residual) * direction).sum(-1)  # -∇Bᵀ direction
    rounding = 8 * torch.finfo(a.dtype).eps * (1 + value.abs())
    length = torch.ones_like(value)
    for _ in range(MOST_HALVINGS):
        moved = a + length.unsqueeze(-1) * direction
        new, after = _evaluate(mean, spread, moved, heat)
        falls = new <= value - 1e-4 * length * descent + rounding
        if bool(falls.all()):
            break
        length = torch.where(falls, length, length / 2)
    moved = torch.where(falls.unsqueeze(-1), moved, a)
    return moved, (after - moved).abs().amax(-1), falls
