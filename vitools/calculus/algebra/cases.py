"""Cases: terms of which exactly one holds, whatever the discrete latents are.

Indexing by a discrete latent, ``where`` and ``stack`` give sums of selectors times values. A power or
a logarithm acts on each case by itself, because exactly one selector is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from vitools.calculus.algebra.atoms import BEYOND, Atom, Constant, Gather, Unsupported, fresh
from vitools.calculus.algebra.functions import to_power
from vitools.calculus.algebra.term import Factor, Out, Term, contract_constants, is_selector

NEARLY = 1e-4
"""Part of its terms that a sum comes to, from which squares of the terms lose half of float64's digits."""


def without_inner_sums(term: Term, what: str) -> Term:
    """A case must not contain a sum of its own: its values may vary only with out and selectors."""
    selectors, values = term.split()
    allowed = {label for label in term.out if label is not None}
    allowed |= {label for selector in selectors for label in selector.labels}
    if any(label not in allowed for value in values for label in value.labels):
        raise Unsupported(f"{what} of a sum")
    return term


def cases_cover(terms: Sequence[Term]) -> bool:
    """True when exactly one term's selectors hold, whatever the discrete latents are."""
    plain = [not any(is_selector(f) for f in term.factors) for term in terms]
    if len(terms) == 1 and plain[0]:
        return True
    if any(plain):
        return False
    aligned = on_common_labels(terms)
    if aligned is None:
        return False
    selectors = [
        Term(1.0, tuple(f for f in term.factors if is_selector(f)), term.out)
        for term in aligned.terms
    ]
    return bool((aligned.total(selectors)[0].tensor == 1).all())


def as_table(terms: Sequence[Term]) -> Term | None:
    """A sum in which no latents but discrete ones stand, as indicators times one table; else None.

    Σ_k 1[z=k] = 1, so a term that does not depend on z holds in each of its cases.
    """
    atoms = [atom for term in terms for atom in term.atoms()]
    if not atoms or any(atom.function != "indicator" for atom in atoms):
        return None
    aligned = on_common_labels(terms)
    if aligned is None:
        return None
    # Σ_n 1[z_n = k] f_k is no case of z: an element may be read at out dims alone
    if any(not set(place_labels(place)) <= set(aligned.common) for place in aligned.places):
        return None
    table, out = aligned.total(aligned.terms)
    read = tuple(place for place in aligned.places if place.indices[-1] in table.labels)
    return Term(1.0, (*read, table), out)


def is_table(term: Term) -> bool:
    """Whether the term is a number for each case of discrete latents."""
    return bool(term.atoms()) and all(map(is_selector, term.atoms()))


def cancelling_table(terms: Sequence[Term], plain: Sequence[Term]) -> Term | None:
    """The terms without other latents than discrete ones as one table, where they cancel in it.

    Data y at a distance m from numbers c_k, to which they come as near as s in one of the cases, have
    squares y² - 2 y Σ_k 1[z=k] c_k + … of which no more than ε (m/s)² is left; those of the table
    y - c_k lose nothing, but are as many as data times cases.
    """
    by_cases = [term for term in terms if is_table(term)]
    if not by_cases:
        return None
    table = as_table([*plain, *by_cases])
    if table is None:
        return None
    (constant,) = table.constants()
    read = [i for i, x in enumerate(constant.labels) if x not in table.out]
    if not read or not constant.tensor.numel():
        return None
    sizes = constant.tensor.abs()
    nearest = sizes.amin(read) if read else sizes
    largest = max(
        abs(t.coefficient) * math.prod(float(c.tensor.abs().max()) for c in t.constants())
        for t in plain
    )
    return table if float(nearest.median()) < NEARLY * largest else None


def place_labels(indicator: Atom) -> tuple[int, ...]:
    """The labels of the element that an indicator is of."""
    return Atom(indicator.site, 0.0, indicator.indices[:-1]).labels


@dataclass
class Aligned:
    """Terms whose out dims and whose indicators of the same latent carry the same labels."""

    terms: list[Term]
    common: list[int]  # labels of the out dims
    places: list[Atom]  # one indicator for each latent and place

    @property
    def supports(self) -> list[int]:
        return [x for place in self.places if isinstance(x := place.indices[-1], int)]

    def total(self, terms: Sequence[Term]) -> tuple[Constant, Out]:
        """The sum of the terms' coefficients and constants, along the labels that they vary along."""
        sizes: dict[int, int] = {}
        for term in terms:
            for constant in term.constants():
                sizes.update(zip(constant.labels, constant.tensor.shape, strict=True))
        kept = tuple(x for x in sizes if x in self.supports or x in self.common)
        total = torch.zeros([sizes[x] for x in kept], dtype=torch.float64)
        for term in terms:
            constants = term.constants()
            present = {label for constant in constants for label in constant.labels}
            value = contract_constants(constants, [x for x in kept if x in present])
            view = [sizes[x] if x in present else 1 for x in kept]
            total = total + value.reshape(view) * term.coefficient
        inside = {*kept, *(x for place in self.places for x in place.labels)}
        return Constant(total, kept), tuple(x if x in inside else None for x in self.common)


def on_common_labels(terms: Sequence[Term]) -> Aligned | None:
    """Out dims matched by position, indicators by site and place; None where a support is read."""
    common = [fresh() for _ in terms[0].out]
    places: list[Atom] = []
    renamed: list[Term] = []
    for term in terms:
        term = term.freshen()
        term = term.rename({x: common[i] for i, x in enumerate(term.out) if x is not None})
        for atom in term.atoms():
            if atom.function != "indicator":
                continue
            support = atom.indices[-1]
            if isinstance(support, Gather) or support in term.out:
                return None
            place = Atom(atom.site, 0.0, atom.indices[:-1])
            for known in places:
                if place.same_place(Atom(known.site, 0.0, known.indices[:-1])):
                    target = known.indices[-1]
                    assert isinstance(target, int)
                    term = term.rename({support: target})
                    break
            else:
                places.append(atom)
        renamed.append(term)
    return Aligned(renamed, common, places)


def mapped(table: Term, function: Callable[[torch.Tensor], torch.Tensor]) -> Term:
    """A function of what stands in a table of cases (:func:`as_table`)."""
    (values,) = table.constants()
    moved = Constant(finite(function(values.tensor)), values.labels)
    return Term(1.0, (*table.atoms(), moved), table.out)


def finite(table: torch.Tensor) -> torch.Tensor:
    """Infinities as finite stand-ins: a case without probability takes nothing of them."""
    if not table.is_floating_point():
        return table
    return table.nan_to_num(nan=torch.nan, posinf=BEYOND, neginf=-BEYOND)


def power_of_case(term: Term, exponent: float) -> list[Term]:
    selectors, values = term.split()
    if term.coefficient < 0 and exponent != int(exponent):
        raise Unsupported(f"power {exponent:g} of a negative quantity")
    powers: list[Factor] = []
    for value in values:
        if isinstance(value, Constant):
            powers.append(Constant(value.tensor**exponent, value.labels))
        else:
            powers.append(Atom(value.site, to_power(value.function, exponent), value.indices))
    return [Term(term.coefficient**exponent, (*selectors, *powers), term.out)]


def by_cases(
    terms: Sequence[Term], function: Callable[[Term], list[Term]], what: str
) -> list[Term]:
    """Apply a function to each case; refuse when the terms are not cases of one another."""
    if not cases_cover(terms):
        raise Unsupported(f"{what} of a sum")
    return [new for term in terms for new in function(without_inner_sums(term, what))]
