"""Reference points of Gaussian latents: where the data lie, by least squares.

The value of a site less its location is linear in the Gaussian latents, as far as it is not a product
of latents. The points c make these errors small: those of the observed sites first, then, for latents
that no observed site tells of, those of the priors. Coarse latents (of few elements) take what they
can before fine ones do, so that a level common to all groups goes to what they share. Discrete latents
count as evenly spread, and what they select shares one point. Any c is exact; a good one is near the
data. Data that lie near zero for their spread are left where they are.

Components of one mixture share a point, so of components at distances m from each other with standard
deviation s, ε (m/s)² is still lost: a fit that finds them so is made again about its own means.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Gather, Unsupported
from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.term import is_selector
from vitools.calculus.densities.log_joint import value_of
from vitools.calculus.reduction.least_squares import LeastSquares, errors_of
from vitools.calculus.reduction.shifting import LOCATION, tables, written_out
from vitools.calculus.tracing.symbolic import Refusal
from vitools.calculus.tracing.trace import ModelTrace, TracedSite


def reference_points(trace: ModelTrace) -> dict[str, Tensor]:
    """A point for each Gaussian latent that is read as a location; an axis that discrete latents
    read has size one."""
    errors = {name: e for name, site in trace.sites.items() if (e := _error(site)) is not None}
    free = movable(trace)
    while free:
        points = _fitted(trace, errors, free)
        varying = _left_by_cases(trace, points)
        if not varying:
            return {n: c for n, c in points.items() if bool(c.any()) and bool(c.isfinite().all())}
        free -= varying
    return {}


def _error(site: TracedSite) -> Expression | None:
    """Value less location."""
    loc = site.arguments.get(LOCATION.get(site.distribution, ""))
    if loc is None or isinstance(loc, Refusal | Discrete):
        return None
    value = value_of(site)
    assert isinstance(value, Expression)
    try:
        value = value.log() if site.distribution == "LogNormal" else value
        return value - Expression.constant(loc)
    except Unsupported:
        return None


def movable(trace: ModelTrace) -> set[str]:
    """Gaussian latents of which everything reads the location alone."""
    found = {
        name
        for name, site in trace.sites.items()
        if site.is_latent and site.family is not None and site.family.is_gaussian
    }
    for site in trace.sites.values():
        for name, argument in site.arguments.items():
            if isinstance(argument, Refusal):
                found -= argument.sites
            elif isinstance(argument, Expression) and name != LOCATION.get(site.distribution):
                found -= argument.sites()
            elif isinstance(argument, Expression):
                atoms = [atom for term in argument.terms for atom in term.atoms()]
                found -= {atom.site for atom in atoms if atom.function != 1.0}
    return found


def _left_by_cases(trace: ModelTrace, points: Mapping[str, Tensor]) -> set[str]:
    """Sites whose points leave numbers that vary with discrete latents: nothing comes together."""
    found: set[str] = set()
    for site in trace.sites.values():
        loc = site.arguments.get(LOCATION.get(site.distribution, ""))
        if isinstance(loc, Expression) and tables(written_out(loc, points)) > tables(loc):
            found |= {
                atom.site
                for term in loc.terms
                if any(map(is_selector, term.factors))
                for atom in term.atoms()
            } & set(points)
    return found


# ---- the points --------------------------------------------------------------------------------


def _fitted(
    trace: ModelTrace, errors: Mapping[str, Expression], movable: set[str]
) -> dict[str, Tensor]:
    """Points of small errors; none where the data lie near zero for their spread anyway."""
    together = _together(errors, movable)
    shapes = {n: _point_shape(n, trace, errors) for n in trace.sites if n in movable}
    shapes = {n: s for n, s in shapes.items() if shapes[together[n]] == s}
    root = {name: together[name] for name in shapes}
    points = {root[name]: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
    known: set[str] = set()
    for latent in (False, True):
        level = [
            errors_of(site, errors[name], trace, shapes)
            for name, site in trace.sites.items()
            if name in errors and site.is_latent == latent
        ]
        free = {root[name] for e in level for name in e.sites()} - known
        level = [e for e in level if free & {root[name] for name in e.sites()}]
        squares = LeastSquares(level, root)
        for name in sorted((n for n in points if n in free), key=lambda n: points[n].numel()):
            squares.descend(points, {name})
        if len(free) > 1:
            squares.descend(points, free)
        if not latent and not (free and squares.far(points, free)):
            return {}
        known |= free
    return {name: points[root[name]] for name in shapes}


def _point_shape(name: str, trace: ModelTrace, errors: Mapping[str, Expression]) -> tuple[int, ...]:
    """The shape of the site with one in place of the axes that discrete latents read."""
    read: set[int] = set()
    for error in errors.values():
        for term in error.terms:
            chosen = {x for f in term.factors if is_selector(f) for x in f.labels} - set(term.out)
            for atom in term.atoms():
                if atom.site == name:
                    for axis, index in enumerate(atom.indices):
                        labels = index.labels if isinstance(index, Gather) else (index,)
                        if chosen & set(labels):
                            read.add(axis)
    return tuple(1 if i in read else n for i, n in enumerate(trace.sites[name].shape))


def _together(errors: Mapping[str, Expression], movable: set[str]) -> dict[str, str]:
    """Sites that are cases of one location share the point of the first of them."""
    first = {name: name for name in movable}
    for error in errors.values():
        cases = dict.fromkeys(
            atom.site
            for term in error.terms
            if any(map(is_selector, term.factors))
            for atom in term.atoms()
            if atom.site in movable
        )
        roots = [first[name] for name in cases]
        for name, root in first.items():
            if root in roots:
                first[name] = roots[0]
    return first
