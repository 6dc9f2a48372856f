"""A log density as a table: where its value and parameters depend on discrete latents alone.

    log p(x_n | a(z_n), b(w)) = Σ_{k, l} 1[z_n = k] 1[w = l] log p(x_n | a_k, b_l)

Whatever the distribution, its density is a number for each case; so is that of a latent on nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vitools.calculus.algebra.atoms import LOG_ZERO, Atom, Constant, Unsupported, fresh
from vitools.calculus.algebra.cases import as_table, place_labels
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.term import Term, drop_unused_out
from vitools.calculus.tracing.inner import Opened
from vitools.calculus.tracing.trace import TracedSite

MOST_ENTRIES = 50_000_000
VALUE = "the value"


def tabled_density(
    site: TracedSite, given: Opened, arguments: Mapping[str, Any], value: Tensor | Expression | None
) -> Expression | None:
    """log p of data, or of a table, as indicators times one; None where another latent stands in it.

    Args:
        given: what the site's distribution is made of.
        arguments: the same in expressions.
    """
    if value is None or any(isinstance(a, Distribution) for a in arguments.values()):
        return None
    latent = [a for a in arguments.values() if isinstance(a, Expression) and not a.is_constant]
    if site.nodes is not None and not latent:
        return None  # a known prior of a scalar on nodes, whose own density is taken there
    common = [fresh() if size > 1 else None for size in site.batch_shape]
    places: list[Atom] = []
    tables: dict[str, _Table] = {}
    arguments = {**arguments, VALUE: value}
    for name, argument in arguments.items():
        if isinstance(argument, Expression):
            table = _on_labels(argument, given.own.get(name, 0), common, places)
            if table is None:
                return None
            tables[name] = table
    if not places:
        return None
    supports = [place.indices[-1] for place in places]
    sizes = {
        x: n
        for t in tables.values()
        for x, n in zip(t.constant.labels, t.constant.tensor.shape, strict=True)
    }
    sizes |= {x: n for x, n in zip(common, site.batch_shape, strict=True) if x is not None}
    cases = [sizes[x] for x in supports]  # type: ignore[index]
    entries = torch.Size([*cases, *site.shape]).numel()
    if entries > MOST_ENTRIES:
        return None
    values = {name: table.laid_out([*supports, *common]) for name, table in tables.items()}
    parameters = {**arguments, **values}
    data = parameters.pop(VALUE)
    density = _log_prob(given.make(parameters), data)
    if bool(density.isnan().any()):
        return None
    density = density.expand([*cases, *site.batch_shape])
    labels = [*supports, *common]
    kept = [i for i, x in enumerate(labels) if x is not None]
    squeezed = density.reshape([density.shape[i] for i in kept])
    constant = Constant(squeezed.clamp(min=LOG_ZERO), tuple(labels[i] for i in kept))  # type: ignore[misc]
    term = drop_unused_out(Term(1.0, (*places, constant), tuple(common)))
    return Expression([term], site.batch_shape)


class _Table:
    """A parameter's numbers: along supports, the site's batch dims and the parameter's own dims."""

    def __init__(self, constant: Constant, own: list[int | None], own_shape: tuple[int, ...]):
        self.constant, self.own, self.own_shape = constant, own, own_shape

    def laid_out(self, labels: list[Any]) -> Tensor:
        """[one dim for each label, *own_shape], of size one where it does not vary."""
        labels = [*labels, *self.own]
        present = [x for x in labels if x in self.constant.labels]
        tensor = self.constant.tensor.permute([self.constant.labels.index(x) for x in present])
        size = dict(zip(present, tensor.shape, strict=True))
        tensor = tensor.reshape([size.get(x, 1) for x in labels])
        return tensor.expand([*tensor.shape[: len(labels) - len(self.own)], *self.own_shape])


def _on_labels(
    argument: Expression, event_dim: int, common: list[int | None], places: list[Atom]
) -> _Table | None:
    """A parameter with the site's labels on its batch dims and one indicator for each place."""
    batch = argument.dim - event_dim
    if batch > len(common) or batch < 0:
        return None
    own_shape = argument.shape[batch:]
    if argument.is_constant:
        terms = Expression.constant(argument.value()).terms
        table: Term | None = terms[0] if terms else Term(0.0, (), (None,) * argument.dim)
    else:
        try:
            terms = argument.terms
        except Unsupported:  # no sum of terms, hence no table
            return None
        table = as_table(terms)
    if table is None:
        return None
    term = table.freshen().pad(len(common) + event_dim)
    names = {
        x: y for x, y in zip(term.out, common, strict=False) if x is not None and y is not None
    }
    term = term.rename(names)
    for atom in term.atoms():
        if not set(place_labels(atom)) <= set(common):
            return None
        known = next((p for p in places if _same_element(p, atom)), None)
        if known is None:
            places.append(atom)
        else:
            term = term.rename({atom.indices[-1]: known.indices[-1]})  # type: ignore[dict-item]
    constants = term.constants()
    constant = constants[0] if constants else Constant(torch.ones((), dtype=torch.float64), ())
    scaled = Constant(constant.tensor.double() * term.coefficient, constant.labels)
    return _Table(scaled, list(term.out[len(common) :]), own_shape)


def _same_element(a: Atom, b: Atom) -> bool:
    return Atom(a.site, 0.0, a.indices[:-1]).same_place(Atom(b.site, 0.0, b.indices[:-1]))


def _log_prob(distribution: Distribution, value: Tensor) -> Tensor:
    density = distribution.log_prob(value)
    assert distribution.support is not None
    inside = distribution.support.check(value)
    return torch.where(inside, density.double(), -torch.inf)
