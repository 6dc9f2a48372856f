"""Cases: terms of which exactly one holds, whatever the discrete latents are.

Indexing by a discrete latent, ``where`` and ``stack`` give sums of selectors times values. A power or
a logarithm acts on each case by itself, because exactly one selector is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from vitools.conjugacy.term import (
    Atom,
    Constant,
    Factor,
    Gather,
    Term,
    Unsupported,
    contract_constants,
    fresh,
    is_selector,
)


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
    # Bring all terms to common labels: out dims by position, indicators by site and place.
    rank = len(terms[0].out)
    common = [fresh() for _ in range(rank)]
    places: list[Atom] = []
    sizes: dict[int, int] = {}
    parts: list[tuple[list[Constant], set[int]]] = []
    for term in terms:
        term = term.freshen()
        names = {label: common[i] for i, label in enumerate(term.out) if label is not None}
        term = term.rename(names)
        supports: set[int] = set()
        for atom in term.atoms():
            if atom.function != "indicator":
                continue
            support = atom.indices[-1]
            if isinstance(support, Gather) or support in term.out:
                return False
            place = Atom(atom.site, 0.0, atom.indices[:-1])
            for known in places:
                if place.same_place(Atom(known.site, 0.0, known.indices[:-1])):
                    target = known.indices[-1]
                    assert isinstance(target, int)
                    term = term.rename({support: target})
                    supports.add(target)
                    break
            else:
                places.append(atom)
                supports.add(support)
        constants = [c for c in term.constants() if c.selects]
        parts.append((constants, supports))
        for constant in constants:
            sizes.update(zip(constant.labels, constant.tensor.shape, strict=True))
    support_labels = {label for _, supports in parts for label in supports}
    kept = [label for label in sizes if label in support_labels or label in common]
    total = torch.zeros([sizes[label] for label in kept], dtype=torch.float64)
    for constants, _ in parts:
        present = {label for constant in constants for label in constant.labels}
        labels = [label for label in kept if label in present]
        value = contract_constants(constants, labels)
        view = [sizes[label] if label in present else 1 for label in kept]
        total = total + value.reshape(view)
    return bool((total == 1).all())


def power_of_case(term: Term, exponent: float) -> list[Term]:
    selectors, values = term.split()
    if term.coefficient < 0 and exponent != int(exponent):
        raise Unsupported(f"power {exponent:g} of a negative quantity")
    powers: list[Factor] = []
    for value in values:
        if isinstance(value, Constant):
            powers.append(Constant(value.tensor**exponent, value.labels))
        elif isinstance(value.function, str):
            raise Unsupported(f"power {exponent:g} of a logarithm")
        elif exponent != int(exponent) and value.function % 2 == 0:
            # (x²)^½ is |x|, not x.
            raise Unsupported(f"power {exponent:g} of {value.site}^{value.function:g}")
        else:
            powers.append(Atom(value.site, value.function * exponent, value.indices))
    return [Term(term.coefficient**exponent, (*selectors, *powers), term.out)]


def by_cases(
    terms: Sequence[Term], function: Callable[[Term], list[Term]], what: str
) -> list[Term]:
    """Apply a function to each case; refuse when the terms are not cases of one another."""
    if not cases_cover(terms):
        raise Unsupported(f"{what} of a sum")
    return [new for term in terms for new in function(without_inner_sums(term, what))]
