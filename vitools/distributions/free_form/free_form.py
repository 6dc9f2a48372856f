"""A density of one scalar given by its values on panels.

On each panel of the coordinate u (:mod:`vitools.distributions.free_form.line`) log q is the polynomial through
its values at 21 nodes; beyond the last panel at either end it goes on as a straight line:

    log q(s) = L(u(s)) - log ds/du,    L(u) = L(e) + b |u - e| beyond an edge e

Such a tail is a power law of s, or of the distance to a bound. It is how a density that no textbook
names is drawn from and saved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from vitools.distributions.free_form.gauss_kronrod import (
    KRONROD,
    NODES,
    SIZE,
    coefficients,
    legendre,
    legendre_derivative,
    legendre_integral,
)
from vitools.distributions.free_form.line import line_of

_FARTHEST_COORDINATE = 1e4
_ROUNDS = 60
_STOPS = torch.cat([-NODES.new_ones(1), NODES, NODES.new_ones(1)])
_TO_NODES = legendre_integral(_STOPS).T.contiguous()
_EVENT_DIMS = {"edges": 1, "log_density": 2, "lower": 0, "upper": 0, "tail_slopes": 1}
_AT_ONCE = 2**17
"""Values whose polynomials are held in memory together."""


class _End(NamedTuple):
    """One end of the panels: all [B]."""

    outward: float
    edge: Tensor
    height: Tensor  # L(e)
    slope: Tensor  # outwards, -inf where nothing lies beyond
    is_open: Tensor  # the line is the density's own, so that its moments count
    mass: Tensor


class FreeForm(TorchDistribution):
    """A scalar whose log density is a polynomial on each panel.

    Args:
        edges: [*batch, P + 1], ascending, in the unconstrained coordinate; a panel of width zero
            (at either end only) counts for nothing.
        log_density: [*batch, P, 21], L at the nodes of :data:`~vitools.distributions.free_form.gauss_kronrod.NODES`
            in every panel, up to a constant; with respect to du, log ds/du included.
        lower, upper: bounds of s, [*batch] or fewer dims; infinite where there is none.
        tail_slopes: [*batch, 2], the slope of L outwards beyond the first and the last panel where
            it is a line there; -inf where L falls faster: then it goes on by the slope at the edge;
            inf where the density is cut off there.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        name: constraints.dependent(is_discrete=False, event_dim=dims)
        for name, dims in _EVENT_DIMS.items()
    }
    has_rsample = False

    def __init__(
        self,
        edges: Tensor,
        log_density: Tensor,
        lower: Tensor,
        upper: Tensor,
        tail_slopes: Tensor,
        validate_args: bool | None = None,
    ):
        batch = edges.shape[:-1]
        self.edges, self.log_density = edges.contiguous(), log_density.contiguous()
        self.tail_slopes = tail_slopes.contiguous()
        self.lower, self.upper = (x.expand(batch).contiguous() for x in (lower, upper))
        self._line = line_of(self.lower, self.upper, batch)
        self._prepare(batch.numel())
        super().__init__(batch, torch.Size(), validate_args=validate_args)

    def _prepare(self, size: int) -> None:
        edges = self.edges.reshape(size, -1)
        raw = self.log_density.reshape(size, -1, SIZE)
        self._edges, self._half = edges.contiguous(), edges.diff(dim=-1) / 2
        alive = self._half > 0
        top = torch.where(alive.unsqueeze(-1), raw, -torch.inf).amax((1, 2), keepdim=True)
        raw = raw - top
        self._whole = (raw > -torch.inf).all(-1) & alive
        self._polynomial = coefficients(torch.where(self._whole.unsqueeze(-1), raw, 0.0))
        density = torch.where(alive.unsqueeze(-1), raw.exp(), 0.0)
        self._density = coefficients(density)
        masses = (density @ KRONROD) * self._half
        self._first = alive.long().argmax(-1)
        self._last = alive.shape[-1] - 1 - alive.flip(-1).long().argmax(-1)
        slopes = self.tail_slopes.reshape(size, 2)
        ends = [self._end(side, slopes[:, i]) for i, side in enumerate((-1.0, 1.0))]
        total = masses.sum(-1) + ends[0].mass + ends[1].mass
        self._log_total = total.log()
        self._ends = [
            end._replace(height=end.height - self._log_total, mass=end.mass / total) for end in ends
        ]
        self._heights = raw - self._log_total[:, None, None]
        self._weights = density * KRONROD * self._half.unsqueeze(-1) / total[:, None, None]
        self._density = self._density / total[:, None, None]
        below = torch.cat([self._ends[0].mass.unsqueeze(-1), masses / total.unsqueeze(-1)], -1)
        self._cumulative = below.cumsum(-1)

    def _end(self, outward: float, given: Tensor) -> _End:
        panel = self._first if outward < 0 else self._last
        place = panel.unsqueeze(-1)
        edge = self._edges.gather(1, place + (outward > 0)).squeeze(-1)
        half = self._half.gather(1, place).squeeze(-1)
        polynomial = self._polynomial.gather(1, place.unsqueeze(-1).expand(-1, -1, SIZE))[:, 0]
        x = torch.full_like(half, outward)
        height = (polynomial * legendre(x)).sum(-1)
        own = (polynomial * legendre_derivative(x)).sum(-1) * outward / half
        whole = self._whole.gather(1, place).squeeze(-1)
        is_open, is_cut = given.isfinite(), given == torch.inf
        slope = torch.where(is_open, given, torch.where(whole & (own < 0), own, -torch.inf))
        slope = torch.where(is_cut, -torch.inf, slope)
        height = torch.where(whole & ~is_cut, height, -torch.inf)
        return _End(outward, edge, height, slope, is_open, height.exp() / slope.abs())

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        below, above = self._line.bounded_below, self._line.bounded_above
        if below and above:
            return constraints.interval(self.lower, self.upper)
        if below:
            return constraints.greater_than(self.lower)
        return constraints.less_than(self.upper) if above else constraints.real

    def reaches(self, value: Tensor) -> Tensor:
        """Where values are between the ends at which the density is cut off."""
        return self._each(self._reaches, value)

    def _reaches(self, s: Tensor) -> Tensor:
        u, _ = self._coordinates(s)
        low, high = (slopes == torch.inf for slopes in self.tail_slopes.reshape(-1, 2).T)
        first = self._edges.gather(1, self._first.unsqueeze(-1))
        last = self._edges.gather(1, self._last.unsqueeze(-1) + 1)
        rounding = 1e-12 * (1 + u.abs())  # of coordinates
        below, above = u < first - rounding, u > last + rounding
        return ~((below & low.unsqueeze(-1)) | (above & high.unsqueeze(-1)))

    def expand(self, batch_shape: Any, _instance: Any = None) -> FreeForm:
        batch = torch.Size(batch_shape)
        return FreeForm(
            self.edges.expand(*batch, -1),
            self.log_density.expand(*batch, -1, -1),
            self.lower.expand(batch),
            self.upper.expand(batch),
            self.tail_slopes.expand(*batch, -1),
            validate_args=False,
        )

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self._each(self._log_prob, value)

    def cdf(self, value: Tensor) -> Tensor:
        return self._each(self._cdf, value)

    def icdf(self, value: Tensor) -> Tensor:
        return self._each(self._icdf, value)

    def _log_prob(self, s: Tensor) -> Tensor:
        u, log_jacobian = self._coordinates(s)
        panel, x = self._located(u)
        inside = self._polynomial_at(self._polynomial, panel, x) - self._log_total.unsqueeze(-1)
        inside = torch.where(self._whole.gather(1, panel), inside, -torch.inf)
        for end in self._ends:
            past = (u - end.edge.unsqueeze(-1)) * end.outward
            beyond = end.height.unsqueeze(-1) + torch.where(
                past > 0, end.slope.unsqueeze(-1) * past, 0.0
            )
            is_cut = ((end.height == -torch.inf) & ~end.is_open).unsqueeze(-1)
            inside = torch.where((past > 0) | ((past == 0) & ~is_cut), beyond, inside)
        outside = (s < self._column(self.lower)) | (s > self._column(self.upper))
        return torch.where(outside, -torch.inf, inside - log_jacobian)

    def _cdf(self, s: Tensor) -> Tensor:
        u, _ = self._coordinates(s)
        panel, x = self._located(u)
        within = (self._at(self._density, panel) * legendre_integral(x)).sum(-1)
        found = self._cumulative.gather(1, panel) + within * self._half.gather(1, panel)
        low, high = (end.mass.unsqueeze(-1) * self._decay(end, u) for end in self._ends)
        found = torch.where(u <= self._ends[0].edge.unsqueeze(-1), low, found)
        found = torch.where(u >= self._ends[1].edge.unsqueeze(-1), 1 - high, found)
        found = torch.where(s <= self._column(self.lower), 0.0, found)
        return torch.where(s >= self._column(self.upper), 1.0, found).clamp(0.0, 1.0)

    def _icdf(self, p: Tensor) -> Tensor:
        lower, upper = self._ends
        panel = torch.searchsorted(self._cumulative, p, right=True) - 1
        panel = panel.clamp(self._first.unsqueeze(-1), self._last.unsqueeze(-1))
        x = self._solved(panel, p)
        left, half = self._edges.gather(1, panel), self._half.gather(1, panel)
        u = left + half * (1 + x)
        for end, beyond in ((lower, p), (upper, 1 - p)):
            mass, edge = end.mass.unsqueeze(-1), end.edge.unsqueeze(-1)
            reach = (beyond / mass).log() / end.slope.unsqueeze(-1)
            u = torch.where(beyond < mass, edge + end.outward * reach, u)
        return self._inside(u)

    def sample(self, sample_shape: Sequence[int] | torch.Size = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            uniform = torch.rand(shape, dtype=self.edges.dtype, device=self.edges.device)
            return self.icdf(uniform.clamp(min=torch.finfo(self.edges.dtype).tiny))

    @property
    def mean(self) -> Tensor:
        return self._mean().reshape(self.batch_shape)

    @property
    def variance(self) -> Tensor:
        mean = self._mean()
        centre = torch.where(mean.isfinite(), mean, 0.0)
        found = self._moment(centre, 2)
        return torch.where(mean.isfinite(), found, torch.inf).reshape(self.batch_shape)

    def entropy(self) -> Tensor:
        jacobian = self._log_jacobian(self._nodes().flatten(1)).reshape(self._heights.shape)
        terms = torch.where(self._weights > 0, self._heights - jacobian, 0.0)
        total = (self._weights * terms).sum((1, 2))
        for end, slope in zip(self._ends, self._line.slopes, strict=True):
            height = end.height - self._log_jacobian(end.edge.unsqueeze(-1)).squeeze(-1)
            drift = (end.slope - end.outward * slope) / end.slope.abs()
            total = total + torch.where(end.mass > 0, end.mass * (height + drift), 0.0)
        return -total.reshape(self.batch_shape)

    def quadrature(self) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes s, log q(s) and weights (q ds) on the panels, [*batch, P * 21]."""
        u = self._nodes().flatten(1)
        density = self._heights.flatten(1) - self._log_jacobian(u)
        found = (self._inside(u), density, self._weights.flatten(1))
        s, density, weights = (x.reshape(*self.batch_shape, -1) for x in found)
        return s, density, weights

    def _mean(self) -> Tensor:
        return self._moment(torch.zeros_like(self._log_total), 1)

    def _moment(self, centre: Tensor, order: int) -> Tensor:
        """E (s - c)^order, [B]. Beyond an edge s = bound + r e^-x, or r e^x where there is none."""
        nodes = self._nodes().flatten(1)
        weights = self._weights.flatten(1)
        away = torch.where(weights > 0, self._value(nodes) - centre.unsqueeze(-1), 0.0)
        root = weights.sqrt()
        total = ((away * root) * (away ** (order - 1) * root)).sum(-1)
        bounded = (self._line.bounded_below, self._line.bounded_above)
        for end, bound, is_bounded in zip(
            self._ends, (self.lower, self.upper), bounded, strict=True
        ):
            base = bound.reshape(-1) if is_bounded else torch.zeros_like(centre)
            reach = self._value(end.edge.unsqueeze(-1)).squeeze(-1) - base
            for j in range(order + 1):
                decay = end.slope.abs() + (j if is_bounded else -j)
                power = (j * reach.abs().log() + end.height).exp() * reach.sign() ** j
                part = math.comb(order, j) * (base - centre) ** (order - j) * power
                some = (end.mass > 0) | (end.is_open & (end.height > -torch.inf))
                endless = (decay <= 1e-12) & end.is_open
                part = torch.where(endless, part.sign() * torch.inf, part / decay)
                total = total + torch.where(some & (end.is_open | (decay > 0)), part, 0.0)
        return total

    def _each(self, function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
        """A function of values [B, n], applied to values of any shape over the batch."""
        batch = self.batch_shape
        shape = torch.broadcast_shapes(value.shape, batch)
        wide = [
            i for i in range(-len(batch), 0) if shape[i] != batch[i]
        ]  # one density, many values
        places = list(range(len(wide)))
        values = value.to(self.edges.dtype).expand(shape).movedim(wide, places)
        lead = values.shape[: len(shape) - len(batch) + len(wide)]
        rows = values.reshape(lead.numel(), len(self._edges)).T
        parts = rows.split(max(1, _AT_ONCE // max(1, len(rows))), 1)
        results = torch.cat([function(part.contiguous()) for part in parts], 1)
        return results.T.reshape(values.shape).movedim(places, wide)

    def _column(self, bound: Tensor) -> Tensor:
        return bound.reshape(-1, 1)

    def _value(self, u: Tensor) -> Tensor:
        return self._line.value(u.reshape(*self.lower.shape, -1)).reshape(u.shape)

    def _log_jacobian(self, u: Tensor) -> Tensor:
        return self._line.log_jacobian(u.reshape(*self.lower.shape, -1)).reshape(u.shape)

    def _inside(self, u: Tensor) -> Tensor:
        """s(u), never rounded onto a bound."""
        s, lower, upper = self._value(u), self._column(self.lower), self._column(self.upper)
        s = torch.where(lower.isfinite(), torch.maximum(s, torch.nextafter(lower, upper)), s)
        return torch.where(upper.isfinite(), torch.minimum(s, torch.nextafter(upper, lower)), s)

    def _coordinates(self, s: Tensor) -> tuple[Tensor, Tensor]:
        inside = s.clamp(self._column(self.lower), self._column(self.upper))
        lead = inside.reshape(*self.lower.shape, inside.shape[-1])
        u = self._line.coordinate(lead).reshape(s.shape)
        u = u.clamp(-_FARTHEST_COORDINATE, _FARTHEST_COORDINATE)
        return u, self._log_jacobian(u)

    def _nodes(self) -> Tensor:
        middle = (self._edges[:, 1:] + self._edges[:, :-1]) / 2
        return middle.unsqueeze(-1) + self._half.unsqueeze(-1) * NODES

    def _located(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The panel of each u [B, n], and where in it, in [-1, 1]."""
        panel = torch.searchsorted(self._edges, u.contiguous(), right=True) - 1
        panel = panel.clamp(self._first.unsqueeze(-1), self._last.unsqueeze(-1))
        x = (u - self._edges.gather(1, panel)) / self._half.gather(1, panel) - 1
        return panel, x.clamp(-1.0, 1.0)

    def _at(self, table: Tensor, panel: Tensor) -> Tensor:
        return table.gather(1, panel.unsqueeze(-1).expand(-1, -1, SIZE))

    def _polynomial_at(self, table: Tensor, panel: Tensor, x: Tensor) -> Tensor:
        return (self._at(table, panel) * legendre(x)).sum(-1)

    def _decay(self, end: _End, u: Tensor) -> Tensor:
        past = ((u - end.edge.unsqueeze(-1)) * end.outward).clamp(min=0.0)
        return torch.where(past > 0, end.slope.unsqueeze(-1) * past, 0.0).exp()

    def _solved(self, panel: Tensor, p: Tensor) -> Tensor:
        """x in the panel with cdf p: Newton, kept in a bracket by bisection."""
        table = self._at(self._density, panel)
        half = self._half.gather(1, panel)
        wanted = (p - self._cumulative.gather(1, panel)) / half
        rounding = 4 * torch.finfo(p.dtype).eps * p / half
        reached = table @ _TO_NODES
        place = (reached < wanted.unsqueeze(-1)).sum(-1, keepdim=True).clamp(1, SIZE + 1)
        below, above = (reached.gather(-1, i).squeeze(-1) for i in (place - 1, place))
        low, high = (_STOPS[i.squeeze(-1)] for i in (place - 1, place))
        x = low + (high - low) * ((wanted - below) / (above - below)).nan_to_num(0.5).clamp(
            0.0, 1.0
        )
        for _ in range(_ROUNDS):
            gap = (table * legendre_integral(x)).sum(-1) - wanted
            low, high = torch.where(gap < 0, x, low), torch.where(gap < 0, high, x)
            step = x - gap / (table * legendre(x)).sum(-1)
            new = torch.where((step >= low) & (step <= high), step, (low + high) / 2)
            new = torch.where(gap.abs() <= rounding, x, new)
            settled = bool(((new - x).abs() < 1e-14).all())
            x = new
            if settled:
                break
        return x
