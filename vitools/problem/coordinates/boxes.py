"""Some latents as one point u of ℝ^P, and densities of them that live in a box of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from vitools.distributions.boxed import BoxedCorrelation, BoxedCovariance, BoxedMatrix
from vitools.distributions.free_form import FreeForm
from vitools.distributions.free_form.gauss_kronrod import NODES
from vitools.distributions.free_form.line import Line, line_of
from vitools.errors import NotSupportedError
from vitools.families.free_form import bounds_of
from vitools.problem import Problem
from vitools.problem.sites import Site
from vitools.supports import base_support

MATRICES: dict[object, type[BoxedMatrix]] = {
    constraints.positive_definite: BoxedCovariance,
    constraints.corr_cholesky: BoxedCorrelation,
}


def coordinate_count(site: Site) -> int:
    """P of a site: how many numbers it takes."""
    kind = MATRICES.get(base_support(site.support))
    if kind is None:
        return site.shape.numel()
    return site.shape[:-2].numel() * kind.count_of(site.shape[-1])


def has_boxes(site: Site) -> bool:
    """Whether a site has coordinates here: numbers on a line, covariances, Cholesky factors of correlations."""
    if site.is_discrete or site.shape.numel() == 0:
        return False
    support = base_support(site.support)
    if support in MATRICES:
        return coordinate_count(site) > 0
    bounds = (getattr(support, f"{end}_bound", None) for end in ("lower", "upper"))
    return support is constraints.real or any(bound is not None for bound in bounds)


@dataclass(frozen=True)
class _Part:
    """One site's coordinates."""

    site: Site
    start: int
    kind: type[BoxedMatrix] | None
    line: Line | None

    @property
    def count(self) -> int:
        return coordinate_count(self.site)

    @property
    def lead(self) -> torch.Size:
        """The axes over independent members: of numbers all."""
        return self.site.shape if self.kind is None else self.site.shape[:-2]

    def of(self, point: Tensor) -> Tensor:
        """``[*S, P]`` to ``[*S, *lead]``, of matrices with an axis of coordinates behind."""
        own = point[..., self.start : self.start + self.count]
        return own.reshape(*point.shape[:-1], *self.lead, *([-1] if self.kind else []))

    def value(self, point: Tensor) -> Tensor:
        own = self.of(point)
        if self.kind is not None:
            return self.kind.value(own)
        assert self.line is not None
        return self.line.value(own.unsqueeze(-1)).squeeze(-1)

    def log_jacobian(self, point: Tensor) -> Tensor:
        own = self.of(point)
        if self.kind is not None:
            found = self.kind.log_jacobian(own)
        else:
            assert self.line is not None
            found = self.line.log_jacobian(own.unsqueeze(-1)).squeeze(-1)
        return found.reshape(*point.shape[:-1], -1).sum(-1)

    def coordinates(self, value: Tensor) -> Tensor:
        """``[*S, *shape]`` to ``[*S, count]``."""
        value = value.double()
        if self.kind is not None:
            own = self.kind.coordinates(value)
        else:
            assert self.line is not None
            own = self.line.coordinate(value.unsqueeze(-1)).squeeze(-1)
        outer = value.shape[: value.dim() - len(self.site.shape)]
        return own.reshape(*outer, self.count)


