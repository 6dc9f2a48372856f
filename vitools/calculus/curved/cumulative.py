"""Logarithms of the normal distribution function and of its differences, with stable derivatives."""

import math

import torch
from torch import Tensor

from vitools.calculus.curved.nodes import normal_density

ROOT_HALF = math.sqrt(0.5)


def log_ndtr(x: Tensor) -> Tensor:
    """log Φ(x)."""
    return torch.special.log_ndtr(x)


def inverse_mills(x: Tensor) -> Tensor:
    """(log Φ)'(x) = φ(x) / Φ(x) = √(2/π) / erfcx(-x/√2)."""
    right = normal_density(x.clamp(min=0.0)) / torch.special.ndtr(x.clamp(min=0.0))
    left = math.sqrt(2 / math.pi) / torch.special.erfcx(-x.clamp(max=0.0) * ROOT_HALF)
    return torch.where(x > 0, right, left)


def log_ndtr_difference(low: Tensor, high: Tensor) -> Tensor:
    """log[Φ(b) - Φ(a)] for a < b; in the tails from the ratio to φ at the end nearer to zero."""
    low, high, _ = _to_the_left(low, high)
    difference = torch.special.ndtr(high) - torch.special.ndtr(low)
    direct = torch.where(high > 0, difference, 1.0).log()
    edge = high.clamp(max=0.0)
    tail = _ratio(low, edge).log() - edge**2 / 2 - math.log(2 * math.pi) / 2
    return torch.where(high > 0, direct, tail)


def log_ndtr_difference_slope(low: Tensor, high: Tensor) -> Tensor:
    """[φ(b) - φ(a)] / [Φ(b) - Φ(a)], its derivative as both ends move together."""
    low, high, sign = _to_the_left(low, high)
    difference = torch.special.ndtr(high) - torch.special.ndtr(low)
    drop = -torch.expm1((high - low) * (high + low) / 2)  # 1 - φ(a)/φ(b); b² - a² without squares
    middle = normal_density(high) * drop / torch.where(high > 0, difference, 1.0)
    tail = drop / _ratio(low, high.clamp(max=0.0))
    return sign * torch.where(high > 0, middle, tail)


def _to_the_left(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mirrored where the interval's middle is right of zero, and the sign of that."""
    mirrored = low + high > 0
    sign = torch.where(mirrored, -1.0, 1.0).to(low.dtype)
    return torch.where(mirrored, -high, low), torch.where(mirrored, -low, high), sign


def _ratio(low: Tensor, high: Tensor) -> Tensor:
    """[Φ(b) - Φ(a)] / φ(b) for a < b ≤ 0."""
    low = torch.minimum(low, high)
    mills = (torch.special.erfcx(-x * ROOT_HALF) for x in (high, low))
    upper, lower = mills
    fall = torch.exp((high - low) * (high + low) / 2)
    return math.sqrt(math.pi / 2) * (upper - fall * lower)
