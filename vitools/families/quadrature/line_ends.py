"""What functions of a scalar do towards either end of its line, beyond the numbers that hold it.

In the coordinate u of :mod:`vitools.distributions.free_form.line` a statistic tends to a straight line (log s,
a constant) or to an exponential (a power of s):

    t(u) ≈ α + δ x    or    t(e) exp(p x),    x the distance from the end's edge e outwards,

so that what lies beyond the edge integrates in closed form. With L = Σ η t + log ds/du ≈ L(e) + b x,

    ∫ e^L = e^{L(e)} / |b|,   ∫ t e^L = e^{L(e)} (t(e) / |b| + δ / b²)   or   e^{L(e)} t(e) / |b + p|.

No density exists where b ≥ 0, no moment of a power where b + p ≥ 0. None of this depends on η but b.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from vitools.distributions.free_form.line import FARTHEST, Line

EPSILON = torch.finfo(torch.float64).eps
COARSE, FINEST = 2.0**-20, 2.0**-46
"""Shares of a bound: nearer than the first, s is no longer precise enough; than the second, no use."""

_SCALE = 2.0**-64

Statistics = Callable[[Tensor], Tensor]
"""From s [*batch, n] to t [K, *batch, n]."""


@dataclass(frozen=True)
class Tail:
    """What lies beyond the edges, relative to e^top. Moments [K, 2, B], else [2, B]."""

    mass: Tensor
    moments: Tensor
    slope: Tensor
    """Of L, outwards; -inf where L falls faster than any line."""
    improper: Tensor
    infinite: Tensor
    """The sign of a moment that does not exist, else 0. [K, 2, B]."""


@dataclass(frozen=True)
class LineEnd:
    """The statistics towards one end. Per element [B]; per statistic and element [K, B]."""

    outward: float | Tensor  # the sign of u there
    trusted: Tensor  # u up to which s says precisely how far it is from a bound
    edge: Tensor  # u from which on integrals are closed
    values: Tensor  # t at the edge
    inner: Tensor  # t one step before it
    drift: Tensor  # δ
    power: Tensor  # p, 0 where t is a straight line
    curl: Tensor  # β in t = α + δ x + β e^{-x}, which matters between trusted and edge
    jacobian: Tensor  # log ds/du at the edge
    inner_jacobian: Tensor
    jacobian_slope: float | Tensor

    @cached_property
    def finite(self) -> bool:
        return bool(self.values.isfinite().all() & self.inner.isfinite().all())

    @cached_property
    def grows(self) -> Tensor:
        """Where a statistic is a power rather than a line."""
        return self.power > 0

    def extended(self, u: Tensor) -> Tensor:
        """t [K, B, n] by its asymptote, for u [B, n] beyond the trusted range."""
        x = (u - self.edge.unsqueeze(-1)) * self.outward
        power = self.power.unsqueeze(-1)
        line = self.values.unsqueeze(-1) + self.drift.unsqueeze(-1) * x
        line = line + self.curl.unsqueeze(-1) * torch.special.expm1(-x)
        return torch.where(power > 0, self.values.unsqueeze(-1) * (power * x).exp(), line)

    def tail(self, natural: Tensor, top: Tensor) -> Tail:
        """The integrals beyond the edges of :func:`stacked` ends for η [K, B]."""
        natural = natural.unsqueeze(1)
        used, grows = natural != 0, self.grows
        height = weighted(natural, self.values, self.finite) + self.jacobian
        before = weighted(natural, self.inner, self.finite) + self.inner_jacobian
        driven = (used & grows).any(0)
        parts = torch.where(grows, 0.0, natural * self.drift)
        slope = parts.sum(0) + self.jacobian_slope
        level = -4 * EPSILON * (1 + parts.abs().sum(0))  # what rounding leaves of a slope of 0
        rounding = weighted(16 * EPSILON * natural.abs(), self.values.abs(), self.finite)
        unknown = height.abs() < rounding  # of terms that cancel: left to where they do not
        empty = (height == -torch.inf) | (driven & ((height < before) | unknown))
        improper = ~empty & (driven | (slope >= level))
        steep = torch.where(empty | improper, -1.0, slope).abs()
        half = torch.where(empty | improper, 0.0, ((height - top) / 2).exp())
        mass = half * half / steep
        beyond = slope + self.power
        infinite = grows & (beyond >= level) & ~empty & ~improper
        safe = torch.where(infinite | (beyond == 0), 1.0, beyond).abs()
        at_edge = torch.where(half > 0, self.values, 0.0)
        powers = torch.where(infinite, 0.0, (at_edge * half) * half / safe)
        drift = torch.where(grows, 0.0, self.drift)
        lines = mass * (torch.where(grows, 0.0, at_edge) + drift / steep)
        return Tail(
            mass,
            torch.where(grows, powers, lines),
            torch.where(empty, -torch.inf, slope),
            improper,
            torch.where(infinite, self.values.sign(), 0.0),
        )


def weighted(natural: Tensor, statistics: Tensor, finite: bool | None = None) -> Tensor:
    """Σ_k η_k t_k over the first dimension, a statistic of weight 0 left out even if infinite.

    Terms that overflow but cancel are added up scaled down; ``finite`` where it is known.
    """
    natural = natural.reshape(natural.shape + (1,) * (statistics.dim() - natural.dim()))
    if finite or (finite is None and bool(statistics.isfinite().all())):
        total = natural[0] * statistics[0]
        for eta, t in zip(natural[1:], statistics[1:], strict=True):
            total = torch.addcmul(total, eta, t)
    else:
        total = torch.where(natural == 0, 0.0, natural * statistics).sum(0)
    overflown = total.isnan() | (total == torch.inf)
    if not bool(overflown.any()):
        return total
    scaled = torch.where(natural == 0, 0.0, natural * _SCALE * statistics).sum(0) / _SCALE
    return torch.where(overflown, scaled, total)


def stacked(ends: tuple[LineEnd, LineEnd]) -> LineEnd:
    """Both ends in one: a dimension of two before the elements."""
    fields = (f.name for f in dataclasses.fields(LineEnd))
    pairs = ([torch.as_tensor(getattr(end, name)) for end in ends] for name in fields)
    made = (
        torch.stack([p.unsqueeze(-1) if p.dim() == 0 else p for p in pair], -2) for pair in pairs
    )
    return LineEnd(*made)


def cut_off(end: LineEnd, at: Tensor) -> tuple[LineEnd, Tensor]:
    """The end with nothing beyond u = ``at`` where that lies on the line, and where it does. [B]."""
    inside = at * end.outward < end.trusted * end.outward
    edge = torch.where(inside, at, end.edge)
    jacobian = torch.where(inside, -torch.inf, end.jacobian)
    return dataclasses.replace(end, edge=edge, jacobian=jacobian), inside


def line_end(line: Line, statistics: Statistics, batch: torch.Size, outward: float) -> LineEnd:
    """Probe the statistics towards the end on the side ``outward`` (±1)."""
    size = batch.numel()
    side = 0 if outward < 0 else 1
    trusted, edge = (line.resolved(share)[side].reshape(size) for share in (COARSE, FINEST))
    near_bound = edge.abs() < FARTHEST
    edge = torch.where(near_bound, edge, _finite_up_to(line, statistics, batch, outward, edge))
    trusted = torch.where(near_bound, trusted, edge)
    step = torch.where(near_bound, 4.0, 20.0)

    # u is taken back from the rounded s, which is what the statistics see
    asked = torch.stack([edge - outward * i * step for i in (0, 1, 2)] + [trusted], -1)
    s = line.value(asked.reshape(*batch, 4))
    u = line.coordinate(s).reshape(size, 4)
    u = torch.where(near_bound.unsqueeze(-1), u, asked)
    t = statistics(s).reshape(-1, size, 4)
    last, middle, first, kept = t.unbind(-1)
    outer, inner = ((u[:, i] - u[:, i + 1]) * outward for i in (0, 1))
    rise, earlier = last - middle, middle - first
    drift = rise / outer
    drift = torch.where(
        (2 * drift - (2 * drift).round()).abs() < 1e-12, (2 * drift).round() / 2, drift
    )
    noticed = rise.abs() > 1e-9 * last.abs()
    grows = noticed & (rise.abs() / outer > 1.2 * earlier.abs() / inner) & (last * middle > 0)
    grows = (grows & last.isfinite()) | last.isinf()
    power = torch.where(grows, (last / middle).abs().log() / outer, 0.0)
    power = torch.where(grows & ~(power.isfinite() & (power > 0)), 1.0, power)
    whole = (4 * power).round() / 4
    power = torch.where((power - whole).abs() < 1e-12 * whole, whole, power)
    at_edge = last + drift * (edge - u[:, 0]) * outward
    x = (u[:, 3] - edge) * outward
    curl = torch.where(near_bound, (kept - at_edge - drift * x) / torch.special.expm1(-x), 0.0)
    curl = torch.where(grows | ~curl.isfinite(), 0.0, curl)
    places = torch.stack([edge, edge - outward * step], -1)
    jacobian = line.log_jacobian(places.reshape(*batch, 2)).reshape(size, 2)
    return LineEnd(
        outward,
        trusted,
        edge,
        torch.where(grows, last * (power * (edge - u[:, 0]) * outward).exp(), at_edge),
        middle,
        torch.where(grows, 0.0, drift),
        power,
        curl,
        jacobian[:, 0],
        jacobian[:, 1],
        outward * line.slopes[side],
    )


def _finite_up_to(
    line: Line, statistics: Statistics, batch: torch.Size, outward: float, edge: Tensor
) -> Tensor:
    """|u| up to which every statistic is finite, if they are for ordinary s (30 < |u|)."""
    places = outward * torch.arange(30.0, FARTHEST + 1, 6.0, dtype=torch.float64)
    s = line.value(places.expand(*batch, -1))
    finite = statistics(s).isfinite().all(0).reshape(batch.numel(), -1)
    reached = finite.long().cumprod(-1).sum(-1)
    last = places[(reached - 1).clamp(min=0)]
    return torch.where((reached > 0) & (reached < len(places)), last, edge)