class NestedSpace:
    """The coordinates of some continuous latents: of a number those of its line, of matrices those of
    :mod:`vitools.distributions.boxed`.
    """

    def __init__(self, problem: Problem, names: Sequence[str]):
        self.names = tuple(names)
        self._parts: dict[str, _Part] = {}
        start = 0
        for name in names:
            site = problem.latents[name]
            kind = MATRICES.get(base_support(site.support))
            line = None if kind else line_of(*_bounds(site), torch.Size(site.shape))
            self._parts[name] = _Part(site, start, kind, line)
            start += self._parts[name].count
        self.size = start

    def values(self, point: Tensor) -> dict[str, Tensor]:
        """``[*S, P]`` to ``{site: [*S, *shape]}``."""
        return {n: part.value(point).to(part.site.dtype) for n, part in self._parts.items()}

    def point(self, values: Mapping[str, Tensor]) -> Tensor:
        """The inverse of :meth:`values`."""
        return torch.cat([part.coordinates(values[n]) for n, part in self._parts.items()], -1)

    def log_jacobian(self, point: Tensor) -> Tensor:
        """log |∂θ/∂u|, ``[*S, P]`` to ``[*S]``."""
        total = torch.zeros(point.shape[:-1], dtype=point.dtype)
        for part in self._parts.values():
            total = total + part.log_jacobian(point)
        return total

    def densities(self, edges: Tensor, log_density: Tensor) -> dict[str, Distribution]:
        """The sites' distributions, independent in a box.

        Args:
            edges: ``[P, 2]``, the ends of each coordinate.
            log_density: ``[P, 21]``, of each at the nodes of a panel, with respect to du.
        """
        found: dict[str, Distribution] = {}
        for name, part in self._parts.items():
            own = slice(part.start, part.start + part.count)
            lead = (*part.lead, *([-1] if part.kind else []))
            ends = edges[own].reshape(*(lead or ()), 2) if lead else edges[own][0]
            heights = log_density[own].unsqueeze(-2)
            heights = heights.reshape(*lead, *heights.shape[1:])
            if part.kind is not None:
                made: Distribution = part.kind(ends, heights, validate_args=False)
            else:
                assert part.line is not None
                made = FreeForm(
                    ends,
                    heights,
                    part.line.lower.squeeze(-1),
                    part.line.upper.squeeze(-1),
                    torch.full(ends.shape, math.inf, dtype=ends.dtype),
                )
            extra = len(made.batch_shape) - len(part.site.batch_shape)
            found[name] = Independent(made, extra, validate_args=False) if extra > 0 else made
        return found


def _bounds(site: Site) -> tuple[Tensor, Tensor]:
    try:
        return bounds_of(site.support)
    except NotSupportedError as error:
        raise NotSupportedError(
            f"nested: site '{site.name}' has the support {site.support}, of which no box is known. Nest "
            "numbers, covariance or precision matrices, or Cholesky factors of correlations."
        ) from error


@dataclass(frozen=True)
class Panels:
    """In a box of each cell log q(u) = Σ_i g_i (u_i - c_i) + ½ h_i (u_i - c_i)², up to a constant.

    Args:
        centres: c, ``[C, P]``.
        widths: of the boxes, ``[P]``.
        slopes, curvatures: g and h, ``[C, P]``.
    """

    centres: Tensor
    widths: Tensor
    slopes: Tensor
    curvatures: Tensor

    @property
    def edges(self) -> Tensor:
        """``[C, P, 2]``."""
        half = self.widths / 2
        return torch.stack([self.centres - half, self.centres + half], -1)

    @property
    def log_density(self) -> Tensor:
        """``[C, P, 21]``."""
        x = NODES * self.widths.unsqueeze(-1) / 2
        return self.slopes.unsqueeze(-1) * x + 0.5 * self.curvatures.unsqueeze(-1) * x**2

    def moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and standard deviation ``[C, P]`` of the coordinates, and the entropy in u ``[C]``."""
        zero = torch.zeros((), dtype=self.centres.dtype)
        edges = self.edges
        cut = torch.full(edges.shape, math.inf, dtype=edges.dtype)
        shifted = edges - self.centres.unsqueeze(-1)
        one = FreeForm(shifted, self.log_density.unsqueeze(-2), zero, zero + math.inf, cut)
        s, log_q, mass = one.quadrature()
        u = s.log()
        mean = (mass * u).sum(-1)
        variance = (mass * (u - mean.unsqueeze(-1)) ** 2).sum(-1)
        entropy = -(mass * (log_q + u)).sum(-1)
        return self.centres + mean, variance.sqrt(), entropy.sum(-1)
