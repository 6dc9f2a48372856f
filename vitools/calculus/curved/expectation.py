"""E f(η) for η ~ N(m, v), with the derivatives of the sum itself.

With nodes z_j and weights w_j, F = Σ_j w_j f(m + √v z_j), ∂F/∂m = Σ_j w_j f'(m + √v z_j) and
∂F/∂v = Σ_j w_j z_j f'(m + √v z_j) / 2√v: the gradient of what is reported, so that a step along it
ascends whatever the quadrature's error. ½ E f'', equal in the limit, serves where v is so small that
this quotient is rounding.

Where f's distance from its singularities is known the nodes follow from it (``nodes``). Elsewhere the
step is halved until the value and both derivatives stand, and the window is widened while the
integrand does not vanish at its ends. What takes nodes beyond 38 standard deviations, where the
normal density leaves the doubles, counts as infinite; so does a function that overflows inside.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitools.calculus.curved.function import CurvedFunction, Expected
from vitools.calculus.curved.nodes import (
    FARTHEST,
    MOST_NODES,
    Grid,
    exponent,
    grid,
    nodes,
    normal_density,
)
from vitools.errors import NumericalError

NUMBERS_AT_ONCE = 1 << 16
MOST_HALVINGS = 9
LEAST_SD = 1e-4
"""Relative, at which a rough derivative by the variance is taken."""


def expected(
    function: CurvedFunction | Callable[[Tensor], Tensor],
    mean: Tensor,
    variance: Tensor,
    *,
    tolerance: float = 1e-10,
) -> Expected:
    """F, ∂F/∂m and ∂F/∂v of shape [N] for mean and variance [N].

    A plain callable takes η [N, nodes] and always sees all rows, so that what it holds may have shape
    [N, 1]; that takes about a kilobyte a row, and all rows the nodes of the hardest. A
    :class:`CurvedFunction` sees rows in groups. ``tolerance`` is relative to E|f|, E|f'|
    and E|z f'| / 2√v.
    """
    mean, variance = torch.broadcast_tensors(mean.detach().double(), variance.detach().double())
    if mean.dim() != 1 or not bool((variance >= 0).all()) or not bool(mean.isfinite().all()):
        raise NumericalError(
            "an expectation takes means and variances [N], finite and not negative; "
            f"got shape {tuple(mean.shape)}, smallest variance {_least(variance)}, "
            f"{int((~mean.isfinite()).sum())} means that are not finite."
        )
    if not isinstance(function, CurvedFunction):
        return _by_halving(CurvedFunction(function), mean, variance.sqrt(), tolerance, apart=False)
    result = _empty(mean)
    for begin in range(0, len(mean), NUMBERS_AT_ONCE):
        rows = slice(begin, begin + NUMBERS_AT_ONCE)
        part, m, v = function.at(rows), mean[rows], variance[rows]
        if part.rule is not None:
            found = part.rule(m, v, *part.data)
        elif part.distance is not None:
            found = by_distance(part, m, v.sqrt(), tolerance)
        else:
            found = _by_halving(part, m, v.sqrt(), tolerance)
        _put(result, rows, found)
    return result


def roughly_expected(function: CurvedFunction, mean: Tensor, variance: Tensor) -> Expected:
    """The same by nine Gauss-Hermite nodes for any function without a rule: where to look, not what to report."""
    if function.rule is not None:
        return function.rule(mean, variance, *function.data)
    z, weights = (torch.from_numpy(x).to(mean) for x in np.polynomial.hermite_e.hermegauss(9))
    weights = weights / weights.sum()
    sd = variance.sqrt().maximum(LEAST_SD * (1 + mean.abs()))
    result = _empty(mean)
    for rows in torch.arange(len(mean)).split(NUMBERS_AT_ONCE // len(z)):
        m, s = mean[rows], sd[rows]
        f, slope, _ = function.at(rows).with_derivatives(
            m.unsqueeze(-1) + s.unsqueeze(-1) * z, False
        )
        by_variance = (slope * (weights * z)).sum(-1) / (2 * s)
        unknown = torch.full_like(m, math.inf)
        found = Expected((f * weights).sum(-1), (slope * weights).sum(-1), by_variance, unknown)
        _put(result, rows, found)
    return result


def _least(variance: Tensor) -> float:
    return float(variance.min()) if variance.numel() else 0.0


class _Sums(NamedTuple):
    """Σ w f, Σ w f', Σ w z f', their sums of absolute terms, Σ w f'' and Σ w |z f''|; each [rows]."""

    value: Tensor
    first: Tensor
    moment: Tensor
    size: Tensor
    first_size: Tensor
    moment_size: Tensor
    second: Tensor
    second_size: Tensor

    def halved(self, between: "_Sums") -> "_Sums":
        """Of half the step, from the sums at the old nodes and between them."""
        return _Sums(*((a + b) / 2 for a, b in zip(self, between, strict=True)))

    def scales(self, sd: Tensor, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
        """What errors of the three are relative to.

        Derivatives that are nothing beside the value's own rounding need no digits of their own.
        """
        rounding = 10 * torch.finfo(sd.dtype).eps * self.size / sd.clamp(min=1.0)
        floor = rounding / tolerance
        return self.size, self.first_size + floor, self.moment_size + floor

    def change(self, before: "_Sums", sd: Tensor, tolerance: float) -> Tensor:
        """The largest relative change of the three; nan where one is not finite."""
        scales = self.scales(sd, tolerance)
        changes = [
            (new - old).abs() / scale.clamp(min=torch.finfo(scale.dtype).tiny)
            for new, old, scale in zip(self[:3], before[:3], scales, strict=True)
        ]
        return torch.stack(changes).amax(0)


def _remain(size: Tensor, moment_size: Tensor, sums: _Sums, sd: Tensor, tolerance: float) -> Tensor:
    """Whether the integrands have not vanished at the window's ends, by Σ |w f| and Σ |w z f'| there."""
    whole, _, moment = sums.scales(sd, tolerance)
    return ~((size <= tolerance * whole) & (moment_size <= tolerance * moment))


Values = tuple[Tensor, Tensor, Tensor | None]


def _sums(values: Values, z: Tensor, weights: Tensor, sizes: bool) -> _Sums:
    """Sums of f, f' and f'' [rows, nodes] with z and weights [rows or 1, nodes].

    Without ``sizes`` the sums of absolute terms are bounded from below by the sums themselves.
    """
    f, f1, f2 = values
    moment_weights = weights * z
    sums = _dot(f, weights), _dot(f1, weights), _dot(f1, moment_weights)
    nothing = torch.zeros_like(sums[0])
    if not sizes:
        first = sums[1].abs()
        return _Sums(*sums, sums[0].abs(), first, first, nothing, nothing)
    f, f1 = f.abs(), f1.abs()
    distances = moment_weights.abs()
    absolute = _dot(f, weights), _dot(f1, weights), _dot(f1, distances)
    curvature = (nothing, nothing)
    if f2 is not None:
        curvature = _dot(f2, weights), _dot(f2.abs(), distances)
    return _Sums(*sums, *absolute, *curvature)


def _outermost(values: Values, z: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Σ |w f| and Σ |w z f'| of the first and the last node."""
    f, f1, _ = values
    first, last = weights[:, 0], weights[:, -1]
    size = f[:, 0].abs() * first + f[:, -1].abs() * last
    first, last = first * z[:, 0].abs(), last * z[:, -1].abs()
    return size, f1[:, 0].abs() * first + f1[:, -1].abs() * last


