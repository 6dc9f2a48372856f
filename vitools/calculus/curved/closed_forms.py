"""Expectations in closed form: exponentials, kinks, powers.

Each is a function of the mean and variance [N] of η and of the data [N], and gives F, ∂F/∂m, ∂F/∂v.
"""

import math

import torch
from torch import Tensor

from vitools.calculus.curved.function import Expected
from vitools.calculus.curved.nodes import normal_density


def exact(value: Tensor, d_mean: Tensor, d_variance: Tensor) -> Expected:
    """A closed form errs by rounding."""
    return Expected(value, d_mean, d_variance, torch.full_like(value, torch.finfo(value.dtype).eps))


def exponential(mean: Tensor, variance: Tensor, rate: Tensor) -> Expected:
    """E e^(rη) = e^(rm + r²v/2); infinite where that overflows."""
    value = (rate * mean + rate**2 * variance / 2).exp()
    return exact(value, _times(rate, value), _times(rate**2 / 2, value))


def _times(factor: Tensor, value: Tensor) -> Tensor:
    return torch.where(factor == 0, 0.0, factor * value)


def ramp(mean: Tensor, variance: Tensor, knot: Tensor) -> Expected:
    """E max(η - c, 0) = aΦ(a/s) + sφ(a/s), a = m - c; at v = 0 and a = 0 ∂F/∂v is infinite."""
    sd, distance = variance.sqrt(), mean - knot
    z = torch.where(distance == 0, 0.0, distance / sd)
    below = torch.special.ndtr(z)
    density = normal_density(z)
    # in the tail the two terms cancel: with Mills' ratio R = Φ(-x) / φ(x) it is sφ(1 - xR), x = -z
    x = (-z).clamp(min=0.0)
    left = sd * density * _one_minus_mills(x)
    value = torch.where(z < 0, torch.where(sd == 0, 0.0, left), distance * below + sd * density)
    return exact(value, below, torch.where(density == 0, 0.0, density / (2 * sd)))


def _one_minus_mills(x: Tensor) -> Tensor:
    """1 - xΦ(-x)/φ(x) for x ≥ 0, from its continued fraction where the difference cancels."""
    x = x.clamp(max=1e8)
    direct = 1 - x * torch.special.erfcx(x / math.sqrt(2)) * math.sqrt(math.pi / 2)
    # R = 1 / (x + t), t = 1 / (x + 2 / (x + 3 / …)); 1 - xR = t / (x + t)
    tail = torch.zeros_like(x)
    for k in range(60, 0, -1):
        tail = k / (x + tail).clamp(min=1e-300)
    return torch.where(x < 4, direct, tail / (x + tail))


def distance(mean: Tensor, variance: Tensor, knot: Tensor) -> Expected:
    """E |η - c| = 2 E max(η - c, 0) - (m - c)."""
    upper = ramp(mean, variance, knot)
    lower = ramp(-mean, variance, -knot)
    return exact(upper.value + lower.value, upper.d_mean - lower.d_mean, 2 * upper.d_variance)


def squared_ramp(mean: Tensor, variance: Tensor, knot: Tensor) -> Expected:
    """E max(η - c, 0)² = (a² + v)Φ(a/s) + asφ(a/s) = a E max(η - c, 0) + vΦ(a/s)."""
    simple = ramp(mean, variance, knot)
    value = (mean - knot) * simple.value + variance * simple.d_mean
    return exact(value.clamp(min=0.0), 2 * simple.value, simple.d_mean)


def power(mean: Tensor, variance: Tensor, degree: int) -> Expected:
    """E η^k = m E η^(k-1) + (k-1) v E η^(k-2); its derivatives k E η^(k-1) and k(k-1)/2 E η^(k-2)."""
    moments = [torch.zeros_like(mean), torch.zeros_like(mean), torch.ones_like(mean)]
    for k in range(1, degree + 1):
        moments.append(mean * moments[-1] + (k - 1) * variance * moments[-2])
    *_, second, first, value = moments
    return exact(value, degree * first, degree * (degree - 1) / 2 * second)
