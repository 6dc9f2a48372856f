"""From a traced model to the closed terms of E_q log p.

Every factor's log density is summed over its plates; the axis of a plate carries that plate's own
label in all terms, so terms know their plates. Axes read by data get a selection beside them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from vitools.calculus.algebra.atoms import (
    Atom,
    Constant,
    Function,
    Gather,
    Index,
    Predictor,
    Unsupported,
    fresh,
    is_open,
)
from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.term import Term
from vitools.calculus.densities.by_cases import numbers_as_predictors
from vitools.calculus.densities.rules import DISCRETE_VALUES, RULES
from vitools.calculus.densities.surrogates import (
    allocation_terms,
    predictor_shape,
    predictors,
    surrogate_terms,
)
from vitools.calculus.densities.tabled import tabled_density
from vitools.calculus.densities.whole import on_nodes, whole_density
from vitools.calculus.tracing.symbolic import Refusal
from vitools.calculus.tracing.trace import ModelTrace, TracedSite
from vitools.errors import NotConjugateError
from vitools.families import conjugate_priors
from vitools.supports import bounds, from_reals


@dataclass(frozen=True, eq=False)
class Selection:
    """The 0/1 tensor 1[index[labels] = target], kept as integers."""

    index: Tensor
    labels: tuple[int, ...]
    target: int
    size: int

    def dense(self) -> Constant:
        hot = torch.nn.functional.one_hot(self.index, self.size).double()
        return Constant(hot, (*self.labels, self.target))


@dataclass(frozen=True, eq=False)
class ClosedTerm:
    """coefficient · Π constants · Π selections · Π atoms, all labels summed."""

    coefficient: float
    constants: tuple[Constant, ...]
    selections: tuple[Selection, ...]
    atoms: tuple[Atom, ...]  # every index is a plain label
    origin: str  # the site whose log density it came from

    @property
    def operands(self) -> list[Constant | Selection]:
        return [*self.constants, *self.selections]

    def constant_labels(self) -> set[int]:
        found = {label for c in self.constants for label in c.labels}
        for selection in self.selections:
            found |= {*selection.labels, selection.target}
        return found

    def atom_labels(self) -> set[int]:
        return {label for atom in self.atoms for label in atom.labels}


@dataclass
class ExpectedLogJoint:
    """E_q log p = constant + Σ terms; the labels of plates and the size of every label."""

    terms: list[ClosedTerm]
    constant: float | Tensor
    plate_labels: dict[str, int]
    sizes: dict[int, int]


def expected_log_joint(trace: ModelTrace, without: Container[str] = ()) -> ExpectedLogJoint:
    """The closed terms of all sites but those left out."""
    terms, plate_labels = stated_terms(trace, without)
    return with_surrogates(terms, plate_labels, trace)


def stated_terms(
    trace: ModelTrace, without: Container[str] = ()
) -> tuple[list[ClosedTerm], dict[str, int]]:
    """The terms of the sites' log densities, and the label of each plate."""
    plate_labels = {name: fresh() for name in trace.plates}
    simplex = on_the_simplex(trace)
    written: list[tuple[str, Term]] = []
    for site in trace.sites.values():
        has_parts = site.is_latent and site.name in trace.rolled
        if site.name not in without and not has_parts:
            made = _site_terms(site, log_density(site, simplex), plate_labels)
            written += [(site.name, term) for term in made]
        if site.nodes is not None:
            base = replace(site, mask=None, switch=None, scale=1.0)
            made = _site_terms(base, on_nodes(site, site.nodes.log_weights), plate_labels)
            written += [(site.name, term) for term in made]
    read = numbers_as_predictors([term for _, term in written], trace)
    origins = [name for name, _ in written]
    terms = [_read_by_selection(t, name, trace) for name, t in zip(origins, read, strict=True)]
    return _vectors_as_predictors(terms, trace), plate_labels


def with_surrogates(
    terms: list[ClosedTerm], plate_labels: dict[str, int], trace: ModelTrace
) -> ExpectedLogJoint:
    """All terms: those stated, and those by which curved functions in them speak to the latents."""
    terms = list(terms)
    for name, labels in predictors(atom for term in terms for atom in term.atoms).items():
        if name.is_sum:
            made = allocation_terms(name, labels, trace)
        else:
            made = surrogate_terms(name, labels)
        terms += [_read_by_selection(t, name, trace) for t in made]
    return ExpectedLogJoint(terms, 0.0, plate_labels, term_sizes(terms, trace, plate_labels))


def on_the_simplex(trace: ModelTrace) -> frozenset[str]:
    """Sites whose values add up to one."""
    return frozenset(
        name for name, site in trace.sites.items() if site.fn.support is constraints.simplex
    )


