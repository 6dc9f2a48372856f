"""Terms: products of constants and statistics of the latents, with a label on every axis.

Labels that stand in a term's ``out`` are its output dims; all others are summed. This file holds the
algebra of single terms: renaming, multiplication and the merging of equal statistics; and sums multiplied out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import (
    Atom,
    Constant,
    Gather,
    Unsupported,
    fresh,
    same_index,
)
from vitools.calculus.algebra.functions import multiplied

Factor = Atom | Constant
Out = tuple[int | None, ...]

MOST_TERMS = 5000
"""Products that are written out as sums of so many terms at most: a recursion that multiplies latents
(x = a x² + b x) would not end."""


def is_selector(factor: Factor) -> bool:
    if isinstance(factor, Atom):
        return factor.function == "indicator"
    return factor.selects


@dataclass(frozen=True, eq=False)
class Term:
    coefficient: float
    factors: tuple[Factor, ...]
    out: Out

    def labels(self) -> set[int]:
        inside = {label for factor in self.factors for label in factor.labels}
        return inside | {label for label in self.out if label is not None}

    def rename(self, names: dict[int, int]) -> Term:
        out = tuple(None if label is None else names.get(label, label) for label in self.out)
        return Term(self.coefficient, tuple(f.rename(names) for f in self.factors), out)

    def freshen(self) -> Term:
        labels = self.labels()
        return self.rename({label: fresh() for label in labels}) if labels else self

    def atoms(self) -> list[Atom]:
        return [f for f in self.factors if isinstance(f, Atom)]

    def constants(self) -> list[Constant]:
        return [f for f in self.factors if isinstance(f, Constant)]

    def pad(self, rank: int) -> Term:
        missing = rank - len(self.out)
        return Term(self.coefficient, self.factors, (None,) * missing + self.out)

    def split(self) -> tuple[list[Factor], list[Factor]]:
        """Selectors and the factors that carry values."""
        selectors = [f for f in self.factors if is_selector(f)]
        return selectors, [f for f in self.factors if not is_selector(f)]


def _merge_indicators(term: Term) -> Term:
    """1[z=k]·1[z=j] = δ_kj·1[z=k]."""
    seen: list[Atom] = []
    for atom in term.atoms():
        if atom.function != "indicator":
            continue
        place = Atom(atom.site, 0.0, atom.indices[:-1])
        for other in seen:
            if not place.same_place(Atom(other.site, 0.0, other.indices[:-1])):
                continue
            factors = tuple(f for f in term.factors if f is not atom)
            mine, theirs = atom.indices[-1], other.indices[-1]
            if same_index(mine, theirs):
                return _merge_indicators(Term(term.coefficient, factors, term.out))
            if isinstance(mine, Gather) or isinstance(theirs, Gather):
                raise Unsupported("a one-hot latent read twice at different positions")
            if mine in term.out and theirs in term.out:
                continue
            old, new = (theirs, mine) if mine in term.out else (mine, theirs)
            return _merge_indicators(Term(term.coefficient, factors, term.out).rename({old: new}))
        seen.append(atom)
    return term


def _merge_powers(term: Term) -> Term:
    """Functions of one latent at the same place become one: x^p·x^q = x^(p+q), x·log x, …

    Their expectation is that of the product, not the product of their expectations.
    """
    groups: list[list[Atom]] = []
    rest: list[Factor] = []
    for factor in term.factors:
        if not isinstance(factor, Atom) or factor.function in (
            "indicator",
            "log_determinant",
            "log_sum_exp",
        ):
            rest.append(factor)
            continue
        for group in groups:
            if group[0].same_place(factor):
                group.append(factor)
                break
        else:
            groups.append([factor])
    if all(len(group) == 1 for group in groups):
        return term
    for group in groups:
        if len(group) > 1 and any(not isinstance(atom.function, float) for atom in group):
            function = multiplied([atom.function for atom in group])
            rest.append(Atom(group[0].site, function, group[0].indices))
            continue
        if len(group) == 1:
            rest.append(group[0])
            continue
        power = sum(atom.function for atom in group if isinstance(atom.function, float))
        if power:
            rest.append(Atom(group[0].site, power, group[0].indices))
        elif any(label not in term.out for label in group[0].labels):
            raise Unsupported("a latent divided by itself inside a sum")
    return drop_unused_out(Term(term.coefficient, tuple(rest), term.out))


def _merge_selecting_constants(term: Term) -> Term | None:
    """Multiply 0/1 constants over the same labels; None when no case can hold."""
    groups: dict[frozenset[int], Constant] = {}
    rest: list[Factor] = []
    for factor in term.factors:
        if not isinstance(factor, Constant) or not factor.selects:
            rest.append(factor)
            continue
        key = frozenset(factor.labels)
        if key not in groups:
            groups[key] = factor
            continue
        kept = groups[key]
        order = [factor.labels.index(label) for label in kept.labels]
        product = kept.tensor.double() * factor.tensor.double().permute(order)
        groups[key] = Constant(product, kept.labels, True)
    if any(not bool(c.tensor.any()) for c in groups.values()):
        return None
    return Term(term.coefficient, (*rest, *groups.values()), term.out)


def multiply_terms(a: Term, b: Term) -> Term:
    """The product of two terms whose out tuples have the same length, labels unified."""
    a, b = a.freshen(), b.freshen()
    names = {y: x for x, y in zip(a.out, b.out, strict=True) if x is not None and y is not None}
    b = b.rename(names)
    out = tuple(x if x is not None else y for x, y in zip(a.out, b.out, strict=True))
    return Term(a.coefficient * b.coefficient, a.factors + b.factors, out)


def simplify(term: Term) -> Term | None:
    if len(term.factors) < 2:
        return term
    term = _merge_powers(_merge_indicators(term))
    if any(len(set(c.labels)) < len(c.labels) for c in term.constants()):
        term = Term(term.coefficient, tuple(_diagonal(f) for f in term.factors), term.out)
    if sum(isinstance(f, Constant) and f.selects for f in term.factors) > 1:
        return _merge_selecting_constants(term)
    return term


def collected(terms: Sequence[Term]) -> list[Term]:
    """Like terms added up, where they are plain products of powers of scalars.

    A recursion over such makes the same products again and again: (a - x)(b + x) has x twice.
    """
    like: dict[object, int] = {}
    found: list[Term] = []
    for term in terms:
        key = _monomial(term)
        if key is None or key not in like:
            if key is not None:
                like[key] = len(found)
            found.append(term)
            continue
        first = found[like[key]]
        found[like[key]] = Term(first.coefficient + term.coefficient, first.factors, first.out)
    return [term for term in found if term.coefficient]


def multiplied_out(left: Sequence[Term], right: Sequence[Term]) -> list[Term]:
    """The terms of a product of two sums."""
    _check_size(len(left) * len(right))
    products = (simplify(multiply_terms(a, b)) for a in left for b in right)
    return collected([term for term in products if term is not None])


def squared(terms: Sequence[Term]) -> list[Term]:
    """The terms of Σ_i t_i² + 2 Σ_{i<j} t_i t_j."""
    _check_size(len(terms) ** 2 // 2)
    found = []
    for i, a in enumerate(terms):
        for j, b in enumerate(terms[i:], start=i):
            product = simplify(multiply_terms(a, b))
            if product is not None:
                weight = 1.0 if i == j else 2.0
                found.append(Term(product.coefficient * weight, product.factors, product.out))
    return collected(found)


def _check_size(terms: int) -> None:
    if terms > MOST_TERMS:
        raise Unsupported(f"a product of sums, {terms} terms if written out")


def _monomial(term: Term) -> object:
    """What two terms share that differ in their coefficients only; None for all but scalars."""
    if not term.factors or any(label is not None for label in term.out):
        return None
    powers = []
    for factor in term.factors:
        if not isinstance(factor, Atom) or not isinstance(factor.function, float):
            return None
        if factor.indices:
            return None
        powers.append((factor.site, factor.function))
    return len(term.out), tuple(sorted(powers))


def _diagonal(factor: Factor) -> Factor:
    """A constant read at equal positions along two axes keeps one of them."""
    if isinstance(factor, Atom):
        return factor
    labels = tuple(dict.fromkeys(factor.labels))
    ids = [labels.index(label) for label in factor.labels]
    return Constant(
        torch.einsum(factor.tensor, ids, list(range(len(labels)))), labels, factor.selects
    )


def contract_constants(constants: Sequence[Constant], labels: Sequence[int]) -> Tensor:
    """Contract constants to the given labels (in that order)."""
    number: dict[int, int] = {}
    arguments: list[object] = []
    for constant in constants:
        ids = [number.setdefault(label, len(number)) for label in constant.labels]
        arguments += [constant.tensor.double(), ids]
    if not arguments:
        return torch.ones((), dtype=torch.float64)
    return torch.einsum(*arguments, [number[label] for label in labels])


def constant_value(terms: Sequence[Term], shape: Sequence[int]) -> Tensor:
    """The tensor that a sum of terms without latents is."""
    total = torch.zeros(tuple(shape), dtype=torch.float64)
    for term in terms:
        labels = [label for label in term.out if label is not None]
        part = contract_constants(term.constants(), labels) * term.coefficient
        view = [1 if label is None else n for label, n in zip(term.out, shape, strict=True)]
        total = total + part.reshape(view)
    return total


def drop_unused_out(term: Term) -> Term:
    used = {label for factor in term.factors for label in factor.labels}
    return Term(term.coefficient, term.factors, tuple(o if o in used else None for o in term.out))
