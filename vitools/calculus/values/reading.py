"""A model read with some of its sites at values, and what it states on the average of many.

At draws w_1 … w_M of those sites the other terms are the same up to their constants, so

    1/M Σ_m E_q log p(x, θ, w_m)

is one more sum of terms: constants that moved with w get an axis of the draws, over which the term is
summed like over any plate, and a weight of 1/M. Folding adds most of them up at once. Constants keep the
gradient of the values, and of parameters of the model, that they were computed from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

from vitools.calculus.algebra.atoms import Atom, Constant, Function, Predictor, fresh, is_open
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.term import Term
from vitools.calculus.blocks.dependence import held_to_cells
from vitools.calculus.blocks.plan import shared_normals
from vitools.calculus.densities.closed_terms import ClosedTerm, ExpectedLogJoint, Selection
from vitools.calculus.densities.log_joint import stated_terms, with_surrogates
from vitools.calculus.densities.masks import with_priors_that_matter
from vitools.calculus.reduction.folding import fold
from vitools.calculus.tracing.augmentation import with_mixtures
from vitools.calculus.tracing.symbolic import SymbolicTensor
from vitools.calculus.tracing.trace import ModelTrace, TracedSite, trace_model
from vitools.problem.density.vectorise import DrawMapper


@dataclass(frozen=True)
class Reading:
    """What a model states with some sites at values.

    Attributes:
        trace: of one draw; what the other sites are.
        stated: all terms, draws on an axis of their own.
        joint: the same, folded.
        outside: sites of which a parameter is none that its distribution allows, if read without draws.
    """

    trace: ModelTrace
    stated: ExpectedLogJoint
    joint: ExpectedLogJoint
    outside: tuple[str, ...] = ()


class Reader:
    """Reads a model again and again, at other draws each time.

    ``joint``, ``factorised`` and ``cut`` are those of the blocks that are to be made of what it reads.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        joint: Sequence[Sequence[str] | str] | None = None,
        factorised: Sequence[str] | Literal["all"] | None = None,
        cut: Sequence[str] | None = (),
    ):
        self._model, self._args, self._kwargs = model, args, dict(kwargs)
        self._joint, self._factorised, self._cut = joint, factorised, cut
        self._mapper = DrawMapper(None)
        self._trace: ModelTrace | None = None
        self._unmasked: frozenset[str] = frozenset()
        self._normal: frozenset[str] = frozenset()

    def anew(self) -> Reader:
        """A reader of the same model that has read nothing."""
        return Reader(
            self._model,
            self._args,
            self._kwargs,
            joint=self._joint,
            factorised=self._factorised,
            cut=self._cut,
        )

    @torch.enable_grad()
    def __call__(self, values: Mapping[str, Tensor]) -> Reading:
        """Terms at draws ``{site: [M, *shape]}``; without any, of the model itself."""
        if self._trace is None:
            self._trace = self._settled({name: value[0] for name, value in values.items()})
        outside: tuple[str, ...] = ()
        if not values:
            read = self._traced({})
            outside = outside_constraints(read)
            terms, plate_labels = self._terms_of(read)
        else:
            seen: list[tuple[list[ClosedTerm], dict[str, int], list[Constant]]] = []

            def once(draw: Mapping[str, Tensor]) -> list[Tensor]:
                terms, labels = self._stated(draw)
                constants = _open_constants(terms)
                seen[:] = [(terms, labels, constants)]
                return [constant.tensor for constant in constants]

            stacked = self._mapper(once, dict(values))
            terms, plate_labels, constants = seen[0]
            terms = _averaged(terms, dict(zip(map(id, constants), stacked, strict=True)))
        stated = with_surrogates(terms, plate_labels, self._trace)
        return Reading(self._trace, stated, fold(stated), outside)

    def _stated(self, draw: Mapping[str, Tensor]) -> tuple[list[ClosedTerm], dict[str, int]]:
        return self._terms_of(self._traced(draw))

    def _terms_of(self, trace: ModelTrace) -> tuple[list[ClosedTerm], dict[str, int]]:
        unmasked = {name: replace(trace.sites[name], mask=None) for name in self._unmasked}
        return stated_terms(replace(trace, sites={**trace.sites, **unmasked}, normal=self._normal))

    def _traced(self, draw: Mapping[str, Tensor]) -> ModelTrace:
        model = poutine.condition(self._model, data=dict(draw)) if draw else self._model
        return with_mixtures(trace_model(model, self._args, self._kwargs, differentiable=True))

    def _settled(self, draw: Mapping[str, Tensor]) -> ModelTrace:
        """The trace; which masks of latents are none, and which scalars share a normal factor."""
        before = self._traced({name: value.detach() for name, value in draw.items()})
        stated = with_surrogates(*stated_terms(before), before)
        after = with_priors_that_matter(before, stated.terms)
        self._unmasked = frozenset(
            name for name, site in after.sites.items() if site.mask is not before.sites[name].mask
        )
        cut = held_to_cells(after, self._joint, self._cut)
        self._normal = shared_normals(after, stated.terms, self._joint, self._factorised, cut)
        return replace(after, normal=self._normal)


@torch.no_grad()
def outside_constraints(trace: ModelTrace) -> tuple[str, ...]:
    """Sites with a known parameter that their distribution does not allow: a negative scale."""

    def is_outside(site: TracedSite, name: str, argument: Any) -> bool:
        constraint = getattr(site.fn, "arg_constraints", {}).get(name)
        if isinstance(argument, Expression) and argument.is_constant:
            argument = argument.value()
        if not isinstance(argument, Tensor) or isinstance(argument, SymbolicTensor):
            return False
        if constraint is None or constraints.is_dependent(constraint):
            return False
        return not bool(constraint.check(argument).all())

    return tuple(
        name
        for name, site in trace.sites.items()
        if any(is_outside(site, *given) for given in site.arguments.items())
    )


