"""Where to evaluate f: the trapezoid rule in z, or in t where η = c + d sinh t.

For an integrand analytic in the strip |Im| < a the trapezoid rule of step h errs by e^(-2πa/h) times
the integrand's size on the strip's edge (Trefethen & Weideman 2014). With e^(-L) asked for:

- in z: the edge is a = d/√v or √(2L), whichever is nearer, the normal density there e^(a²/2) larger,
  so h = 2πa / (L + a²/2);
- in t: f's singularities c ± id are at ±iπ/2 whatever v, so the number of nodes grows with log(√v/d)
  only; on |Im t| = y the normal density is at most e^(g/2), M = m - c,
  g = [M² sin²y / cos 2y + d² sin²y] / v, so h = 2πy / (L + g/2).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

FARTHEST = 37.5
"""The normal density is a double for |z| up to here."""

MOST_NODES = 1 << 17
FEW = 36  # as many as a stretched rule takes


def exponent(tolerance: float) -> float:
    """L: four digits beyond the tolerance."""
    return math.log(1 / tolerance) + 9


class Grid(NamedTuple):
    """For each row: ``number`` of equidistant nodes from ``lower`` to ``upper``, in t where ``is_stretched``."""

    number: Tensor
    is_stretched: Tensor
    lower: Tensor
    upper: Tensor


def grid(mean: Tensor, sd: Tensor, distance, centre, exponent: float) -> Grid:
    """The cheaper rule for each row, of mean and sd [N]."""
    reach = math.sqrt(2 * exponent)
    edge = (distance / sd).clamp(max=reach)
    count = 2 * reach * (exponent + edge**2 / 2) / (2 * math.pi * edge)
    lower = torch.full_like(mean, -reach)
    if centre is None or not bool((count > FEW).any()):
        return Grid(_rounded(count), torch.zeros_like(mean, dtype=torch.bool), lower, -lower)
    offset = (mean - centre) / sd  # all lengths in units of the sd
    relative = distance / sd
    step = torch.zeros_like(mean)
    for edge in (0.65, 0.45, reach / (offset**2 + relative**2).sqrt()):
        y = torch.as_tensor(edge).clamp(max=0.65)
        sine2 = y.sin() ** 2
        growth = sine2 * (offset**2 / (2 * y).cos() + relative**2)
        step = torch.maximum(step, 2 * math.pi * y / (exponent + growth / 2))
    low = torch.asinh((offset - reach) / relative)
    high = torch.asinh((offset + reach) / relative)
    stretched_count = (high - low) / step
    is_stretched = (relative < reach) & (stretched_count < 0.6 * count)
    return Grid(
        _rounded(torch.where(is_stretched, stretched_count, count)),
        is_stretched,
        torch.where(is_stretched, low, lower),
        torch.where(is_stretched, high, -lower),
    )


def _rounded(count: Tensor) -> Tensor:
    """Nodes for so many steps, rounded up to 4, 5, 6 or 7 times a power of two: few groups of rows."""
    count = (count + 1).clamp(min=8, max=float(MOST_NODES))
    unit = 2.0 ** (count.log2().floor() - 2)
    return ((count / unit).ceil() * unit).long()


def nodes(mean: Tensor, sd: Tensor, distance, centre, grid: Grid, is_stretched: bool):
    """η [rows, nodes], z and weights [rows or 1, nodes] of rows that share a rule and a count."""
    count = int(grid.number[0])
    index = torch.arange(count, dtype=mean.dtype, device=mean.device)
    mean, sd = mean.unsqueeze(-1), sd.unsqueeze(-1)
    lower, upper = grid.lower.unsqueeze(-1), grid.upper.unsqueeze(-1)
    if not is_stretched:
        lower, upper = lower[:1], upper[:1]
    step = (upper - lower) / (count - 1)
    position = torch.addcmul(lower, index, step)
    if not is_stretched:
        return torch.addcmul(mean, sd, position), position, normal_density(position) * step
    distance, centre = (
        torch.as_tensor(x, dtype=mean.dtype, device=mean.device).unsqueeze(-1)
        for x in (distance, centre)
    )
    grown, shrunk = position.exp(), position.neg_().exp_()
    eta = torch.addcmul(centre, distance / 2, grown - shrunk)  # c + d sinh t
    z = (eta - mean) / sd
    spread = grown.add_(shrunk).mul_(distance / sd * step / 2)
    return eta, z, spread.mul_(normal_density(z))


def normal_density(z: Tensor) -> Tensor:
    """φ(z)."""
    return (-0.5 * z**2).exp() / math.sqrt(2 * math.pi)
