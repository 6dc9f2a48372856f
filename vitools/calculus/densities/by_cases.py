"""Numbers of a normal factor of which terms hold curved functions, as predictors of their own.

A scalar μ of a normal prior takes its optimal factor, an integral over a line, as long as it has it to itself
and its functions are few. Where a function stands for every row and case, log(1 + (y_n - μ)² / w_k²), and where μ
shares a normal factor with other numbers (:func:`~vitools.calculus.blocks.plan.shared_normals`), the
function is that of a predictor, η = μ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vitools.calculus.algebra.atoms import Atom, Function, Gather, Predictor, same_index
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.term import Term
from vitools.calculus.tracing.trace import ModelTrace

POLYNOMIAL = (1.0, 2.0)
"""Powers of which a normal factor has the expectation itself."""


def numbers_as_predictors(terms: Sequence[Term], trace: ModelTrace) -> list[Term]:
    """The terms with all functions of such scalars as functions of predictors."""
    chosen = trace.normal | {
        atom.site for term in terms for atom in term.atoms() if _differs_beside(atom, term, trace)
    }
    if not chosen:
        return list(terms)
    known: list[tuple[Atom, Predictor]] = []

    def of_predictor(atom: Atom) -> Atom:
        if atom.site not in chosen or atom.function in POLYNOMIAL:
            return atom
        labels = Atom(atom.site, 1.0, atom.indices).labels
        place = Atom(atom.site, 1.0, atom.indices).rename({x: i for i, x in enumerate(labels)})
        found = next((name for other, name in known if _same(place, other)), None)
        if found is None:
            found = _predictor(place, len(labels), trace)
            known.append((place, found))
        return Atom(found, atom.function, labels)

    return [
        replace(
            term, factors=tuple(of_predictor(f) if isinstance(f, Atom) else f for f in term.factors)
        )
        for term in terms
    ]


def _differs_beside(atom: Atom, term: Term, trace: ModelTrace) -> bool:
    """Whether data make the function another one in each case, or row, of a latent that it stands beside."""
    if isinstance(atom.site, Predictor) or not isinstance(atom.function, Function):
        return False
    site = trace.sites[atom.site]
    if site.base_event_dim or site.family is None or not site.family.is_gaussian:
        return False
    own = {index for index in atom.indices if not isinstance(index, Gather)}
    beside = {x for other in term.atoms() if other is not atom for x in other.labels}
    return bool((set(atom.data_labels) - own) & beside)


def _same(a: Atom, b: Atom) -> bool:
    pairs = zip(a.indices, b.indices, strict=True)
    return a.site == b.site and all(same_index(x, y) for x, y in pairs)


def _predictor(place: Atom, rank: int, trace: ModelTrace) -> Predictor:
    """The element of the latent, its axes in the order of their labels."""
    sizes: dict[int, int] = {}
    for index, size in zip(place.indices, trace.sites[place.site].shape, strict=True):
        if isinstance(index, Gather):
            sizes.update(zip(index.labels, index.index.shape, strict=True))
        else:
            sizes[index] = size
    out = tuple(range(rank))
    term = Term(1.0, (place,), out).freshen()
    return Expression([term], [sizes[x] for x in out]).predictor
