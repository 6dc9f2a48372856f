"""Panels kept from one set of natural parameters to the next.

A scan of the whole line finds where q is; panels are split and let go until only those are left that
hold it (:mod:`vitools.families.quadrature.panels`). Natural parameters move little between sweeps, so that the
next begin there, and a new scan is made only where

* q has moved to the border of its panels, or their number has doubled, or
* at a place without panels log q comes near its top, or a maximum of it among the nodes of the scan
  has risen by more than a few nats towards it.

A peak is found if the scan sees its flanks: one buried under the tail of another between two nodes,
where log q shows no maximum, is not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitools.distributions.free_form.gauss_kronrod import coefficients
from vitools.distributions.free_form.line import Line
from vitools.families.quadrature.line_ends import EPSILON, Statistics, weighted
from vitools.families.quadrature.panels import KEPT, MATTERS, Integrals, Panels

TOLERANCE = 1e-12
"""Relative, of A and of each E t_k (against E |t_k|), where panels are split."""
ACCEPTED = 1e-11
"""The same where the panels of the last parameters are tried."""
MOST_ROUNDS = 120


def _most_panels(panels: Panels) -> int:
    """Panels an element may have: memory goes with those of the busiest times the elements."""
    return min(3000, max(200, 400_000 // len(panels.left)))


class AdaptiveIntegral:
    """The integrals of a batch of free-form densities, for one set of parameters after another."""

    def __init__(
        self,
        line: Line,
        statistics: Statistics,
        batch: torch.Size,
        window: tuple[Tensor, Tensor] | None = None,
    ):
        self.scan = Panels(line, statistics, batch, window)
        self.panels: Panels | None = None

    def integrals(self, natural: Tensor) -> Integrals:
        """A and E t for η [K, B]."""
        if self.panels is not None:
            found = self.panels.integrals(natural, ACCEPTED)
            if self._holds(self.panels, natural, found):
                if int(found.pieces.max()) == 1:
                    return found
                self.panels, found = _refined(self.panels, found, natural)
                if self.panels.count <= 2 * self._count and not bool(
                    self.panels.leaks(found).any()
                ):
                    self._covered = self._beside(self.panels)
                    return found
        return self._scanned(natural)

    def _scanned(self, natural: Tensor) -> Integrals:
        found = self.scan.integrals(natural, TOLERANCE)
        self.panels, found = _refined(self.scan, found, natural)
        self._count = self.panels.count
        self._covered = self._beside(self.panels)
        self._depth = self._watch(natural, found)
        self._improper = found.log_normaliser.isnan()
        return found

    def _beside(self, panels: Panels) -> Tensor:
        """Nodes of the scan between whose neighbours there are panels, or no line. [B, n]."""
        u = self.scan.u.flatten(1)
        nowhere = (self.scan.left == self.scan.right).unsqueeze(-1).expand(self.scan.u.shape)
        low = torch.cat([u[:, :1], u[:, :-1]], -1)
        return panels.meet(low, torch.cat([u[:, 1:], u[:, -1:]], -1)) | nowhere.flatten(1)

    def _watch(self, natural: Tensor, found: Integrals) -> Tensor:
        """log q at the nodes of the scan, below its top. [B, n]."""
        log_density = weighted(natural, self.scan.values, self.scan.finite) + self.scan.jacobian
        return log_density.flatten(1) - found.top.unsqueeze(-1)

    def _holds(self, panels: Panels, natural: Tensor, found: Integrals) -> bool:
        """Whether q is still where its panels are."""
        changed = found.log_normaliser.isnan() ^ self._improper
        if bool((changed | panels.leaks(found)).any()):
            return False
        depth = self._watch(natural, found)
        higher = depth[:, 1:] > depth[:, :-1]
        rest = torch.ones_like(higher[:, :1])
        peak = torch.cat([rest, higher], -1) & torch.cat([~higher, rest], -1)
        risen = peak & (depth - self._depth > (KEPT - MATTERS) / 2)
        new = (~self._covered & (risen | (depth > -MATTERS))).nonzero()
        if len(new) == 0:
            return True
        element, node = new.T
        terms = weighted(
            natural.abs()[:, element], self.scan.values.flatten(2)[:, element, node].abs()
        )
        level = depth[element, node] + found.top[element]
        return not bool((level.abs() > 16 * EPSILON * terms).any())  # what rounding may have made

    def interpolated(self, natural: Tensor) -> tuple[Panels, Integrals]:
        """Panels of the whole line on which polynomials through their nodes give log q."""
        panels = self.scan
        for _ in range(MOST_ROUNDS):
            found = panels.integrals(natural, TOLERANCE)
            pieces = torch.where(_rough(panels, found), found.pieces.clamp(min=2), found.pieces)
            if int(pieces.max()) == 1 or panels.count > _most_panels(panels):
                break
            panels = panels.split(pieces)
        return panels, found


def _refined(panels: Panels, found: Integrals, natural: Tensor) -> tuple[Panels, Integrals]:
    """Split, and let go, until the error estimates meet their tolerance."""
    for _ in range(MOST_ROUNDS):
        keep = panels.kept(found)
        if int(keep.sum(-1).max()) < 0.7 * panels.count:
            panels = panels.subset(keep)
            found = panels.integrals(natural, TOLERANCE)
        if int(found.pieces.max()) == 1 or panels.count > _most_panels(panels):
            break
        panels = panels.split(found.pieces)
        found = panels.integrals(natural, TOLERANCE)
    return panels, found


def _rough(panels: Panels, found: Integrals) -> Tensor:
    """Panels on which the polynomial through log q at the nodes is not log q. [B, P]."""
    log_density = found.log_density
    drop = (found.top.unsqueeze(-1) - log_density.amax(-1)).clamp(min=0)
    known = log_density.isfinite().all(-1)
    last = coefficients(torch.where(known.unsqueeze(-1), log_density, 0.0))[..., -3:].abs().sum(-1)
    floor = 4 * found.noise.unsqueeze(-1)
    rough = (last > torch.maximum(1e-10 * (1 + drop), floor)) | ~known
    left, right = panels.left, panels.right
    fine = right - left <= 1e-12 * (1e-3 + torch.maximum(left.abs(), right.abs()))
    return rough & ~fine & (drop < 2 * MATTERS)