def _vectors_as_predictors(terms: list[ClosedTerm], trace: ModelTrace) -> list[ClosedTerm]:
    """Functions of the elements of a multivariate normal as those of a predictor, which they are.

    (A scalar site takes its optimal factor, which need not be normal.)
    """
    vectors = {
        name
        for name, site in trace.sites.items()
        if site.family is not None and site.family.is_gaussian and site.base_event_dim
    }
    names: dict[str, Predictor] = {}

    def renamed(atom: Atom) -> Atom:
        if atom.site not in vectors or not isinstance(atom.function, Function):
            return atom
        if atom.site not in names:
            itself = Expression.latent(atom.site, trace.sites[atom.site].shape)
            names[atom.site] = itself.predictor
        return replace(atom, site=names[atom.site])

    return [replace(term, atoms=tuple(map(renamed, term.atoms))) for term in terms]


# ---- closing ---------------------------------------------------------------------------------


def _site_terms(site: TracedSite, density: Expression, plate_labels: dict[str, int]) -> list[Term]:
    if site.mask is not None:
        density = density * Expression.constant(site.mask.double())
    if site.switch is not None:
        density = density * site.switch
    density = density * site.scale
    shape = site.batch_shape
    terms = []
    for term in density.terms:
        term = term.freshen().pad(len(shape))
        names = {
            label: plate_labels[site.plates[dim].name]
            for dim, label in enumerate(term.out)
            if label is not None and dim in site.plates
        }
        repeats = math.prod(
            size for size, label in zip(shape, term.out, strict=True) if label is None
        )
        terms.append(Term(term.coefficient * repeats, term.rename(names).factors, ()))
    return [term for term in terms if term.coefficient]


def log_density(site: TracedSite, simplex: frozenset[str]) -> Expression:
    """The site's log density as an expression, or NotConjugateError."""
    if site.distribution not in RULES or _moves(site):
        constant = _constant_density(site)
        if constant is not None:
            return constant
    arguments: dict[str, Any] = {}
    for name, argument in site.arguments.items():
        if argument is None or name == "validate_args":
            continue
        if isinstance(argument, Refusal):
            parents = ", ".join(repr(parent) for parent in sorted(argument.sites))
            of = "" if site.distribution == "Unit" else f" of {site.distribution}"
            raise NotConjugateError(
                f"site {site.name!r}: parameter {name!r}{of} depends on latent {parents} through an "
                f"operation without closed form: {argument.reason}",
                argument.sites,
            )
        if isinstance(argument, Discrete):
            arguments[name] = argument.expression()
        elif isinstance(argument, Expression | Tensor | int | float | np.ndarray):
            arguments[name] = Expression.constant(argument)
        else:  # distributions, constraints, shapes, transforms
            arguments[name] = argument
    try:
        return _by_rule(site, arguments, simplex)
    except Unsupported as error:
        constant = _constant_density(site)
        if constant is not None:
            return constant
        value = _tabled_value(site)
        one = tabled_density(site, arguments, value) or whole_density(site, arguments)
        if one is not None:
            return one
        involved = sorted(
            {s for a in arguments.values() if isinstance(a, Expression) for s in a.sites()}
        )
        if site.distribution not in RULES:
            together = [repr(name) for name in ([site.name] * site.is_latent + involved)]
            among = f" in which {', '.join(together)} separate" if len(together) > 1 else ""
            raise NotConjugateError(
                f"site {site.name!r}: {error}{among} ({advice(site)})",
                involved or [site.name] * site.is_latent,
            ) from error
        listed = ", ".join(repr(parent) for parent in involved) or "its parameters"
        raise NotConjugateError(
            f"site {site.name!r}: {site.distribution} is not conjugate to {listed}: "
            f"its log density needs {error}",
            involved,
        ) from error


def _tabled_value(site: TracedSite) -> Tensor | Expression | None:
    """The data, or the values of a latent on nodes; None of another latent."""
    if site.observed is not None:
        return _observed(site)
    return Expression.constant(value_of(site)) if site.nodes is not None else None


def _by_rule(site: TracedSite, arguments: dict[str, Any], simplex: frozenset[str]) -> Expression:
    """The textbook formula of the site's distribution in expressions, where there is one."""
    if site.distribution not in RULES:
        raise Unsupported(f"{site.distribution} has no closed-form rule")
    rule = RULES[site.distribution]
    wanted = inspect.signature(rule).parameters
    if "simplex_sites" in wanted:
        arguments = {**arguments, "simplex_sites": simplex}
    for name, parameter in inspect.signature(type(site.fn).__init__).parameters.items():
        left_out = name in wanted and name not in arguments and parameter.default is not None
        if left_out and parameter.default is not inspect.Parameter.empty:
            arguments = {**arguments, name: Expression.constant(parameter.default)}
    return rule(value_of(site), **arguments)


def advice(site: TracedSite) -> str:
    """The conjugate choice in place of the site's distribution, or which distributions there are."""
    suggestions = {
        "HalfCauchy": "a Gamma prior on the precision is the conjugate choice",
        "HalfNormal": "a Gamma prior on the precision is the conjugate choice",
        "LogNormal": "a Gamma prior is the conjugate choice for a rate or precision",
        "StudentT": "write it as a Normal whose precision has a Gamma prior",
        "Laplace": "write it as a Normal with an exponentially distributed variance, or use a Normal",
        "MixtureSameFamily": "sample each row's component as a Categorical latent and index by it",
        "TransformedDistribution": "take the transform to the data, as with LogNormal",
        "LKJCholesky": "a Wishart prior on the precision matrix is the conjugate choice",
    }
    if site.distribution in suggestions:
        return suggestions[site.distribution]
    known = conjugate_priors() if site.is_latent else sorted(RULES)
    return "closed forms exist for " + ", ".join(known)


