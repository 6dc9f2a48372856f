"""Inverse and log determinant of matrix expressions.

Closed forms exist for constants, for a scalar times a constant (τM), for diagonal matrices whose
diagonal is a monomial (diag(τ_i m_i)), and, for the log determinant, for a Wishart matrix.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from vitools.calculus.algebra.atoms import Atom, Constant, Unsupported
from vitools.calculus.algebra.cases import cases_cover
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.term import Factor, Term, is_selector


def inverse(matrix: Expression) -> Expression:
    """The matrix inverse over the last two dims."""
    if matrix.is_constant:
        return Expression.constant(torch.linalg.inv(matrix.value()))
    if matrix.shape[-1] == 1:
        return matrix.power(-1)
    return _by_cases(matrix, _invert, "inverse")


def log_determinant(matrix: Expression) -> Expression:
    """log |M| over the last two dims."""
    if matrix.is_constant:
        return Expression.constant(torch.linalg.slogdet(matrix.value()).logabsdet)
    if matrix.shape[-1] == 1:
        return matrix.squeeze(-1).squeeze(-1).log()
    return _by_cases(matrix, _log_determinant, "log determinant")


Rule = Callable[[Term, tuple[int, ...]], Expression]


def _by_cases(matrix: Expression, rule: Rule, what: str) -> Expression:
    if len(matrix.terms) != 1 and not cases_cover(matrix.terms):
        raise Unsupported(f"{what} of a sum of matrices")
    parts = [rule(term.freshen(), matrix.shape) for term in matrix.terms]
    return Expression([term for part in parts for term in part.terms], parts[0].shape)


def _parts(term: Term) -> tuple[list[Factor], list[Factor], list[Factor]]:
    """Factors with both matrix labels, with one of them, and with none."""
    i, j = term.out[-2:]
    counts = [(i in factor.labels) + (j in factor.labels) for factor in term.factors]
    groups: list[list[Factor]] = [[], [], []]
    for factor, count in zip(term.factors, counts, strict=True):
        groups[2 - count].append(factor)
    return groups[0], groups[1], groups[2]


def _aligned(constant: Constant, term: Term) -> Constant:
    """The constant with its matrix labels last."""
    i, j = term.out[-2:]
    assert i is not None
    assert j is not None
    rest = tuple(label for label in constant.labels if label not in (i, j))
    order = [constant.labels.index(label) for label in (*rest, i, j)]
    return Constant(constant.tensor.permute(order), (*rest, i, j), constant.selects)


def _diagonal_term(term: Term) -> Term | None:
    """The vector of diagonal elements, when all factors but a diagonal constant are vectors."""
    both, _, _ = _parts(term)
    if len(both) != 1 or not isinstance(both[0], Constant):
        return None
    constant = _aligned(both[0], term)
    diagonal = constant.tensor.diagonal(dim1=-2, dim2=-1)
    if not torch.equal(torch.diag_embed(diagonal), constant.tensor):
        return None
    i, j = term.out[-2:]
    assert i is not None
    assert j is not None
    vector = Constant(diagonal, constant.labels[:-1])
    factors = tuple(vector if f is both[0] else f for f in term.factors)
    return Term(term.coefficient, factors, term.out[:-1]).rename({j: i})


def _invert(term: Term, shape: tuple[int, ...]) -> Expression:
    batch, size = shape[:-2], shape[-1]
    both, single, scalars = _parts(term)
    if len(both) == 1 and isinstance(both[0], Constant) and not single:
        constant = _aligned(both[0], term)
        inverse_ = Constant(torch.linalg.inv(constant.tensor), constant.labels)
        scale = Expression([Term(term.coefficient, tuple(scalars), term.out[:-2])], batch)
        result = [
            Term(t.coefficient, (*t.factors, inverse_), (*t.out, *term.out[-2:]))
            for t in scale.power(-1).terms
        ]
        return Expression(result, (*batch, size, size))
    diagonal = _diagonal_term(term)
    if diagonal is None:
        raise Unsupported(
            "inverse of a random matrix (give the precision instead of the covariance)"
        )
    vector = Expression([diagonal], (*batch, size)).power(-1)
    eye = Expression.constant(torch.eye(size, dtype=torch.float64), selects=True)
    return vector.unsqueeze(-1) * eye


def _log_determinant(term: Term, shape: tuple[int, ...]) -> Expression:
    both, single, scalars = _parts(term)
    batch, size = shape[:-2], shape[-1]
    if len(both) == 1 and not single:
        scale = Expression([Term(term.coefficient, tuple(scalars), term.out[:-2])], batch)
        selectors = [f for f in scalars if is_selector(f)]
        matrix = both[0]
        if isinstance(matrix, Constant):
            constant = _aligned(matrix, term)
            log_abs = torch.linalg.slogdet(constant.tensor).logabsdet
            determinant: Factor = Constant(log_abs, constant.labels[:-2])
        elif matrix.function == 1.0 and set(matrix.indices[-2:]) == set(term.out[-2:]):
            determinant = Atom(matrix.site, "log_determinant", matrix.indices[:-2])
        else:
            raise Unsupported("log determinant of this matrix of latents")
        out = term.out[:-2]
        log_scale = scale.log() * float(size) if _has_value(scale) else None
        term_det = Term(1.0, (*selectors, determinant), out)
        return Expression([term_det, *(log_scale.terms if log_scale else [])], batch)
    diagonal = _diagonal_term(term)
    if diagonal is None:
        raise Unsupported("log determinant of this matrix of latents")
    return Expression([diagonal], (*batch, size)).log().sum(-1)


def _has_value(scale: Expression) -> bool:
    (term,) = scale.terms
    return term.coefficient != 1 or any(not is_selector(f) for f in term.factors)
