"""Cases: terms of which exactly one holds, whatever the discrete latents are.

Indexing by a discrete latent, ``where`` and ``stack`` give sums of selectors times values. A power or
a logarithm acts on each case by itself, because exactly one selector is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from vitools.conjugacy.term import (
    LOG_ZERO,
    Atom,
    Constant,
    Factor,
    Gather,
    Term,
    Unsupported,
    contract_constants,
    drop_unused_out,
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


def log_of_monomial(term: Term) -> list[Term]:
    selectors, values = term.split()
    if term.coefficient <= 0:
        raise Unsupported("logarithm of a negative quantity")
    logs: list[Term] = []
    if term.coefficient != 1:
        logs.append(Term(math.log(term.coefficient), tuple(selectors), term.out))
    for value in values:
        if isinstance(value, Constant):
            log: Factor = Constant(value.tensor.log().clamp(min=LOG_ZERO), value.labels)
            logs.append(Term(1.0, (*selectors, log), term.out))
        elif isinstance(value.function, str):
            raise Unsupported("logarithm of a logarithm")
        else:
            atom = Atom(value.site, "log", value.indices)
            logs.append(Term(value.function, (*selectors, atom), term.out))
    return [drop_unused_out(log_term) for log_term in logs]


def case_signature(term: Term) -> tuple[object, ...]:
    """What tells one term's selectors from another's, whatever their labels; () without any."""
    roles: dict[int, object] = {
        label: ("out", i) for i, label in enumerate(term.out) if label is not None
    }
    for atom in term.atoms():
        if atom.function == "indicator" and isinstance(atom.indices[-1], int):
            roles.setdefault(atom.indices[-1], ("support", atom.site))
    parts: list[object] = []
    for factor in term.split()[0]:
        places = tuple(roles.get(label, ("inner", label)) for label in factor.labels)
        if isinstance(factor, Atom):
            parts.append((factor.site, str(places)))
        else:
            parts.append((str(factor.tensor.double().tolist()), str(places)))
    return tuple(sorted(parts, key=str))


def log_of_case(case: Term, terms: Sequence[Term]) -> list[Term]:
    number = 0.0
    others: list[Term] = []
    for term in terms:
        if term.split()[1]:
            others.append(term)
        else:
            number += term.coefficient
    if not others and number > 0:
        return [Term(math.log(number), case.factors, case.out)]
    if len(others) == 1 and number == 0:
        return log_of_monomial(without_inner_sums(others[0], "logarithm"))
    if len(others) == 1 and number == 1 and others[0].coefficient == -1:
        selectors, values = others[0].split()
        if len(values) == 1 and isinstance(values[0], Atom) and values[0].function == 1.0:
            atom = Atom(values[0].site, "log1m", values[0].indices)
            return [Term(1.0, (*selectors, atom), others[0].out)]
    raise Unsupported("logarithm of a sum")