def moves(atom: Atom) -> bool:
    """Whether data inside the atom's function, or below its predictor, follow from values."""
    below = atom.site.expression.terms if isinstance(atom.site, Predictor) else ()
    return any(is_open(c.tensor) for c in (*atom.data, *(c for t in below for c in t.constants())))


@torch.enable_grad()
def refilled(terms: Sequence[ClosedTerm], others: Sequence[ClosedTerm]) -> list[ClosedTerm] | None:
    """The terms with the constants of others, gradient and all; None where they are not the same terms."""
    if len(terms) != len(others):
        return None
    found = [_refilled(*pair) for pair in zip(terms, others, strict=True)]
    return None if None in found else found  # type: ignore[return-value]


def _refilled(term: ClosedTerm, other: ClosedTerm) -> ClosedTerm | None:
    same = (
        term.coefficient == other.coefficient
        and len(term.constants) == len(other.constants)
        and len(term.selections) == len(other.selections)
        and [(a.site, str(a.function)) for a in term.atoms]
        == [(a.site, str(a.function)) for a in other.atoms]
    )
    if not same:
        return None
    names: dict[int, int] = {}
    pairs = [*zip(other.atoms, term.atoms, strict=True)]
    pairs += [*zip(other.selections, term.selections, strict=True)]  # type: ignore[list-item]
    for theirs, mine in pairs:
        for label, name in zip(_labels(theirs), _labels(mine), strict=True):
            if names.setdefault(label, name) != name:
                return None
    constants = []
    for held, given in zip(term.constants, other.constants, strict=True):
        labels = tuple(names.get(label, label) for label in given.labels)
        inner = [label for label in held.labels if label not in labels]
        for label in given.labels:
            if label not in names and inner:
                names[label] = inner.pop(0)  # it stands on constants only
        labels = tuple(names.get(label, label) for label in given.labels)
        if sorted(labels) != sorted(held.labels) or len(set(labels)) < len(labels):
            return None
        order = [labels.index(label) for label in held.labels]
        tensor = given.tensor.permute(order) if len(order) > 1 else given.tensor
        if tensor.shape != held.tensor.shape or is_open(tensor) != is_open(held.tensor):
            return None
        constants.append(replace(held, tensor=tensor if is_open(tensor) else held.tensor))
    return replace(term, constants=tuple(constants))


def _labels(factor: Any) -> tuple[int, ...]:
    return (*factor.labels, factor.target) if isinstance(factor, Selection) else factor.labels


def _open_constants(terms: Iterable[ClosedTerm]) -> list[Constant]:
    """The constants that follow from values, those inside functions and predictors too; each once."""
    found: dict[int, Constant] = {}
    for term in terms:
        inside = [constant for atom in term.atoms for constant in atom.data]
        below = [
            constant
            for atom in term.atoms
            if isinstance(atom.site, Predictor)
            for part in atom.site.expression.terms
            for constant in part.constants()
        ]
        for constant in (*term.constants, *inside, *below):
            if is_open(constant.tensor):
                found[id(constant)] = constant
    return list(found.values())


def _averaged(terms: Sequence[ClosedTerm], stacked: Mapping[int, Tensor]) -> list[ClosedTerm]:
    """The mean of the terms over draws: ``stacked`` has the constants ``[M, …]`` by their id."""
    if not stacked:
        return list(terms)
    draws = len(next(iter(stacked.values())))
    axis = fresh()

    def moved(constant: Constant, label: int) -> Constant:
        if id(constant) not in stacked:
            return constant
        return replace(constant, tensor=stacked[id(constant)], labels=(label, *constant.labels))

    moving = {
        atom.site
        for term in terms
        for atom in term.atoms
        if isinstance(atom.site, Predictor)
        if any(
            id(c) in stacked for c in _open_constants([replace(term, constants=(), atoms=(atom,))])
        )
    }
    predictors = {name: _of_every_draw(name, draws, moved) for name in moving}

    def of_draws(atom: Atom) -> Atom:
        function = atom.function
        if isinstance(function, Function) and any(id(c) in stacked for c in function.data):
            data = tuple(moved(constant, axis) for constant in function.data)
            function = replace(function, data=data, inner=None, parts=())
        if atom.site in predictors:
            return Atom(predictors[atom.site], function, (axis, *atom.indices))  # type: ignore[index]
        return replace(atom, function=function)

    made = []
    for term in terms:
        atoms = tuple(map(of_draws, term.atoms))
        constants = tuple(moved(constant, axis) for constant in term.constants)
        varies = any(axis in x.labels for x in atoms) or any(axis in x.labels for x in constants)
        weight = term.coefficient / draws if varies else term.coefficient
        made.append(replace(term, coefficient=weight, constants=constants, atoms=atoms))
    return made


def _of_every_draw(
    name: Predictor, draws: int, moved: Callable[[Constant, int], Constant]
) -> Predictor:
    """A predictor with the draws as its first axis."""
    expression, label = name.expression, fresh()
    terms = []
    for term in expression.terms:
        factors = tuple(moved(f, label) if isinstance(f, Constant) else f for f in term.factors)
        varies = any(label in factor.labels for factor in factors)
        terms.append(Term(term.coefficient, factors, (label if varies else None, *term.out)))
    made = Predictor.of(Expression(terms, (draws, *expression.shape)), is_vector=name.is_vector)
    made.shown = name.shown
    return made
