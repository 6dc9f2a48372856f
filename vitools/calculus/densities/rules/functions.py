"""What factor rules share: constants where the formula needs them, special functions, simplexes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Atom, Constant, Unsupported
from vitools.calculus.algebra.cases import as_table, mapped, place_labels
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.products import Product, adds_to_one
from vitools.calculus.algebra.term import Term


def constant(expression: Expression, what: str) -> Tensor:
    """The value of a parameter that must not depend on latents."""
    if not expression.is_constant:
        sites = ", ".join(sorted(expression.sites()))
        article = "an" if what[0] in "aeiou" else "a"
        raise Unsupported(f"{article} {what} that depends on a latent ({sites})")
    return expression.value()


def known(expression: Expression, what: str) -> Expression:
    """A parameter that must not depend on latents other than discrete ones, whose cases are numbers."""
    if not expression.is_constant and as_table(expression.terms) is not None:
        return expression
    return Expression.constant(constant(expression, what))


def log_gamma(value: Tensor | Expression) -> Expression:
    """log Γ of data, of a table of cases, or of one scalar latent."""
    return Expression.constant(value).elementwise("lgamma")


def log_gamma_ratio(n: Expression, k: Tensor | float) -> Expression:
    """log Γ(n + k) - log Γ(n), which cancels where n is large; of a table by Stirling's formula.

    (n - ½) log(1 + k/n) + k log(n + k) - k + δ(n + k) - δ(n), δ the formula's error.
    """
    added = Expression.constant(k)
    total = (n + added).folded()
    if n.is_constant or isinstance(n, Product) or as_table(n.terms) is None:
        return log_gamma(total) - log_gamma(n)
    error = total.elementwise("stirling_error") - n.elementwise("stirling_error")
    grown = (added * n.power(-1.0)).elementwise("log1p")
    return (n - 0.5).folded() * grown + added * total.log() - added + error


def log_probabilities(
    probs: Expression | None, logits: Expression | None, simplex_sites: frozenset[str]
) -> Expression:
    """log p over the last dim, of probabilities that sum to one (constants are normalised)."""
    if probs is None:
        assert logits is not None
        if logits.is_constant:
            return Expression.constant(torch.log_softmax(logits.value(), -1))
        if not isinstance(logits, Product) and (known := as_table(logits.folded().terms)):
            return _normalised_logits(known, logits.shape)
        if logits.is_affine:
            return logits - logits.log_sum_exp().unsqueeze(-1)
        if adds_to_one(logits, simplex_sites):
            return logits
        raise Unsupported("logits that are no predictor of Gaussian latents")
    if probs.is_constant:
        value = probs.value()
        return Expression.constant(value / value.sum(-1, keepdim=True)).log()
    table = None if isinstance(probs, Product) else as_table(probs.terms)
    if table is not None:
        return Expression([_normalised(table)], probs.shape).log()
    if isinstance(probs, Product):
        certified = probs.origin == "softmax" or adds_to_one(probs.log(), simplex_sites)
    else:
        certified = sums_to_one(probs, simplex_sites)
    if not certified:
        raise Unsupported("probabilities that are not known to sum to one")
    return probs.log()


def _normalised(term: Term) -> Term:
    """Indicators times a table of constants, made to sum to one over the last dim."""
    (table,) = term.constants()
    values, last = table.tensor, term.out[-1]
    if last is None or _of_different_latents(term):
        raise Unsupported("probabilities that are not known to sum to one")
    values = values / values.sum(table.labels.index(last), keepdim=True)
    normalised = Constant(values, table.labels, table.selects, table.words)
    return Term(term.coefficient, (*term.atoms(), normalised), term.out)


def _of_different_latents(term: Term) -> bool:
    """Whether what stands along the last dim belongs to cases of different elements of a latent."""
    return any(term.out[-1] in place_labels(atom) for atom in term.atoms())


def _normalised_logits(term: Term, shape: Sequence[int]) -> Expression:
    """log softmax over the last dim of indicators times a table of constants."""
    (table,) = term.constants()
    last = term.out[-1]
    if _of_different_latents(term):
        raise Unsupported("logits each of which another latent selects")
    if last is None:  # all alike
        return Expression.constant(-math.log(shape[-1])).expand(shape)
    axis = table.labels.index(last)
    return Expression([mapped(term, lambda t: torch.log_softmax(t, axis))], shape)


def sums_to_one(probs: Expression, simplex_sites: frozenset[str]) -> bool:
    """Certify Σ_v probs[…, v] = 1 from what is known: Dirichlet draws and indicators sum to one."""
    total = probs.sum(-1)
    terms = [_total(term, simplex_sites) for term in total.terms]
    certified = _merge_linear(Expression(terms, total.shape))
    if certified.sites():
        return False
    return bool(((certified.value() - 1).abs() < 1e-9).all())


def _total(term: Term, simplex_sites: frozenset[str]) -> Term:
    """Drop factors whose last label is theirs alone and over which they sum to one."""
    changed = True
    while changed:
        changed = False
        for atom in term.atoms():
            simplex = atom.site in simplex_sites and atom.function == 1.0
            last = atom.indices[-1] if atom.indices else None
            if not (simplex or atom.function == "indicator") or not isinstance(last, int):
                continue
            elsewhere = [f for f in term.factors if f is not atom]
            if last in term.out or any(last in f.labels for f in elsewhere):
                continue
            used = {label for f in elsewhere for label in f.labels}
            out = tuple(o if o in used else None for o in term.out)
            if any(label not in used | set(term.out) and label != last for label in atom.labels):
                continue
            term, changed = Term(term.coefficient, tuple(elsewhere), out), True
            break
        for position, factor in enumerate(term.factors):
            if isinstance(factor, Atom):
                continue
            private = [
                label
                for label in factor.labels
                if label not in term.out
                and not any(label in f.labels for f in term.factors if f is not factor)
            ]
            if private:
                dims = [factor.labels.index(label) for label in private]
                kept = tuple(label for label in factor.labels if label not in private)
                summed = type(factor)(factor.tensor.double().sum(dims), kept, factor.selects)
                factors = (*term.factors[:position], summed, *term.factors[position + 1 :])
                term, changed = Term(term.coefficient, factors, term.out), True
                break
            if factor.selects and bool((factor.tensor == 1).all()):
                rest = (*term.factors[:position], *term.factors[position + 1 :])
                used = {label for f in rest for label in f.labels}
                out = tuple(o if o in used else None for o in term.out)
                if all(label in used or label in term.out for label in factor.labels):
                    term, changed = Term(term.coefficient, rest, out), True
                    break
    return term


def _merge_linear(expression: Expression) -> Expression:
    """Cancel terms that are equal up to sign (1 - p + p)."""
    kept: list[Term] = []
    for term in expression.terms:
        for i, other in enumerate(kept):
            a, b = term.atoms(), other.atoms()
            if not a or len(a) != 1 or len(b) != 1 or term.constants() or other.constants():
                continue
            names = {
                y: x
                for x, y in zip(other.out, term.out, strict=True)
                if x is not None and y is not None
            }
            renamed = a[0].rename(names)
            if renamed.same_place(b[0]) and renamed.function == b[0].function:
                coefficient = term.coefficient + other.coefficient
                kept[i] = Term(coefficient, other.factors, other.out)
                break
        else:
            kept.append(term)
    return Expression([t for t in kept if t.coefficient], expression.shape)