def _dot(terms: Tensor, weights: Tensor) -> Tensor:
    """Σ_j w_j t_nj for weights [rows, nodes], or [1, nodes] if all rows share them."""
    return terms @ weights[0] if len(weights) == 1 else torch.linalg.vecdot(terms, weights)


def _is_small(mean: Tensor, sd: Tensor) -> Tensor:
    """Where Σ w z f' / 2√v may be rounding."""
    return sd < 1e-3 * (1 + mean.abs())


def _finish(sums: _Sums, mean: Tensor, sd: Tensor, error: Tensor) -> Expected:
    d_variance = sums.moment / (2 * sd)
    is_small = _is_small(mean, sd)
    if bool(is_small.any()):
        noise = 64 * torch.finfo(mean.dtype).eps
        rounding = noise * (sums.moment_size + mean.abs() * sums.second_size) / (2 * sd)
        curvature = sums.second / 2
        takes = is_small & ((d_variance - curvature).abs() <= rounding) | (sd == 0)
        d_variance = torch.where(takes, curvature, d_variance)
    value, first = sums.value, sums.first
    is_infinite = value.isinf()
    if bool(is_infinite.any()):
        first, d_variance = (
            torch.where(is_infinite & d.isnan(), value.abs(), d) for d in (first, d_variance)
        )
    return Expected(value, first, d_variance, error)


