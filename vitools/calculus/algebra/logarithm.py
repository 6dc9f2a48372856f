"""The logarithm of a sum of terms, where it has one: monomials, one minus a latent, cases of them.

Exactly one case of a sum holds, so log Σ_k 1[z=k] f_k = Σ_k 1[z=k] log f_k. Of other sums of positive
products the logarithm is a statistic of its own (:mod:`vitools.calculus.blocks.allocation`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from vitools.calculus.algebra.atoms import LOG_ZERO, Atom, Constant, Predictor, Unsupported, is_open
from vitools.calculus.algebra.cases import as_table, by_cases, cases_cover, without_inner_sums
from vitools.calculus.algebra.elementwise import changed
from vitools.calculus.algebra.functions import composed
from vitools.calculus.algebra.term import (
    Factor,
    Term,
    constant_value,
    drop_unused_out,
    is_selector,
    multiply_terms,
)

LOG_SUM = "log_sum"
"""The statistic that the logarithm of a sum is."""


def log_terms(terms: Sequence[Term], shape: Sequence[int]) -> list[Term]:
    """log Σ terms, whose constant terms are added up already."""
    complement = _log_complement(terms, shape)
    if complement is not None:
        return complement
    table = as_table(terms) if len(terms) > 1 else None
    if table is not None:
        return log_of_monomial(table)
    try:
        return by_cases(terms, log_of_monomial, "logarithm")
    except Unsupported:
        table = as_table(terms)
        if table is not None:
            return log_of_monomial(table)
        if any(is_selector(f) for term in terms for f in term.factors):
            return _log_by_groups(terms)
        return changed(terms, partial(composed, "log"), "logarithm")


def is_sum_of_monomials(terms: Sequence[Term]) -> bool:
    """Whether every term is a positive number times powers of latents, one at a place at most."""
    return any(term.atoms() for term in terms) and all(
        term.coefficient > 0
        and all(isinstance(atom.function, float) for atom in term.atoms())
        and len({atom.site for atom in term.atoms()}) == len(term.atoms())
        and not any(isinstance(atom.site, Predictor) for atom in term.atoms())
        and not any(bool((constant.tensor < 0).any()) for constant in term.constants())
        for term in terms
    )


def _log_complement(terms: Sequence[Term], shape: Sequence[int]) -> list[Term] | None:
    """log(1 - Σ_k s_k x_k) = Σ_k s_k log(1 - x_k) for exclusive selectors s_k; else None."""
    constant = [term for term in terms if not term.atoms()]
    rest = [term for term in terms if term.atoms()]
    if not constant:
        return None
    known = constant_value(constant, shape)
    if is_open(known) or not bool((known == 1).all()):
        return None
    if any(term.coefficient != -1 or len(term.split()[1]) != 1 for term in rest):
        return None
    result = []
    for term in rest:
        selectors, (value,) = term.split()
        if not isinstance(value, Atom) or value.function != 1.0:
            return None
        new = Atom(value.site, "log1m", value.indices)
        result.append(Term(1.0, (*selectors, new), term.out))
    if len(rest) > 1 and not cases_cover(rest):
        return None
    return result


def _log_by_groups(terms: Sequence[Term]) -> list[Term]:
    """The logarithm where several terms share a case: log Σ_i s_i (c_i + x_i), s_i exclusive.

    Terms without selectors belong to every case. Each case must then be a number, a monomial,
    or one minus a latent.
    """
    plain: list[Term] = []
    groups: dict[object, list[Term]] = {}
    for term in terms:
        signature = case_signature(term)
        (groups.setdefault(signature, []) if signature else plain).append(term)
    cases = [drop_unused_out(Term(1.0, tuple(g[0].split()[0]), g[0].out)) for g in groups.values()]
    if not cases_cover(cases):
        raise Unsupported("logarithm of a sum")
    result: list[Term] = []
    for case, group in zip(cases, groups.values(), strict=True):
        result += log_of_case(case, [*group, *(multiply_terms(p, case) for p in plain)])
    return result


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
        elif isinstance(value.function, float):
            atom = Atom(value.site, "log", value.indices)
            logs.append(Term(value.function, (*selectors, atom), term.out))
        else:
            atom = Atom(value.site, composed("log", value.function), value.indices)
            logs.append(Term(1.0, (*selectors, atom), term.out))
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