def _constant_density(site: TracedSite) -> Expression | None:
    """An observed site whose parameters involve no latents adds a number, whatever it is."""
    if site.observed is None or any(
        isinstance(a, Expression | Discrete | Refusal) for a in site.arguments.values()
    ):
        return None
    return Expression.constant(site.fn.log_prob(_observed(site)))


def _moves(site: TracedSite) -> bool:
    """Whether values that move stand in the site's density."""
    constants = (site.observed, *site.arguments.values())
    return any(isinstance(x, Tensor) and is_open(x) for x in constants)


def value_of(site: TracedSite) -> Expression | Discrete:
    """The latent itself, or the data, harmless where they are masked."""
    if site.observed is None:
        assert site.value is not None
        return site.value.expression() if site.nodes else site.value  # type: ignore[union-attr]
    value = _observed(site)
    if site.distribution in DISCRETE_VALUES:
        return Discrete.data(value)
    return Expression.constant(value)


def _observed(site: TracedSite) -> Tensor:
    """The data, harmless where they are masked."""
    value = site.observed
    assert value is not None
    if site.mask is None:
        return value
    mask = site.mask.reshape(tuple(site.mask.shape) + (1,) * site.base_event_dim)
    return torch.where(mask, value, _harmless(site, value))


def _harmless(site: TracedSite, value: Tensor) -> Tensor:
    """A value inside the support, put where the mask hides the data (which may be nan)."""
    if any(isinstance(end, Tensor) and end.is_meta for end in bounds(site.fn.support)):
        return torch.zeros_like(value)  # it moves with latents
    try:
        onto = from_reals(site.fn.support)
    except NotImplementedError:  # whole numbers, where zero is one; or no map is known
        return torch.zeros_like(value)
    inside = onto(torch.zeros(onto.inverse_shape(value.shape), dtype=torch.float64))
    return inside.to(value).expand(value.shape) if not inside.is_meta else torch.zeros_like(value)


# ---- plain labels ----------------------------------------------------------------------------


def _read_by_selection(term: Term, origin: str, trace: ModelTrace) -> ClosedTerm:
    """Give each atom axis a plain label; axes read by data get a selection beside them."""
    constants = list(term.constants())
    selections: list[Selection] = []
    known: list[tuple[Gather, int, int]] = []
    atoms: list[Atom] = []
    for atom in term.atoms():
        sizes = statistic_shape(atom, trace)[: len(atom.indices)]
        labels: list[Index] = []
        for index, size in zip(atom.indices, sizes, strict=True):
            if not isinstance(index, Gather):
                if index in labels:
                    # x[k, k]: the same label twice on one atom needs an identity between them.
                    copy = fresh()
                    eye = torch.eye(size, dtype=torch.float64)
                    constants.append(Constant(eye, (index, copy)))
                    labels.append(copy)
                else:
                    labels.append(index)
                continue
            for gather, label, length in known:
                if gather.same(index) and length == size and label not in labels:
                    labels.append(label)
                    break
            else:
                label = fresh()
                known.append((index, label, size))
                labels.append(label)
                if index.labels:
                    selections.append(Selection(index.index, index.labels, label, size))
                else:
                    position = torch.zeros(size, dtype=torch.float64)
                    position[index.index] = 1
                    constants.append(Constant(position, (label,)))
        atoms.append(Atom(atom.site, atom.function, tuple(labels)))
    return ClosedTerm(term.coefficient, tuple(constants), tuple(selections), tuple(atoms), origin)


def statistic_shape(atom: Atom, trace: ModelTrace) -> tuple[int, ...]:
    """The sizes of the labels of an atom: its site's axes, then those of data inside the function."""
    if isinstance(atom.site, Predictor):
        shape = predictor_shape(atom)
    else:
        site = trace.sites[atom.site]
        shape = site.shape
        if atom.function == "indicator" and site.distribution != "OneHotCategorical":
            return (*shape, site.support_size)
        if atom.function == "log_determinant":
            return shape[:-2]
    sizes = {x: n for d in atom.data for x, n in zip(d.labels, d.tensor.shape, strict=True)}
    own = replace(atom, function=1.0).labels
    return (*shape, *(sizes[x] for x in atom.data_labels if x not in own))


def term_sizes(
    terms: Iterable[ClosedTerm], trace: ModelTrace, plate_labels: dict[str, int]
) -> dict[int, int]:
    sizes = {plate_labels[name]: plate.size for name, plate in trace.plates.items()}
    for term in terms:
        for constant in term.constants:
            sizes.update(zip(constant.labels, constant.tensor.shape, strict=True))
        for selection in term.selections:
            sizes.update(zip(selection.labels, selection.index.shape, strict=True))
            sizes[selection.target] = selection.size
        for atom in term.atoms:
            sizes.update(zip(atom.labels, statistic_shape(atom, trace), strict=True))
    return sizes
