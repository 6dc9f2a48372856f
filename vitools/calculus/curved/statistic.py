"""A function of a predictor as a statistic: its expectation for every element, and for every case.

f(aη + c) is the expectation of f at a normal of mean am + c and variance a²v: of a known f, whatever data
a and c are, more is known than its value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import BEYOND, Function
from vitools.calculus.curved.expectation import expected, roughly_expected
from vitools.calculus.curved.function import CurvedFunction, Expected, of_rows
from vitools.calculus.curved.functions import FUNCTIONS

KNOWN = {
    1.0: "identity",
    ("exp", 1.0): "exp",
    ("softplus", 1.0): "softplus",
    ("log_sigmoid", 1.0): "log sigmoid",
    ("sigmoid", 1.0): "sigmoid",
    ("tanh", 1.0): "tanh",
    ("log_ndtr", 1.0): "log normal cdf",
    ("relu", 1.0): "relu",
    ("abs", 1.0): "distance",
    ("log", ("softplus", 1.0)): "log softplus",
    ("log", ("sigmoid", 1.0)): "log sigmoid",
    ("log1p_square", 1.0): "log1p square",
}
"""Functions of which more is known than their value, by the name that the algebra gives them."""


PROBES = (-2.0, -0.5, 0.5, 2.0)


def missing_at(function: Function, data: Sequence[Tensor]) -> float | None:
    """A value at which it is no number for some of the data: a normal predictor takes it; else None."""
    for probe in PROBES:
        at = torch.tensor([probe], dtype=torch.float64)
        if bool(function.evaluate(at, *(d.detach() for d in data)).isnan().any()):
            return probe
    return None


class CurvedStatistic:
    """A function of a predictor.

    Args:
        data: what stands inside it, one number an element and case, in a row.
        rows: the shape of the predictor.
        own: of the cases: axes that the data have and the predictor has not.
        summed: further axes of the data, over which the function is a sum.
    """

    def __init__(
        self,
        function: Function,
        data: tuple[Tensor, ...],
        rows: tuple[int, ...],
        own: tuple[int, ...],
        summed: tuple[int, ...] = (),
    ):
        self.shape, self.count, self.parts = (*rows, *own), math.prod(own), math.prod(summed)
        self.scale: Tensor | None = None
        self.offset: Tensor | None = None
        outer = _outer_and_affine(function)
        if outer[0] in KNOWN:
            self.function = FUNCTIONS[KNOWN[outer[0]]]()
            if outer[1] is not None:
                self.offset, self.scale = _coefficients(outer[1], data)
        else:
            self.function = CurvedFunction(function.evaluate, data=data)

    def of_runs(
        self, roughly: bool, runs: int, mean: Tensor, variance: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """F, ∂F/∂m and ∂F/∂v of the elements of many runs; nan where one is not finite."""
        fine = mean.isfinite() & variance.isfinite()
        mean, variance = (torch.where(fine, x, 0.0) for x in (mean, variance))
        found = self.expected(mean, variance, roughly=roughly, runs=runs)
        fine = self.cases(fine)
        value, d_mean, d_variance = (torch.where(fine, x, torch.nan) for x in found[:3])
        return value, d_mean, d_variance

    def expected(
        self, mean: Tensor, variance: Tensor, *, roughly: bool = False, runs: int = 1
    ) -> Expected:
        """Of every element and case, from means and variances of the elements ``[runs · N]``.

        What lies beyond all numbers is as large as a number can be that nothing takes part of.
        """
        take = roughly_expected if roughly else expected
        mean, variance = self.repeated(mean), self.repeated(variance)
        function, scale, offset = self.function, self.scale, self.offset
        if runs > 1:
            rows = torch.arange(len(mean) // runs).repeat(runs)
            function, scale, offset = (
                function.at(rows),
                of_rows(scale, rows),
                of_rows(offset, rows),
            )
        if scale is None or offset is None:
            found = take(function, mean, variance)
        else:
            found = take(function, scale * mean + offset, scale**2 * variance)
            found = found._replace(
                d_mean=scale * found.d_mean, d_variance=scale**2 * found.d_variance
            )
        if self.count > 1:
            found = found._replace(value=found.value.clamp(-BEYOND, BEYOND))
        if self.parts > 1:
            error = found.error.reshape(-1, self.parts).amax(-1)
            found = Expected(*map(self.added, found))._replace(error=error)
        return found

    def cases(self, rows: Tensor) -> Tensor:
        """Numbers of elements for every case."""
        return rows.repeat_interleave(self.count) if self.count > 1 else rows

    def repeated(self, rows: Tensor) -> Tensor:
        """Numbers of elements for every case and part of a sum."""
        return (
            self.cases(rows).repeat_interleave(self.parts) if self.parts > 1 else self.cases(rows)
        )

    def added(self, parts: Tensor) -> Tensor:
        return parts.reshape(-1, self.parts).sum(-1) if self.parts > 1 else parts

    def summed(self, each: Tensor) -> Tensor:
        return each.reshape(-1, self.count).sum(-1)


def _outer_and_affine(function: Function) -> tuple[Any, Function | None]:
    """(f, a x + c) of a function f(a x + c) that is known by the name of f; (name, None) of others."""
    name = function.name
    inner = function.inner
    if _is_affine(name):
        return 1.0, function
    if not isinstance(name, tuple) or not isinstance(inner, Function) or not _is_affine(inner.name):
        return name, None
    return (name[0], 1.0), inner


def _coefficients(affine: Function, data: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """c and a of a x + c, one of each a row."""
    rows = max((len(d) for d in data), default=1)
    with torch.enable_grad():
        zeros = torch.zeros(rows, dtype=torch.float64, requires_grad=True)
        value = affine.evaluate(zeros, *(d.detach() for d in data))
        (slope,) = torch.autograd.grad(value.sum(), zeros)
    return value.detach(), slope


def _is_affine(name: Any) -> bool:
    is_sum = isinstance(name, tuple) and name[0] == "sum"
    return is_sum and all(part[2] in (None, 1.0) or _is_affine(part[2]) for part in name[1:])