def by_distance(
    function: CurvedFunction, mean: Tensor, sd: Tensor, tolerance: float = 1e-10
) -> Expected:
    """Nodes from the distance to f's singularities, rows in groups that need equally many."""
    accuracy = exponent(tolerance)
    plan = grid(mean, sd, function.distance, function.centre, accuracy)
    result = _empty(mean)
    widen = []
    keys = 2 * plan.number + plan.is_stretched.long()
    for key in torch.unique(keys).tolist():
        count, is_stretched = key // 2, bool(key % 2)
        error = math.exp(-accuracy) if count < MOST_NODES else math.inf
        for rows in (keys == key).nonzero().squeeze(-1).split(max(1, NUMBERS_AT_ONCE // count)):
            m, s, part = mean[rows], sd[rows], function.at(rows)
            own = Grid(*(x[rows] for x in plan))
            eta, z, weights = nodes(m, s, part.distance, part.centre, own, is_stretched)
            is_small = bool(_is_small(m, s).any())
            values = part.with_derivatives(eta, second=is_small)
            sums = _sums(values, z, weights, sizes=is_small)
            _put(result, rows, _finish(sums, m, s, torch.full_like(m, error)))
            ends = _outermost(values, z, weights)
            remain = _remain(*ends, sums, s, tolerance)
            if bool(remain.any()) and not is_small:  # the sums may cancel: take their true sizes
                remain = _remain(*ends, _sums(values, z, weights, sizes=True), s, tolerance)
            widen.append(rows[remain])
    if widen and len(rest := torch.cat(widen)):
        _put(result, rest, _by_halving(function.at(rest), mean[rest], sd[rest], tolerance))
    return result


def _empty(mean: Tensor) -> Expected:
    return Expected(*(torch.empty_like(mean) for _ in Expected._fields))


def _put(result: Expected, rows: Tensor | slice, part: Expected) -> None:
    for whole, values in zip(result, part, strict=True):
        whole[rows] = values


def _by_halving(
    function: CurvedFunction, mean: Tensor, sd: Tensor, tolerance: float, apart: bool = True
) -> Expected:
    """The step halved until nothing moves; rows ``apart`` where f can be asked for some of them."""
    result = _empty(mean)
    size = NUMBERS_AT_ONCE // 32 if apart else max(1, len(mean))
    for rows in torch.arange(len(mean), device=mean.device).split(size):
        if not len(rows):
            break
        part = function.at(rows) if apart else function
        _put(result, rows, _halved_rows(part, mean[rows], sd[rows], tolerance, apart))
    return result


def _halved_rows(
    function: CurvedFunction, mean: Tensor, sd: Tensor, tolerance: float, apart: bool
) -> Expected:
    reach = math.sqrt(2 * exponent(tolerance))
    step = 2 * math.pi / reach
    result = _empty(mean)
    window = torch.full_like(mean, reach)
    while True:
        sums, edge = _equidistant(function, mean, sd, window, step, 0.0)
        remain = _remain(edge.size, edge.moment_size, sums, sd, tolerance) & sums.value.isfinite()
        endless = remain & (window >= FARTHEST)
        sums = _infinite(sums, edge, endless)
        remain = remain & ~endless
        if not bool(remain.any()):
            break
        window = torch.where(remain, window + reach, window).clamp(max=FARTHEST)
    rows = torch.arange(len(mean), device=mean.device)
    for _ in range(MOST_HALVINGS):
        between, _ = _equidistant(function, mean, sd, window, step, step / 2)
        step /= 2
        finite = sums.value.isfinite()
        halved = sums.halved(between)
        error = torch.where(finite, halved.change(sums, sd, tolerance), 0.0).nan_to_num(nan=0.0)
        sums = _Sums(*(torch.where(finite, a, b) for a, b in zip(halved, sums, strict=True)))
        _put(result, rows, _finish(sums, mean, sd, error))
        going_on = error > tolerance
        if not bool(going_on.any()):
            break
        if apart:
            rows, mean, sd, window = (x[going_on] for x in (rows, mean, sd, window))
            sums = _Sums(*(x[going_on] for x in sums))
            function = function.at(going_on)
    return result


def _infinite(sums: _Sums, edge: _Sums, where: Tensor) -> _Sums:
    """Infinite where the integrand has not vanished where the doubles end."""
    value, first, moment = (
        torch.where(where, end.sign() * math.inf, x)
        for end, x in zip(edge[:3], sums[:3], strict=True)
    )
    return sums._replace(value=value, first=first, moment=moment)


def _equidistant(
    function: CurvedFunction, mean: Tensor, sd: Tensor, window: Tensor, step: float, shift: float
) -> tuple[_Sums, _Sums]:
    """Sums, and those of the outermost nodes alone, a few nodes at a time.

    The nodes are z = 0, ± step, ± 2 step, …, moved by the shift, within ± window.
    """
    half = math.floor(float(window.amax()) / step)
    second = bool(_is_small(mean, sd).any())
    at_once = max(1, NUMBERS_AT_ONCE // len(mean))
    alike = bool((window == window[0]).all())
    border = window[:1] if alike else window
    totals: list[Tensor] = []
    for index in torch.arange(-half, half + 1, dtype=mean.dtype, device=mean.device).split(at_once):
        z = (index * step + shift).unsqueeze(0)
        inside = z.abs() <= border.unsqueeze(-1)
        z = torch.where(inside, z, 0.0)  # where f is finite if it is anywhere
        weights = torch.where(inside, normal_density(z) * step, 0.0)
        eta = torch.addcmul(mean.unsqueeze(-1), sd.unsqueeze(-1), z)
        values = function.with_derivatives(eta, second)
        edge = torch.where(z.abs() > border.unsqueeze(-1) - step, weights, 0.0)
        found = [x for w in (weights, edge) for x in _sums(values, z, w, sizes=True)]
        totals = [a + b for a, b in zip(totals, found, strict=True)] if totals else found
    return _Sums(*totals[:8]), _Sums(*totals[8:])
