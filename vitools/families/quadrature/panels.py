"""Integrals of exp(Σ_k η_k t_k + log ds/du) over a line, on panels that are split where it is needed.

Panels begin as a scan of the whole line between the edges of :mod:`vitools.families.quadrature.line_ends`. One
is split

* where log q has a maximum that its nodes do not resolve and that could matter (so that a peak much
  narrower than the scan is climbed by its flanks), and
* where the difference of the Gauss and the Kronrod sum of q, or of (t_k - E t_k) q for any k, is
  too large: E t_k is converged, not only the mass.

The statistics on the nodes do not depend on η: they are evaluated once.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.distributions.free_form.gauss_kronrod import GAUSS, KRONROD, NODES
from vitools.distributions.free_form.line import FARTHEST, Line
from vitools.families.quadrature.line_ends import (
    EPSILON,
    LineEnd,
    Statistics,
    Tail,
    cut_off,
    line_end,
    stacked,
    weighted,
)

MATTERS, KEPT = 45.0, 60.0
"""Nats below the highest point at which log q no longer counts, and at which panels are let go."""
_OUTSKIRTS = [FARTHEST / 2**i for i in range(5)]
_SCAN = [-u for u in _OUTSKIRTS] + [5.0 * i for i in range(-8, 9)] + _OUTSKIRTS[::-1]
_FIRST_AND_LAST = [0, -1]
_RULES = torch.stack([KRONROD, KRONROD - GAUSS], -1)


@dataclass(frozen=True)
class Integrals:
    """Per element [B], per statistic and element [K, B], per panel [B, P]."""

    log_normaliser: Tensor  # nan where there is no density
    moments: Tensor  # of statistics; ±inf where they do not exist, nan where both ends disagree
    top: Tensor
    log_density: Tensor  # unnormalised, in u, [B, P, 21]
    tail: Tail
    size: Tensor  # E |t_k|, [K, B]
    noise: Tensor  # relative, what rounding leaves of log q
    excess: Tensor  # the largest error estimate in units of the tolerance
    pieces: Tensor  # into how many each panel should be split, [B, P]


class Panels:
    """The panels of a batch, with the statistics at their nodes.

    Args:
        line: the coordinate, its bounds [*batch, 1].
        statistics: from s [*batch, n] to t [K, *batch, n].
        batch: the shape of the batch; B is its number of elements.
        window: u below and above which q is cut off, each ``[B]``; beyond the line where it is not.
    """

    def __init__(
        self,
        line: Line,
        statistics: Statistics,
        batch: torch.Size,
        window: tuple[Tensor, Tensor] | None = None,
    ):
        self.line, self.batch = line, batch
        self._statistics = statistics
        ends = [line_end(line, statistics, batch, outward) for outward in (-1.0, 1.0)]
        self.cut = torch.zeros(batch.numel(), 2, dtype=torch.bool)
        if window is not None:
            cuts = [cut_off(end, at) for end, at in zip(ends, window, strict=True)]
            ends = [end for end, _ in cuts]
            self.cut = torch.stack([inside for _, inside in cuts], -1)
        self.ends: tuple[LineEnd, LineEnd] = (ends[0], ends[1])
        self._tails = stacked(self.ends)
        scan = torch.tensor(_SCAN, dtype=torch.float64).expand(batch.numel(), -1)
        low, high = (end.edge.unsqueeze(-1) for end in self.ends)
        scan = torch.cat([low, scan[:, 1:-1].clamp(low, high), high], -1)
        self.left, self.right = scan[:, :-1].contiguous(), scan[:, 1:].contiguous()
        self._hold(self._evaluated(self.left, self.right))

    @property
    def count(self) -> int:
        """The largest number of panels of an element."""
        return self.left.shape[-1]

    def _hold(self, at_nodes: Sequence[Tensor]) -> None:
        self.u, self.values, self.jacobian = at_nodes
        self.finite = bool(self.values.isfinite().all())
        self._extent = self.values.abs().amax(-1)
        self._outermost = self.values[..., _FIRST_AND_LAST].abs()
        self._free = self._borders()
        largest = torch.maximum(self.left.abs(), self.right.abs())
        self._finest = 8 * EPSILON * largest + 1e-300

    def _evaluated(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """u, t and log ds/du at the nodes of panels [B, R]."""
        offset = ((right - left) / 2).unsqueeze(-1) * NODES
        middle = ((left + right) / 2).unsqueeze(-1).expand(offset.shape)
        u = middle + offset
        flat = u.flatten(1)
        shape = (*self.batch, flat.shape[-1])
        lead = flat.reshape(shape)
        s = self.line.value_near(middle.reshape(shape), offset.reshape(shape))
        t = self._statistics(s).reshape(-1, *flat.shape)
        for end in self.ends:
            past = flat * end.outward > (end.trusted * end.outward).unsqueeze(-1)
            if bool(past.any()):
                t = torch.where(past, end.extended(flat), t)
        jacobian = self.line.log_jacobian(lead).reshape(u.shape)
        return u, t.reshape(-1, *u.shape), jacobian

    def split(self, pieces: Tensor) -> Panels:
        """Each panel cut into the given number of equal pieces. [B, P]."""
        ends = pieces.cumsum(-1)
        size = int(ends[:, -1].max())
        slot = torch.arange(size).expand(len(ends), size).contiguous()
        parent = torch.searchsorted(ends, slot, right=True)
        padding = parent == self.count
        parent = parent.clamp(max=self.count - 1)
        number = pieces.gather(1, parent)
        offset = slot - (ends.gather(1, parent) - number)
        left, right = self.left.gather(1, parent), self.right.gather(1, parent)
        width = (right - left) / number
        begin = left + width * offset
        end = torch.where(offset + 1 == number, right, left + width * (offset + 1))
        cut = copy.copy(self)
        cut.left, cut.right = torch.where(padding, right, begin), torch.where(padding, right, end)
        fresh = (number > 1) & ~padding
        most = int(fresh.sum(-1).max())
        where = torch.argsort(fresh.long(), dim=-1, descending=True, stable=True)[:, :most]
        new = self._evaluated(cut.left.gather(1, where), cut.right.gather(1, where))
        old = (self.u, self.values, self.jacobian)
        cut._hold([_replaced(a, parent, where, b) for a, b in zip(old, new, strict=True)])
        return cut

    def integrals(self, natural: Tensor, tolerance: float) -> Integrals:
        """What the present panels give for η [K, B]."""
        width = self.right - self.left
        alive = (width > 0).unsqueeze(-1)
        log_density, uncertain = self._log_density(natural)
        bad = (log_density.isnan() | (log_density == torch.inf)).flatten(1).any(-1)
        log_density = torch.where(alive & ~bad[:, None, None], log_density, -torch.inf)
        top = log_density.amax((1, 2))
        top = torch.where(top.isfinite(), top, 0.0)
        tail = self._tails.tail(natural, top)
        infinite = torch.where(tail.infinite.prod(1) < 0, torch.nan, tail.infinite.sum(1))

        half = ((log_density - top[:, None, None]) / 2).exp()
        q = half * half
        step = (width / 2).unsqueeze(-1)
        sums = (q @ _RULES) * step
        mass = sums[..., 0].sum(-1) + tail.mass.sum(0)
        values = self.values if self.finite else torch.where(half > 0, self.values, 0.0)
        weighed = (values * half) * half
        mean = ((weighed @ KRONROD * step[..., 0]).sum(-1) + tail.moments.sum(1)) / mass
        mean = torch.where(infinite == 0, mean, 0.0)
        size = (weighed.abs() @ KRONROD * step[..., 0]).sum(-1)
        size = (size + tail.moments.abs().sum(1)) / mass

        centred = weighed - mean[..., None, None] * q
        errors = ((centred @ _RULES[:, 1]) * step[..., 0]).abs()
        spread = (centred.abs() @ KRONROD * step[..., 0]).sum(-1) / mass
        noise = self._noise(natural, log_density, q, mass)
        limits = torch.maximum(tolerance * size, noise * spread) * mass
        limits = torch.where(infinite == 0, limits, torch.inf)
        every = torch.cat([sums[..., 1].abs().unsqueeze(0), errors])
        limits = torch.cat([(noise.clamp(min=tolerance) * mass).unsqueeze(0), limits])
        share = torch.where(limits.unsqueeze(-1) > 0, every / limits.unsqueeze(-1), 0.0)
        share = torch.where(bad[:, None], 0.0, share.nan_to_num(0.0))
        excess = share.sum(-1).amax(0)

        proper = (mass > 0) & mass.isfinite() & ~bad & natural.isfinite().all(0)
        proper &= ~tail.improper.any(0)
        late = (share.amax(0) * 2 * self.count > 1) & (excess > 1).unsqueeze(-1)
        coarse = sums[..., 1].abs() > 1e-4 * sums[..., 0].abs()
        pieces = torch.where(late, torch.where(coarse, 4, 2), 1)
        pieces = torch.where(self._hidden(log_density, top), 4, pieces)
        pieces = torch.where((width > self._finest) & proper.unsqueeze(-1), pieces, 1)

        if uncertain is not None:
            excess = torch.where(self._cut_off(uncertain, log_density, top), torch.inf, excess)
        log_normaliser = torch.where(proper, top + mass.log(), torch.nan)
        moments = torch.where(infinite == 0, mean, infinite * torch.inf)
        return Integrals(
            log_normaliser, moments, top, log_density, tail, size, noise, excess, pieces
        )

    def _log_density(self, natural: Tensor) -> tuple[Tensor, Tensor | None]:
        """log q at the nodes, and where it drowns in the rounding of terms that cancel. [B, P, 21].

        What drowns is lowered by what rounding may have raised it: a peak must not be made of it.
        """
        log_density = weighted(natural, self.values, self.finite) + self.jacobian
        size = natural.abs()
        if not bool((4 * EPSILON * weighted(size, self._extent, self.finite) > 0.5).any()):
            return log_density, None
        noise = weighted(size * EPSILON, self.values.abs(), self.finite)
        uncertain = (noise > 0.125) & (log_density.abs() < 16 * noise)
        return torch.where(uncertain, log_density - 32 * noise, log_density), uncertain

    @staticmethod
    def _cut_off(uncertain: Tensor, log_density: Tensor, top: Tensor) -> Tensor:
        """Whether q still matters where it begins to drown in rounding. [B]."""
        border, f = uncertain.flatten(1), log_density.flatten(1)
        near = torch.maximum(f[:, 1:], f[:, :-1]) > (top - MATTERS).unsqueeze(-1)
        return ((border[:, 1:] ^ border[:, :-1]) & near).any(-1)

    def _noise(self, natural: Tensor, log_density: Tensor, q: Tensor, mass: Tensor) -> Tensor:
        """Relative rounding of ∫ q: of large terms in log q, and of the nodes' own s. [B]."""
        place = log_density.flatten(1).argmax(-1, keepdim=True)
        u, jacobian = (x.flatten(1).gather(1, place) for x in (self.u, self.jacobian))
        t = self.values.flatten(2).gather(2, place.expand(len(self.values), -1, 1)).squeeze(-1)
        terms = torch.where(natural == 0, 0.0, natural * t).abs().sum(0) + jacobian[:, 0].abs()
        s = self.line.value(u.reshape(*self.batch, 1)).reshape(u.shape)
        node = (1 + (s.abs() * (-jacobian).exp()).squeeze(-1)).nan_to_num(1.0, 1.0)
        variation = q.diff(dim=-1).abs().sum((1, 2)) / mass
        return EPSILON * (4 * (1 + terms) + 2 * node * variation)

    def kept(self, found: Integrals) -> Tensor:
        """Panels that hold, or may come to hold, a part of an integral. [B, P]."""
        depth = found.log_density.amax(-1) - found.top.unsqueeze(-1)
        reach = depth + self._weight(self._extent, found)
        return ((reach > -KEPT) & (self.right > self.left)) | (found.pieces > 1)

    def leaks(self, found: Integrals) -> Tensor:
        """Whether an integral goes on beyond where neighbouring panels have been let go. [B]."""
        level = found.log_density[..., _FIRST_AND_LAST] - found.top[:, None, None]
        weight = self._weight(self._outermost.flatten(2), found).reshape(level.shape)
        return (self._free & (level + weight > -MATTERS)).flatten(1).any(-1)

    def _borders(self) -> Tensor:
        """Whether a panel's left and right edge has no neighbour though the line goes on. [B, P, 2]."""
        left, right = self.left, self.right
        apart = left[:, 1:] != right[:, :-1]
        outer = torch.ones_like(apart[:, :1])
        low, high = (end.edge.unsqueeze(-1) for end in self.ends)
        free = (
            torch.cat([outer, apart], -1) & (left != low),
            torch.cat([apart, outer], -1) & (right != high),
        )
        return torch.stack(free, -1) & (right > left).unsqueeze(-1)

    def _weight(self, size: Tensor, found: Integrals) -> Tensor:
        """log of the largest |t_k| / E |t_k| (at least 1), for |t_k| of [K, B, P]."""
        exists = (found.moments.isfinite() & (found.size > 0)).unsqueeze(-1)
        ratio = torch.where(exists, size / found.size.unsqueeze(-1), 1.0)
        return ratio.amax(0).clamp(min=1.0).log()

    def subset(self, keep: Tensor) -> Panels:
        """The panels to keep [B, P], in order, padded by such of width zero."""
        most = int(keep.sum(-1).max().clamp(min=1))
        where = torch.argsort(keep.long(), dim=-1, descending=True, stable=True)[:, :most]
        new = copy.copy(self)
        new.left, new.right = self.left.gather(1, where), self.right.gather(1, where)
        new.left = torch.where(keep.gather(1, where), new.left, new.right)
        new._hold([_taken(x, where) for x in (self.u, self.values, self.jacobian)])
        return new

    def meet(self, low: Tensor, high: Tensor) -> Tensor:
        """Whether any panel shares a part with the interval from low to high, each [B, n]."""
        alive = self.right > self.left
        left, right = (torch.where(alive, x, torch.inf) for x in (self.left, self.right))
        begun = torch.searchsorted(left.contiguous(), high.contiguous())
        ended = torch.searchsorted(right.contiguous(), low.contiguous(), right=True)
        return begun > ended

    def _hidden(self, log_density: Tensor, top: Tensor) -> Tensor:
        """Panels beside a maximum of log q that may stand higher between the nodes than on them.

        Between i and i+1 a concave function lies below the lines through its neighbours.
        """
        f, u = log_density.flatten(1), self.u.flatten(1)
        rise, gap = f.diff(dim=-1), u.diff(dim=-1)
        up, down = rise[:, :-1], -rise[:, 1:]
        before, after = gap[:, :-1], gap[:, 1:]
        alive = (self.right > self.left).unsqueeze(-1).expand(log_density.shape).flatten(1)
        peak = (up > 0) & (down >= 0) & alive[:, :-2] & alive[:, 2:]
        up, down = (torch.where(x.isfinite(), x, 0.0) for x in (up, down))
        more = torch.maximum(up * (after / before), down * (before / after)).nan_to_num(0.0, 0.0)
        missed = peak & (more > 0.5) & (f[:, 1:-1] + more > (top - MATTERS).unsqueeze(-1))
        around = torch.zeros_like(f, dtype=torch.bool)
        for shift in range(3):
            around[:, shift : shift + missed.shape[1]] |= missed
        return around.reshape(log_density.shape).any(-1)


def _taken(table: Tensor, where: Tensor) -> Tensor:
    """Panels [(K,) B, P, 21] at the places [B, P']."""
    return table.gather(table.dim() - 2, _index(table, where))


def _replaced(old: Tensor, parent: Tensor, where: Tensor, new: Tensor) -> Tensor:
    """Panels [(K,) B, P, 21] taken over from their parents but for the fresh ones."""
    return _taken(old, parent).scatter(old.dim() - 2, _index(old, where), new)


def _index(table: Tensor, where: Tensor) -> Tensor:
    lead = table.dim() - 3
    shaped = where.reshape((1,) * lead + (*where.shape, 1))
    return shaped.expand(*table.shape[:lead], -1, -1, table.shape[-1])
