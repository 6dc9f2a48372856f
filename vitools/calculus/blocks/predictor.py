"""A predictor η = Σ data · latents and the curved functions of it that stand in the terms.

Under q a predictor of Gaussian latents is normal, η_n ~ N(m_n, v_n), so F_k = E f_k(η_n) is a
one-dimensional integral of m_n and v_n (:mod:`vitools.calculus.curved`). It is a statistic like any other to
the terms it stands in. To the latents below it says what its gradient says: with c_k the coefficient of
F_k in E_q log p,

    λ₂ = Σ_k c_k ∂F_k/∂v,        λ₁ = Σ_k c_k ∂F_k/∂m - 2 m λ₂,

are the coefficients of η² and η in a conjugate term, whose update is the natural-gradient step (Khan and
Lin 2017, "Conjugate-computation variational inference"). These surrogates stand among the model's terms
with the statistics ``slope`` and ``curvature`` of the predictor; the bound leaves them out, as it counts
F itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Atom, Predictor, Unsupported, is_open
from vitools.calculus.algebra.functions import as_function
from vitools.calculus.blocks.block import Between, Block, Resolved, describe
from vitools.calculus.curved.rowwise import rowwise
from vitools.calculus.curved.softmax import softmax_bound, softmax_bound_of_runs
from vitools.calculus.curved.statistic import CurvedStatistic, missing_at
from vitools.calculus.densities.closed_terms import ClosedTerm
from vitools.calculus.densities.surrogates import CURVATURE, SLOPE, SURROGATES
from vitools.errors import NotConjugateError
from vitools.problem.sites import listed

VALUE = "log_sum_exp"
MOST_EXPECTATIONS = 20_000_000
"""Of one function, over elements and cases."""
NODES = torch.linspace(-8.0, 8.0, 97, dtype=torch.float64)
WEIGHTS = torch.softmax(-0.5 * NODES**2, 0)
"""The trapezoid rule of a standard normal, for gradients."""


class PredictorNode(Between):
    """The statistics of one predictor."""

    integrates = True
    is_rough = False
    """Whether expectations need not be exact yet."""

    def __init__(self, name: Predictor):
        super().__init__(name)
        self._functions: dict[Any, CurvedStatistic] = {}
        self._atoms: dict[Any, Atom] = {}

    def resolve(self, atoms: Sequence[Atom]) -> Resolved:
        if len(atoms) > 1:
            what = " · ".join(describe(atom) for atom in atoms)
            raise Unsupported(f"the product {what} of different elements of {self.title!r}")
        (atom,) = atoms
        if atom.function in SURROGATES:
            return Resolved(atom.function, atom.labels)
        function = as_function(atom.function)
        own, summed = self._own_axes(atom)
        key = (function.name, own, *(id(d.tensor) for d in function.data))
        if key not in self._functions:
            data = self._data_of(atom)
            missing = missing_at(function, data)
            if missing is not None:
                raise Unsupported(f"{describe(atom)}, which is no number at {missing:g}")
            self._functions[key] = CurvedStatistic(function, data, self.batch_shape, own, summed)
        self._atoms.setdefault(key, atom)
        return Resolved(key, (*self._labels(atom), *atom.labels[len(self._labels(atom)) :]))

    def _labels(self, atom: Atom) -> tuple[int, ...]:
        return atom.labels[: len(self.batch_shape)]

    def _own_axes(self, atom: Atom) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The lengths of axes that data inside the function have and the predictor has not.

        Those of the statistic, and those that the function sums over.
        """
        sizes = {x: n for d in atom.data for x, n in zip(d.labels, d.tensor.shape, strict=True)}
        own = tuple(sizes[x] for x in atom.labels[len(self.batch_shape) :])
        summed = tuple(sizes[x] for x in as_function(atom.function).summed)
        if math.prod((*self.batch_shape, *own, *summed)) > MOST_EXPECTATIONS:
            raise Unsupported(
                f"{describe(atom)} at {math.prod((*own, *summed))} nodes or cases for each of "
                f"{math.prod(self.batch_shape)} elements, more than {MOST_EXPECTATIONS:,} expectations"
            )
        return own, summed

    def _data_of(self, atom: Atom) -> tuple[Tensor, ...]:
        """The data inside an atom's function, one number an element (and a case), all in a row."""
        data, shape = [], (*self.batch_shape, *itertools.chain(*self._own_axes(atom)))
        labels = (*atom.labels, *as_function(atom.function).summed)
        for constant in atom.data:
            places = [labels.index(label) for label in constant.labels]
            order = sorted(range(len(places)), key=places.__getitem__)
            view = [1] * len(shape)
            for i in order:
                view[places[i]] = constant.tensor.shape[i]
            laid_out = constant.tensor.double().permute(order).reshape(view)
            data.append(laid_out.expand(shape).reshape(-1))
        return tuple(data)

    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        return self._functions[key].shape if key in self._functions else self.batch_shape

    def start(self, generator: torch.Generator | None = None) -> None:
        """No opinion yet: the latents start without what this predictor would say."""
        keys = (*self._functions, SLOPE, CURVATURE)
        self.moments = {k: torch.zeros(self.statistic_shape(k)).double() for k in keys}
        self.natural = (self.moments[SLOPE], self.moments[CURVATURE])
        self.changed()

    def update(self, messages: dict[Any, Tensor]) -> None:
        """From E η and E η² to every F_k and the surrogate of them all."""
        mean, variance = self._normal(messages)
        slope, curvature = torch.zeros_like(mean), torch.zeros_like(mean)
        self.moments = {}
        for key, function in self._functions.items():
            of_runs = partial(function.of_runs, self.is_rough)
            value, d_mean, d_variance = rowwise(of_runs, mean, variance)
            weight = self._weight(messages, key)
            self.moments[key] = value.reshape(function.shape)
            slope = slope + function.summed(torch.where(weight == 0, 0.0, weight * d_mean))
            by_variance = torch.where(weight == 0, 0.0, weight * d_variance)
            curvature = curvature + function.summed(by_variance)
        slope = slope - 2 * mean * curvature
        self.moments[SLOPE] = slope.reshape(self.batch_shape)
        self.moments[CURVATURE] = curvature.reshape(self.batch_shape)
        self.natural = (self.moments[SLOPE], self.moments[CURVATURE])
        self.changed()

    def moments_of_values(self, messages: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
        """dF = ∂F/∂m dm + ∂F/∂v dv + E df, with q held."""
        mean, variance = self._normal(messages)
        found: dict[Any, Tensor] = {}
        for key, function in self._functions.items():
            exact = function.expected(mean, variance)
            moved = exact.d_mean * function.cases(mean - mean.detach())
            moved = moved + exact.d_variance * function.cases(variance - variance.detach())
            atom = self._atoms[key]
            if any(is_open(constant.tensor) for constant in atom.data):
                spread = function.repeated(variance.detach()).sqrt().unsqueeze(-1) * NODES
                eta = function.repeated(mean.detach()).unsqueeze(-1) + spread
                data = [d.unsqueeze(-1) for d in self._data_of(atom)]
                inside = (as_function(atom.function).evaluate(eta, *data) * WEIGHTS).sum(-1)
                inside = function.added(inside)
                moved = moved + inside - inside.detach()
            found[key] = (exact.value + moved).reshape(function.shape)
        return found

    def _weight(self, messages: Mapping[Any, Tensor], key: Any) -> Tensor:
        """The coefficients of a function in the bound, all in a row."""
        given = torch.as_tensor(messages.get(key, 0.0), dtype=torch.float64)
        return given.expand(self._functions[key].shape).reshape(-1)

    def _normal(self, messages: Mapping[Any, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and variance of every element of η, in a row."""
        zeros = torch.zeros(self.batch_shape, dtype=torch.float64)
        mean = (zeros + messages[SLOPE]).reshape(-1)
        square = (zeros + messages[CURVATURE]).reshape(-1)
        return mean, (square - mean**2).clamp(min=0.0)

    def integral_error(self, messages: Mapping[Any, Tensor]) -> float:
        mean, variance = self._normal(messages)
        total = 0.0
        for key, function in self._functions.items():
            found, weight = function.expected(mean, variance), self._weight(messages, key)
            total += float((weight * found.value * found.error).abs().nansum())
        return total


class SoftmaxNode(PredictorNode):
    """log Σ_k exp η_k over the last axis of a predictor, by its tilted bound.

    E log Σ exp η has no integral of low dimension; with the means and covariances of the η_k it is at most
    the bound of :mod:`vitools.calculus.curved.softmax`, which takes its place (with minus signs: a
    normaliser lowers the bound further).
    """

    def resolve(self, atoms: Sequence[Atom]) -> Resolved:
        if len(atoms) > 1 or atoms[0].function not in (*SURROGATES, VALUE):
            raise Unsupported("a product with the normaliser of a softmax")
        return Resolved(atoms[0].function, atoms[0].labels)

    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        if key == VALUE:
            return self.batch_shape[:-1]
        return (*self.batch_shape, self.batch_shape[-1]) if key == CURVATURE else self.batch_shape

    def start(self, generator: torch.Generator | None = None) -> None:
        self._set(
            {k: torch.zeros(self.statistic_shape(k)).double() for k in (VALUE, SLOPE, CURVATURE)}
        )

    def _set(self, moments: dict[Any, Tensor]) -> None:
        self.moments = moments
        self.natural = (moments[SLOPE], moments[CURVATURE])
        self.changed()

    def integral_error(self, messages: Mapping[Any, Tensor]) -> float:
        return 0.0  # one number is minimised over, none integrated

    def moments_of_values(self, messages: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
        mean, covariance, _ = self._told(messages)
        exact = softmax_bound(mean, covariance)
        moved = (exact.d_mean * (mean - mean.detach())).sum(-1)
        moved = moved + (exact.d_covariance * (covariance - covariance.detach())).sum((-2, -1))
        return {VALUE: (exact.value + moved).reshape(self.batch_shape[:-1])}

    def _told(self, messages: Mapping[Any, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and covariance of η, and the coefficient of log Σ exp, in rows."""

        def told(key: str) -> Tensor:
            shape = self.statistic_shape(key)
            return torch.as_tensor(messages.get(key, 0.0), dtype=torch.float64).expand(shape)

        classes = self.batch_shape[-1]
        mean = told(SLOPE).reshape(-1, classes)
        second = told(CURVATURE).reshape(-1, classes, classes)
        covariance = (second + second.mT) / 2 - mean.unsqueeze(-1) * mean.unsqueeze(-2)
        return mean, covariance, told(VALUE).reshape(-1)

    def update(self, messages: dict[Any, Tensor]) -> None:
        classes = self.batch_shape[-1]
        mean, covariance, weight = self._told(messages)
        diagonal = covariance.diagonal(dim1=-2, dim2=-1)
        covariance = covariance + torch.diag_embed(diagonal.clamp(min=0.0) - diagonal)
        value, d_mean, d_covariance = rowwise(softmax_bound_of_runs, mean, covariance)
        curvature = weight[:, None, None] * d_covariance
        slope = weight[:, None] * d_mean - 2 * (curvature @ mean.unsqueeze(-1)).squeeze(-1)
        self._set(
            {
                VALUE: value.reshape(self.batch_shape[:-1]),
                SLOPE: slope.reshape(self.batch_shape),
                CURVATURE: curvature.reshape(*self.batch_shape, classes),
            }
        )


def make_predictors(
    terms: Iterable[ClosedTerm], block_of: Mapping[str, Block]
) -> list[PredictorNode]:
    """The predictors that terms hold functions of, if E f(η) under q is a Gaussian integral."""
    found: dict[Predictor, str] = {}
    for term in terms:
        functions = [
            a
            for a in term.atoms
            if isinstance(a.site, Predictor) and not a.site.is_sum and a.function not in SURROGATES
        ]
        below: list[Block] = []
        for atom in functions:
            found.setdefault(atom.site, term.origin)  # type: ignore[arg-type]
            below += {block_of[name] for name in atom.site.expression.sites()}  # type: ignore[attr-defined]
        beside = [block_of[a.site] for a in term.atoms if a.site in block_of]
        if functions and len({*below, *beside}) < len(below) + len(set(beside)):
            both = listed(sorted({repr(name) for block in below for name in block.names}))
            raise _refused(
                term.origin,
                f"a curved function of {both} times another function of the same",
                below,
            )
        if any(atom.function == VALUE for atom in functions) and not _is_lowered(term):
            of = listed([repr(name) for name in sorted({n for b in below for n in b.names})])
            raise _refused(
                term.origin,
                f"log Σ exp of {of} with a factor that may be positive, and only an upper bound of "
                "it has a closed form: the whole would be no lower bound",
                below,
            )
    for name, origin in found.items():
        for site in sorted(name.expression.sites()):
            if not block_of[site].family.is_gaussian:
                of = listed([repr(each) for each in sorted(name.expression.sites())])
                raise _refused(
                    origin,
                    f"a curved function of {of} together, and {site!r} is {_no_normal(block_of[site], site)}",
                    [block_of[each] for each in name.expression.sites()],
                )
    return [SoftmaxNode(n) if n.is_vector else PredictorNode(n) for n in found]


def _is_lowered(term: ClosedTerm) -> bool:
    """Whether what stands beside log Σ exp in the term is nowhere positive."""
    sign = term.coefficient
    for constant in term.constants:
        if bool((constant.tensor < 0).any()):
            if bool((constant.tensor > 0).any()):
                return False
            sign = -sign
    return sign <= 0 and all(atom.function in ("indicator", VALUE) for atom in term.atoms)


def _no_normal(block: Block, site: str) -> str:
    """What a site's factor is instead."""
    others = [repr(name) for name in block.names if name != site]
    kind = block.family.title or block.family.name
    return (
        f"not Gaussian but {kind} of {listed(others)}: leave it out of joint"
        if others
        else "not Gaussian"
    )


def _refused(origin: str, what: str, blocks: Iterable[Block]) -> NotConjugateError:
    return NotConjugateError(
        f"site {origin!r}: not conjugate to its parents: the expected log density needs {what}",
        [name for block in blocks for name in block.names],
    )
