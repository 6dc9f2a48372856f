"""From a traced model to the closed terms of E_q log p.

Every factor's log density is summed over its plates; the axis of a plate carries that plate's own
label in all terms, so terms know their plates. Axes read by data get a selection beside them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Container
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from vitools.calculus.algebra.atoms import (
    Atom,
    Function,
    Predictor,
    Unsupported,
    fresh,
    is_open,
)
from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.term import Term
from vitools.calculus.densities.by_cases import numbers_as_predictors
from vitools.calculus.densities.closed_terms import (
    ClosedTerm,
    ExpectedLogJoint,
    read_by_selection,
    term_sizes,
)
from vitools.calculus.densities.rules import DISCRETE_VALUES, RULES
from vitools.calculus.densities.surrogates import (
    allocation_terms,
    predictors,
    surrogate_terms,
)
from vitools.calculus.densities.tabled import tabled_density
from vitools.calculus.densities.whole import on_nodes, whole_density
from vitools.calculus.tracing.inner import opened
from vitools.calculus.tracing.symbolic import Refusal
from vitools.calculus.tracing.trace import ModelTrace, TracedSite
from vitools.errors import NotConjugateError
from vitools.families import conjugate_priors
from vitools.supports import bounds, from_reals


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
    terms = [read_by_selection(t, name, trace) for name, t in zip(origins, read, strict=True)]
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
        terms += [read_by_selection(t, name, trace) for t in made]
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
    given = opened(site)
    for name, argument in given.arguments.items():
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
        one = tabled_density(site, given, arguments, value) or whole_density(site, given, arguments)
        if one is not None:
            return one
        involved = sorted(
            {s for a in arguments.values() if isinstance(a, Expression) for s in a.sites()}
        )
        if site.distribution not in RULES:
            together = [repr(name) for name in ([site.name] * site.is_latent + involved)]
            among = f" in which {', '.join(together)} separate" if len(together) > 1 else ""
            if len(together) == 1 and involved:
                among = f" with {together[0]}"
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


def is_number(site: TracedSite) -> bool:
    """Whether a site's elements are continuous scalars: any prior of theirs has a factor.

    An angle's density repeats itself on the line, which is no density there.
    """
    is_angle = site.distribution == "VonMises"
    return not site.base_event_dim and not site.fn.support.is_discrete and not is_angle


def check_family(site: TracedSite) -> None:
    if site.family is None and not is_number(site):
        raise NotConjugateError(
            f"latent site {site.name!r}: {site.distribution} has no conjugate family "
            f"({advice(site)})",
            [site.name],
        )
