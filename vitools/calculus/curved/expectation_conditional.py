"""E f(η₁, η₂) as an expectation over one predictor, outer, of that over the other given it, inner.

With o = m_o + L₁₁ z, i | z ~ N(m_i + L₂₁ z, L₂₂²) and G(o, m, v) = E f(o, i) over i, F = Σ_j w_j G_j.
The inner nodes follow f's singularities, wherever the outer predictor puts them; the outer step is
halved until value and derivatives stand. ∂G/∂o = E ∂f/∂o on the same inner nodes, so that

    ∂F/∂m = Σ w (∂G/∂o, ∂G/∂m),   ∂F/∂L₁₁ = Σ w z ∂G/∂o,   ∂F/∂L₂₁ = Σ w z ∂G/∂m,   ∂F/∂(L₂₂²) = Σ w ∂G/∂v

are the derivatives of the sum. Where L₁₁ is so small that quotients by it are rounding, E ∂²f/∂o∂i and
½ E ∂²f/∂o², equal in the limit, stand for ∂F/∂Σ. f may grow as a power, no faster.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vitools.calculus.curved.expectation import by_distance
from vitools.calculus.curved.function import CurvedFunction, Expected
from vitools.calculus.curved.nodes import exponent, normal_density
from vitools.calculus.curved.pair_function import ExpectedPair, Inner, PairFunction

ROWS_AT_ONCE = 1 << 10
MOST_HALVINGS = 7


def expected_conditional(
    function: PairFunction, rule: Inner, mean: Tensor, covariance: Tensor, tolerance: float
) -> ExpectedPair:
    """F, ∂F/∂m and ∂F/∂Σ for mean [N, 2] and covariance [N, 2, 2] of a function with an inner rule."""
    rows = torch.arange(len(mean), device=mean.device)
    if not len(rows):
        return ExpectedPair(mean.sum(-1), mean, covariance, mean.sum(-1))
    parts = [
        _some_rows(function.at(some), rule, mean[some], covariance[some], tolerance)
        for some in rows.split(ROWS_AT_ONCE)
    ]
    return ExpectedPair(*(torch.cat(pieces) for pieces in zip(*parts, strict=True)))


def _some_rows(
    function: PairFunction, rule: Inner, mean: Tensor, covariance: Tensor, tolerance: float
) -> ExpectedPair:
    inner = rule.predictor
    outer = 1 - inner
    first = covariance[:, outer, outer].sqrt()
    cross = torch.where(first > 0, covariance[:, 0, 1] / first, 0.0)
    rest = (covariance[:, inner, inner] - cross**2).clamp(min=0.0)
    means, factors = mean[:, [outer, inner]], torch.stack([first, cross, rest], -1)
    sums, error = _halved(function, rule, means, factors, tolerance)
    value, by_outer, by_inner, by_first, by_cross, by_rest, outer_curvature, cross_curvature = (
        sums.unbind(-1)
    )
    # Σ_oo = L₁₁², Σ_oi = L₁₁ L₂₁, L₂₂² = Σ_ii - Σ_oi² / Σ_oo
    both = (by_cross - 2 * cross * by_rest) / first
    own = (by_first - cross / first * (by_cross - 2 * cross * by_rest)) / (2 * first)
    is_small = _is_small(means, factors)
    both = torch.where(is_small, cross_curvature, both)
    own = torch.where(is_small, outer_curvature / 2, own)
    d_mean, d_covariance = torch.empty_like(mean), torch.empty_like(covariance)
    d_mean[:, outer], d_mean[:, inner] = by_outer, by_inner
    d_covariance[:, outer, outer], d_covariance[:, inner, inner] = own, by_rest
    d_covariance[:, 0, 1] = d_covariance[:, 1, 0] = both / 2
    return ExpectedPair(value, d_mean, d_covariance, error)


def _is_small(means: Tensor, factors: Tensor) -> Tensor:
    return factors[:, 0] < 1e-3 * (1 + means.abs().amax(-1))


def _halved(
    function: PairFunction, rule: Inner, means: Tensor, factors: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """The sums [rows, 8] and the largest relative change of the first six in the last halving."""
    reach = math.sqrt(2 * exponent(tolerance))
    step = 2 * math.pi / reach
    half = math.floor(reach / step)
    z = torch.arange(-half, half + 1, dtype=means.dtype, device=means.device) * step
    current, sizes = _sums(function, rule, means, factors, z, tolerance)
    current, sizes = current * step, sizes * step
    result, errors = current.clone(), torch.zeros_like(means[:, 0])
    rows = torch.arange(len(means), device=means.device)
    for _ in range(MOST_HALVINGS):
        between, more = _sums(function, rule, means, factors, z + step / 2, tolerance)
        new, sizes = (current + between * step) / 2, (sizes + more * step) / 2
        floor = 1e-3 * sizes[:, :1] + torch.finfo(sizes.dtype).tiny
        error = ((new - current).abs() / (sizes + floor))[:, :6].amax(-1).nan_to_num(nan=0.0)
        result[rows], errors[rows] = new, error
        going_on = error > tolerance
        if not bool(going_on.any()):
            break
        z, step = torch.cat([z, z + step / 2]), step / 2
        function = function.at(going_on)
        rows, means, factors = (x[going_on] for x in (rows, means, factors))
        current, sizes = new[going_on], sizes[going_on]
    return result, errors


def _sums(
    function: PairFunction,
    rule: Inner,
    means: Tensor,
    factors: Tensor,
    z: Tensor,
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    """Σ_j φ(z_j) of G, ∂G/∂o, ∂G/∂m, z ∂G/∂o, z ∂G/∂m, ∂G/∂v, E ∂²f/∂o², E ∂²f/∂o∂i; and of their sizes."""
    nodes = len(z)
    first, cross, rest = factors.unsqueeze(1).unbind(-1)
    outer = (means[:, :1] + first * z).flatten()
    inner_mean, inner_sd = (
        (means[:, 1:] + cross * z).flatten(),
        rest.sqrt().expand(-1, nodes).flatten(),
    )
    data = tuple(d.repeat_interleave(nodes) if d.numel() > 1 else d for d in function.data)

    def expectation(value: Callable[..., Tensor], derivative=None) -> Expected:
        assumed = CurvedFunction(
            value,
            data=(outer, *data),
            derivative=derivative,
            distance=rule.distance(outer, *data),
            centre=rule.centre(outer, *data),
        )
        return by_distance(assumed, inner_mean, inner_sd, tolerance)

    def nothing(inner: Tensor, *_: Tensor) -> Tensor:
        return torch.zeros_like(inner)

    def of(inner: Tensor, outer: Tensor, *data: Tensor) -> Tensor:
        pair = (inner, outer) if rule.predictor == 0 else (outer, inner)
        return function.value(*pair, *data)

    own = expectation(of)
    slope = expectation(_slope(of, (1,)), nothing).value
    curvatures = [torch.zeros_like(slope)] * 2
    if bool(_is_small(means, factors).any()):
        curvatures = [expectation(_slope(of, which), nothing).value for which in ((1, 1), (1, 0))]
    value, by_inner, by_rest, _ = own
    moved = z.repeat(len(means))
    terms = [value, slope, by_inner, moved * slope, moved * by_inner, by_rest, *curvatures]
    stacked = torch.stack(terms, -1).unflatten(0, (-1, nodes))
    weights = normal_density(z)
    return weights @ stacked, weights @ stacked.abs()


def _slope(function: Callable[..., Tensor], which: tuple[int, ...]) -> Callable[..., Tensor]:
    """Partial derivatives of a function (inner, outer, *data), one after the other."""

    def derivative(inner: Tensor, outer: Tensor, *data: Tensor) -> Tensor:
        with torch.enable_grad():
            pair = [x.detach().expand(inner.shape).clone().requires_grad_() for x in (inner, outer)]
            value = function(*pair, *data)
            for k, index in enumerate(which):
                again = k + 1 < len(which)
                (value,) = torch.autograd.grad(value.sum(), pair[index], create_graph=again)
        return value.detach()

    return derivative
