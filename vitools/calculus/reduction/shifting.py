"""An exact change of coordinates: a location x is written c + x' with a reference point c.

E τ (y - x)² written out in raw moments, y² - 2 y E x + E x², cancels: of data at a distance m with
standard deviation s no more than ε (m/s)² of it is left. With x = c + x' the constants of y - x come
together first, and (y - c) - x' is of the order of s. The latents of the shifted model are the x'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Atom, Constant, Gather, Index
from vitools.calculus.algebra.cases import as_table, is_table
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.term import Term, drop_unused_out, simplify
from vitools.calculus.tracing.trace import ModelTrace, TracedSite

# The parameter that is the location of each distribution that has one.
LOCATION = {
    "Normal": "loc",
    "LogNormal": "loc",
    "MultivariateNormal": "loc",
    "ShapedNormal": "loc",
}

Points = Mapping[str, Tensor]
"""The reference point of a site, of its shape; an axis that discrete latents read has size one."""


def shifted(trace: ModelTrace, points: Points) -> ModelTrace:
    """The same model over x - c for the sites that have a reference point."""
    return replace(trace, sites={n: _shifted_site(s, points) for n, s in trace.sites.items()})


def _shifted_site(site: TracedSite, points: Points) -> TracedSite:
    arguments = dict(site.arguments)
    loc = arguments.get(LOCATION.get(site.distribution, ""))
    if isinstance(loc, Expression):
        arguments["loc"] = written_out(loc, points)
    if site.name not in points:
        return replace(site, arguments=arguments)
    assert isinstance(site.value, Expression)
    value = written_out(site.value, points)
    if site.is_part:
        return replace(site, arguments=arguments, value=value)
    reference = points[site.name].expand(site.shape)
    return replace(site, arguments=arguments, value=value, reference=reference)


def written_out(expression: Expression, points: Points) -> Expression:
    """The expression with c + x' in place of x."""
    if not expression.sites() & set(points):
        return expression
    made: list[Term] = []
    for term in expression.terms:
        made += (t for new in _expanded(term, points) if (t := simplify(new)) is not None)
    by_cases = [term for term in made if is_table(term)]
    rest = [term for term in made if not is_table(term)]
    return Expression([*rest, *_of_one_value(by_cases)], expression.shape)


def _expanded(term: Term, points: Points) -> list[Term]:
    terms = [term]
    for atom in term.atoms():
        if atom.site in points:
            constant = read_constant(points[atom.site], atom.indices)
            terms += [without_idle_selectors(_replaced(t, atom, constant)) for t in terms]
    return terms


def _replaced(term: Term, atom: Atom, constant: Constant) -> Term:
    factors = tuple(constant if f is atom else f for f in term.factors)
    return drop_unused_out(Term(term.coefficient, factors, term.out))


def read_constant(tensor: Tensor, indices: Sequence[Index]) -> Constant:
    """A tensor read as an atom with these indices reads its site; no label for axes of size one."""
    read = [(i, n) for i, n in zip(indices, tensor.shape, strict=True) if n > 1]
    tensor = tensor.reshape([n for _, n in read])
    places = [i.labels if isinstance(i, Gather) else (i,) for i, _ in read]
    labels = tuple(dict.fromkeys(label for place in places for label in place))
    if all(isinstance(i, int) for i, _ in read) and len(labels) == len(read):
        return Constant(tensor, labels)
    where = []
    for (index, size), place in zip(read, places, strict=True):
        position = index.index if isinstance(index, Gather) else torch.arange(size)
        order = sorted(range(len(place)), key=lambda i: labels.index(place[i]))
        sizes = iter(position.permute(order).shape)
        view = [next(sizes) if label in place else 1 for label in labels]
        where.append(position.permute(order).reshape(view))
    return Constant(tensor[tuple(where)], labels)


def without_idle_selectors(term: Term) -> Term:
    """Σ_k 1[z=k] = 1: selectors whose case nothing else in the term reads drop out."""
    for factor in term.factors:
        others = [f for f in term.factors if f is not factor]
        elsewhere = {x for f in others for x in f.labels} | set(term.out)
        if isinstance(factor, Atom) and factor.function == "indicator":
            idle = factor.indices[-1] not in elsewhere
        elif isinstance(factor, Constant) and factor.selects:
            own = [i for i, x in enumerate(factor.labels) if x not in elsewhere]
            idle = bool(own) and bool((factor.tensor.sum(own) == 1).all())
        else:
            continue
        if idle:
            left = drop_unused_out(Term(term.coefficient, tuple(others), term.out))
            return without_idle_selectors(left)
    return term


def _of_one_value(terms: list[Term]) -> list[Term]:
    """Cases that all have one value, c·1[z=1] + c·1[z=2], as that value."""
    table = as_table(terms) if terms else None
    if table is None:
        return terms
    (constant,) = table.constants()
    supports = {atom.indices[-1] for atom in table.atoms()}
    axes = [i for i, x in enumerate(constant.labels) if x in supports]
    values = constant.tensor
    for axis in axes:
        if bool((values != values.narrow(axis, 0, 1)).any()):
            return terms
        values = values.narrow(axis, 0, 1)
    kept = tuple(x for x in constant.labels if x not in supports)
    value = Constant(values.reshape([n for i, n in enumerate(values.shape) if i not in axes]), kept)
    return [drop_unused_out(Term(table.coefficient, (value,), table.out))]


def tables(expression: Expression) -> int:
    """How many of the terms are numbers that vary with discrete latents."""
    return sum(map(is_table, expression.terms))
