"""Least squares of errors that are linear in the reference points of Gaussian latents."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Atom, Constant, Gather
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.reduction.shifting import read_constant
from vitools.calculus.tracing.trace import ModelTrace, TracedSite

STEPS = 30
# A step that lowers the squared errors by less than this part is the last.
ENOUGH = 1e-6
# Directions in which all errors together move by less than this part of what their columns do apart are
# collinear: along them a step has no least point, only a far one.
COLLINEAR = 1e-10
# Offsets so many times the errors lose the square of it in moments about zero: 1e4 · 2e-16.
FAR = 100.0


@dataclass
class Linear:
    """A term of an error: coefficient · constants · an element of a site's point."""

    coefficient: float
    constants: tuple[Constant, ...]
    out: tuple[int | None, ...]
    atom: Atom

    def value(self, point: Tensor, squared: bool) -> Tensor:
        """The term, or what it is with the square of all that stands before the point."""
        read = read_constant(point, self.atom.indices)
        power = 2 if squared else 1
        constants = [Constant(c.tensor**power, c.labels) for c in self.constants]
        return _contracted([*constants, read], self.out) * self.coefficient**power


@dataclass
class Errors:
    """known + Σ linear(c), where ``weight`` is one."""

    known: Tensor  # of the shape of the error
    linear: list[Linear]
    weight: Tensor | None

    def sites(self) -> set[str]:
        return {term.atom.site for term in self.linear}

    def value(self, points: Mapping[str, Tensor], *, squared: bool = False) -> Tensor:
        """The part that is linear in the points; an axis along which it is the same has size one."""
        parts = [t.value(points[t.atom.site], squared) for t in self.linear]
        total = sum(parts[1:], parts[0])
        return total if self.weight is None else total * self.weight


def errors_of(
    site: TracedSite, error: Expression, trace: ModelTrace, movable: Container[str]
) -> Errors:
    """The error of a site with its products of latents left out."""
    known: Tensor | None = None
    linear = []
    for term in error.terms:
        values = [a for a in term.atoms() if a.function != "indicator"]
        constants = [
            _evenly(f, trace) if isinstance(f, Atom) else f for f in term.factors if f not in values
        ]
        if not values:
            part = _contracted(constants, term.out)
            part = part if term.coefficient == 1 else part * term.coefficient
            known = part if known is None else known + part
        elif len(values) == 1 and values[0].site in movable:
            linear.append(Linear(term.coefficient, tuple(constants), term.out, values[0]))
    if known is None:
        known = torch.zeros((), dtype=torch.float64)
    weight = None
    if site.mask is not None:
        extra = len(error.shape) - len(site.batch_shape)
        weight = site.mask.double().reshape(tuple(site.mask.shape) + (1,) * extra)
        known = known * weight
    return Errors(known.expand(error.shape), linear, weight)


def _evenly(indicator: Atom, trace: ModelTrace) -> Constant:
    """The indicator of a discrete latent that takes all values alike."""
    size = trace.sites[indicator.site].support_size
    support = indicator.indices[-1]
    labels = support.labels if isinstance(support, Gather) else (support,)
    shape = support.index.shape if isinstance(support, Gather) else (size,)
    return Constant(torch.full(tuple(shape), 1.0 / size, dtype=torch.float64), labels)


def _contracted(constants: Sequence[Constant], out: Sequence[int | None]) -> Tensor:
    """Π constants summed to the labels in ``out``, with an axis of one for each dim without."""
    number: dict[int, int] = {}
    arguments: list[Any] = []
    for c in constants:
        arguments += [c.tensor.double(), [number.setdefault(x, len(number)) for x in c.labels]]
    if not arguments:
        return torch.ones((), dtype=torch.float64)
    labels = [x for x in out if x in number]
    sizes = iter((total := torch.einsum(*arguments, [number[x] for x in labels])).shape)
    return total.reshape([next(sizes) if x in number else 1 for x in out])


class LeastSquares:
    """Conjugate gradients on the squares of all errors in a list, scaled by their columns.

    ``root`` maps a site to the name of the point that it may share with others.
    """

    def __init__(self, errors: Sequence[Errors], root: Mapping[str, str]):
        self.errors, self.root = errors, root

    def _linear(self, at: Mapping[str, Tensor], *, squared: bool = False) -> list[Tensor]:
        given = {name: at[root] for name, root in self.root.items()}
        return [e.value(given, squared=squared) for e in self.errors]

    def _adjoint(
        self, values: Sequence[Tensor], like: Mapping[str, Tensor], *, squared: bool = False
    ) -> dict[str, Tensor]:
        with torch.enable_grad():
            at = {n: torch.zeros_like(c, requires_grad=True) for n, c in like.items()}
            total = torch.zeros((), dtype=torch.float64)
            for a, b in zip(self._linear(at, squared=squared), values, strict=True):
                total = total + (a * b.sum_to_size(a.shape)).sum()
            found = torch.autograd.grad(total, list(at.values()), materialize_grads=True)
        return dict(zip(at, found, strict=True))

    def _left(self, points: Mapping[str, Tensor]) -> list[Tensor]:
        values = self._linear(points)
        return [(e.known + v).neg_() for e, v in zip(self.errors, values, strict=True)]

    def descend(self, points: dict[str, Tensor], free: Container[str]) -> None:
        """Move the points that are free to where the squared errors are least."""

        def fixed(at: dict[str, Tensor]) -> dict[str, Tensor]:
            return {n: c if n in free else torch.zeros_like(c) for n, c in at.items()}

        left = self._left(points)
        ones = [torch.ones((), dtype=torch.float64).expand_as(r) for r in left]
        columns = self._adjoint(ones, points, squared=True)
        scale = {n: torch.where(c > 0, 1 / c, 0.0) for n, c in columns.items()}
        gradient = fixed(self._adjoint(left, points))
        step = {n: scale[n] * g for n, g in gradient.items()}
        slope = _inner(gradient, step)
        for _ in range(STEPS):
            moved = self._linear(step)
            curvature = sum(_square(m.expand_as(r)) for m, r in zip(moved, left, strict=True))
            size = sum(map(_square, left))
            apart = sum(float((step[n] ** 2 * columns[n]).sum()) for n in step)
            if not (curvature > COLLINEAR * apart and slope > 0 and math.isfinite(slope)):
                return
            length = slope / curvature
            for n in points:
                points[n] = points[n] + length * step[n]
            for r, m in zip(left, moved, strict=True):
                r -= length * m
            if length * slope <= ENOUGH * size:
                return
            gradient = fixed(self._adjoint(left, points))
            scaled = {n: scale[n] * g for n, g in gradient.items()}
            before, slope = slope, _inner(gradient, scaled)
            step = {n: scaled[n] + slope / before * step[n] for n in points}

    def far(self, points: Mapping[str, Tensor], free: Container[str]) -> bool:
        """Whether what reads some element of a point lies far from zero for its errors."""
        # Each part by itself: an intercept and a slope times years cancel in their sum.
        parts = self._linear({n: c**2 for n, c in points.items()}, squared=True)
        left = self._left(points)
        full = [v.expand_as(r) for v, r in zip(parts, left, strict=True)]
        offsets = self._adjoint(full, points, squared=True)
        errors = self._adjoint([r.square_() for r in left], points, squared=True)
        return any(bool((offsets[n] > FAR**2 * errors[n]).any()) for n in points if n in free)


def _square(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values)) ** 2


def _inner(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    return sum(float((a[n] * b[n]).sum()) for n in a)
