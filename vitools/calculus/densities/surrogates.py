"""The terms by which a curved function of a predictor speaks to the latents below it.

λ₁ η + λ₂ η² for each predictor η, with λ₁ and λ₂ the statistics ``slope`` and ``curvature`` of it
(:mod:`vitools.calculus.blocks.predictor`): in the terms they stand like any statistic, so whatever
serves conjugate terms (rows, folding, blocks, contraction) serves them.
"""

from __future__ import annotations

from collections.abc import Iterable

from vitools.calculus.algebra.atoms import Atom, Predictor, fresh
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.term import Factor, Term
from vitools.calculus.tracing.trace import ModelTrace

SLOPE, CURVATURE = "slope", "curvature"
GEOMETRIC, SHARE = "geometric", "share"
SURROGATES = (SLOPE, CURVATURE, GEOMETRIC, SHARE)
"""Statistics that the bound leaves out."""


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
    """The shape of a statistic of a predictor, or of a latent's geometric mean."""
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


def allocation_terms(name: Predictor, labels: tuple[int, ...], trace: ModelTrace) -> list[Term]:
    """What stands for log Σ a, a sum of products (:mod:`vitools.calculus.blocks.allocation`).

    share · a, with every power of a latent by its geometric mean g, and slope · log g for each g.
    """
    made: list[Term] = []
    means: dict[tuple[str, float], Predictor] = {}
    for term in name.expression.terms:
        term = term.freshen()
        names = {x: label for x, label in zip(term.out, labels, strict=True) if x is not None}
        factors: list[Factor] = [Atom(name, SHARE, labels)]
        for factor in term.rename(names).factors:
            if isinstance(factor, Atom):
                assert isinstance(factor.function, float)
                key = factor.site, factor.function
                if key not in means:
                    shape = trace.sites[factor.site].shape
                    log = Expression.latent(factor.site, shape, "log") * factor.function
                    means[key] = Predictor.of(log, is_factor=True)
                factor = Atom(means[key], GEOMETRIC, factor.indices)
            factors.append(factor)
        made.append(Term(term.coefficient, tuple(factors), ()))
    for (site, power), mean in means.items():
        own = tuple(fresh() for _ in trace.sites[site].shape)
        made.append(Term(power, (Atom(mean, SLOPE, own), Atom(site, "log", own)), ()))
    return made
