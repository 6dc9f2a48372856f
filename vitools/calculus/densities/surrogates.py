"""The terms by which a curved function of a predictor speaks to the latents below it.

λ₁ η + λ₂ η² for each predictor η, with λ₁ and λ₂ the statistics ``slope`` and ``curvature`` of it
(:mod:`vitools.calculus.blocks.predictor`): in the terms they stand like any statistic, so whatever
serves conjugate terms (rows, folding, blocks, contraction) serves them.
"""

from __future__ import annotations

from collections.abc import Iterable

from vitools.calculus.algebra.atoms import Atom, Predictor
from vitools.calculus.algebra.term import Term


def predictors(atoms: Iterable[Atom]) -> dict[Predictor, tuple[int, ...]]:
    """The predictors among the sites of atoms with plain labels, and the labels of their axes."""
    found: dict[Predictor, tuple[int, ...]] = {}
    for atom in atoms:
        if isinstance(atom.site, Predictor):
            found.setdefault(atom.site, atom.labels[: len(atom.indices)])
    return found


def surrogate_terms(name: Predictor, labels: tuple[int, ...]) -> list[Term]:
    """slope · η and curvature · η², summed over all axes of η."""
    made = []
    for function, expression in (
        ("slope", name.expression),
        ("curvature", name.expression.square()),
    ):
        own = Atom(name, function, labels)
        for term in expression.terms:
            term = term.freshen()
            names = {x: label for x, label in zip(term.out, labels, strict=True) if x is not None}
            made.append(Term(term.coefficient, (*term.rename(names).factors, own), ()))
    return made
