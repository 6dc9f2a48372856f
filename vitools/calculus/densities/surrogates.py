"""The terms by which a curved function of a predictor speaks to the latents below it.

λ₁ η + λ₂ η² for each predictor η, with λ₁ and λ₂ the statistics ``slope`` and ``curvature`` of it
(:mod:`vitools.calculus.blocks.predictor`): in the terms they stand like any statistic, so whatever
serves conjugate terms (rows, folding, blocks, contraction) serves them.
"""

from __future__ import annotations

from collections.abc import Iterable

from vitools.calculus.algebra.atoms import Atom, Predictor, fresh
from vitools.calculus.algebra.term import Term

SLOPE, CURVATURE = "slope", "curvature"
SURROGATES = (SLOPE, CURVATURE)


def predictors(atoms: Iterable[Atom]) -> dict[Predictor, tuple[int, ...]]:
    """The predictors among the sites of atoms with plain labels, and the labels of their axes."""
    found: dict[Predictor, tuple[int, ...]] = {}
    for atom in atoms:
        if isinstance(atom.site, Predictor):
            labels = atom.labels[: len(atom.indices)]
            last = (fresh(),) if atom.site.is_vector else ()
            found.setdefault(atom.site, (*labels, *last))
    return found


def predictor_shape(atom: Atom) -> tuple[int, ...]:
    """The shape of a statistic of a predictor."""
    assert isinstance(atom.site, Predictor)
    shape = tuple(atom.site.expression.shape)
    if atom.function == "log_sum_exp":
        return shape[:-1]
    return (*shape, shape[-1]) if atom.site.is_vector and atom.function == CURVATURE else shape


def surrogate_terms(name: Predictor, labels: tuple[int, ...]) -> list[Term]:
    """slope · η and curvature · η², summed over all axes of η; curvature · η ηᵀ of a vector."""
    eta, square = name.expression, name.expression.square
    pairs = (*labels, fresh()) if name.is_vector else labels
    quadratic = eta.unsqueeze(-1) * eta.unsqueeze(-2) if name.is_vector else square()
    made = []
    for function, expression, own in ((SLOPE, eta, labels), (CURVATURE, quadratic, pairs)):
        for term in expression.terms:
            term = term.freshen()
            names = {x: label for x, label in zip(term.out, own, strict=True) if x is not None}
            factors = (*term.rename(names).factors, Atom(name, function, own))
            made.append(Term(term.coefficient, factors, ()))
    return made
