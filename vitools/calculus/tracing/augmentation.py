"""Heavy tails as mixtures of normals over their scale, where that is what makes them fit in.

    St(x | ν, μ, σ) = ∫ N(x | μ, σ² / λ) Gamma(λ | ν/2, ν/2) dλ          (ν = 1: Cauchy)
    La(x | μ, b)    = ∫ N(x | μ, v) Exp(v | 1 / 2b²) dv                  (Andrews and Mallows 1974)

The weights λ or variances v become latents of their own, one an element, with a factor of q that is
nobody's posterior: the bound of the wider model is a bound on that of the model as written.

An observed Student-t is written so where its scale or its degrees of freedom are latent beside others
(with known ones it is a curved function of its location, which is tighter, as is one integral where
they are all that is latent); a latent one where it meets other
latents, or elements of its own, in one quantity, as the coefficients of a regression do, or where several follow
latent locations, as the states of a robust walk do, so that they can share a factor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Atom, Unsupported
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.tracing.components import with_components
from vitools.calculus.tracing.trace import ModelTrace, TracedSite

Arguments = dict[str, Any]


def with_mixtures(trace: ModelTrace) -> ModelTrace:
    """The same model, with the components and mixing variables of sites that need them as latents."""
    trace = with_components(trace)
    met = _met(trace) | _following(trace)
    sites: dict[str, TracedSite] = {}
    auxiliary = set(trace.auxiliary)
    for site in trace.sites.values():
        made = _split(site, met)
        for part in made:
            sites[part.name] = part
        auxiliary |= {part.name for part in made[:-1]}
    return replace(trace, sites=sites, auxiliary=frozenset(auxiliary))


def _met(trace: ModelTrace) -> set[str]:
    """Latents that stand in one argument with others, or with other elements of their own (X w)."""
    found: set[str] = set()
    for site in trace.sites.values():
        for argument in site.arguments.values():
            if isinstance(argument, Expression):
                sites = argument.sites()
                found |= sites if len(sites) > 1 else _added_up(argument)
    return found


def _following(trace: ModelTrace) -> set[str]:
    """Heavy-tailed latents whose location is latent, if there are several (one finds its place on nodes)."""
    found = {
        site.name
        for site in trace.sites.values()
        if site.is_latent and site.distribution in MIXTURES
        if isinstance(site.arguments.get("loc"), Expression) and site.arguments["loc"].sites()
    }
    return found if len(found) > 1 else set()


def _added_up(argument: Expression) -> set[str]:
    """Latents of which elements are summed in the argument, not chosen by a discrete latent."""
    found: set[str] = set()
    try:
        terms = argument.terms
    except Unsupported:  # a product, of which only the logarithm is written out
        return found
    for term in terms:
        selectors, values = term.split()
        kept = set(term.out).union(*(factor.labels for factor in selectors))
        met = [f for f in values if isinstance(f, Atom) and not kept.issuperset(f.labels)]
        found |= {atom.site for atom in met}
    return found


def _split(site: TracedSite, met: set[str]) -> list[TracedSite]:
    mixture = MIXTURES.get(site.distribution)
    if mixture is None or site.base_event_dim:
        return [site]
    given = {k: v for k, v in site.arguments.items() if v is not None and k != "validate_args"}
    if not all(isinstance(value, Expression | Tensor | int | float) for value in given.values()):
        return [site]  # an argument without closed form, or a table of cases
    arguments = {name: Expression.constant(value) for name, value in given.items()}
    arguments = {"loc": Expression.constant(0.0), "scale": Expression.constant(1.0)} | arguments
    others = [name for name in arguments if name != "loc"]
    is_known = all(arguments[name].is_constant for name in others)
    if site.is_latent:
        wanted = site.name in met or not is_known
    else:
        latents = set().union(*(argument.sites() for argument in arguments.values()))
        is_one_integral = len(latents) == 1 and not any(map(_added_up, arguments.values()))
        # |x - μ| needs no mixture
        wanted = not is_known and not is_one_integral and site.distribution != "Laplace"
    if not wanted:
        return [site]
    try:
        return mixture(site, arguments)
    except Unsupported:
        return [site]


def _student_t(site: TracedSite, arguments: Arguments) -> list[TracedSite]:
    half = arguments.get("df", Expression.constant(1.0)) * 0.5
    prior = {"concentration": half, "rate": half}
    weights = _mixing(site, "weights", "Gamma", prior, dist.Gamma(1.0, 1.0))
    assert isinstance(weights.value, Expression)
    return [weights, _normal(site, arguments, weights.value.power(-0.5))]


def _laplace(site: TracedSite, arguments: Arguments) -> list[TracedSite]:
    prior = {"rate": arguments["scale"].power(-2.0) * 0.5}
    variances = _mixing(site, "variances", "Exponential", prior, dist.Exponential(1.0))
    assert isinstance(variances.value, Expression)
    return [variances, _normal(site, {**arguments, "scale": 1.0}, variances.value.power(0.5))]


def _mixing(
    site: TracedSite, what: str, distribution: str, arguments: Arguments, fn: Any
) -> TracedSite:
    name = f"{what} of {site.name}"
    return replace(
        site,
        name=name,
        distribution=distribution,
        arguments=arguments,
        observed=None,
        value=Expression.latent(name, site.shape),
        fn=fn.expand(torch.Size(site.batch_shape)),
    )


def _normal(site: TracedSite, arguments: Arguments, factor: Expression) -> TracedSite:
    scale = factor * arguments["scale"]
    return replace(site, distribution="Normal", arguments={"loc": arguments["loc"], "scale": scale})


MIXTURES: dict[str, Callable[[TracedSite, Arguments], list[TracedSite]]] = {
    "Cauchy": _student_t,
    "Laplace": _laplace,
    "StudentT": _student_t,
}
