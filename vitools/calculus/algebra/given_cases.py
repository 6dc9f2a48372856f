"""Functions of what becomes one place, or a predictor, once discrete latents are known.

    f(Σ_k 1[z = k] c_k + η) = Σ_k 1[z = k] f(c_k + η)

Σ_k 1[z = k] = 1, so a term in which z does not stand holds in each of its cases. A function of a predictor
η whose cases differ by data alone keeps one η for all of them, the data inside the function; where the
coefficients of its latents differ too, by more than one factor, every case has a predictor of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from vitools.calculus.algebra.atoms import Atom, Constant, Function, Gather, Predictor
from vitools.calculus.algebra.cases import finite, on_common_labels, place_labels
from vitools.calculus.algebra.elementwise import Change, one_place, shortest
from vitools.calculus.algebra.functions import as_function, combined
from vitools.calculus.algebra.term import Term, contract_constants, drop_unused_out

MakePredictor = Callable[[Sequence[Term], Sequence[int]], Predictor]


def given_cases(
    terms: Sequence[Term], shape: Sequence[int], change: Change, predictor: MakePredictor
) -> Term | None:
    """change(Σ terms) where discrete latents stand in it; None where it is no such function.

    Args:
        predictor: a sum of terms without discrete latents as a quantity of its own.
    """
    aligned = on_common_labels(terms)
    if aligned is None or not aligned.places:
        return None
    common, supports = aligned.common, aligned.supports
    if any(not set(place_labels(place)) <= set(common) for place in aligned.places):
        return None
    labels = [*common, *supports]
    sizes = dict(zip(common, shape, strict=True))
    for constant in (c for term in aligned.terms for c in term.constants()):
        sizes.update(zip(constant.labels, constant.tensor.shape, strict=True))
    sizes |= {x: p.cases for x, p in zip(supports, aligned.places, strict=True) if p.cases}
    bare = _cancelled([_without_cases(term, labels) for term in aligned.terms])
    if not any(term.atoms() for term in bare):
        data = [(t.coefficient, _data(t, labels), None) for t in bare]
        inside = combined(data)
        changed = as_function(change(shortest(inside)))
        values = _laid_out(changed.data, labels, sizes)
        table = finite(changed.evaluate(torch.zeros((), dtype=torch.float64), *values))
        kept = [i for i, n in enumerate(table.shape) if n > 1]
        what: Atom | Constant = Constant(table.squeeze(), tuple(labels[i] for i in kept))
    else:
        found = one_place(bare, labels)
        if found is None:
            made = _of_predictor(bare, common, supports, sizes, predictor)
            if made is None:
                return None
            atom, function = made
        else:
            atom, function = found.atom, found.function
        what = Atom(atom.site, change(shortest(function)), atom.indices)
    places = [place for place in aligned.places if place.indices[-1] in what.labels]
    return drop_unused_out(Term(1.0, (*places, what), tuple(common)))


def _without_cases(term: Term, labels: Sequence[int]) -> Term:
    """Less its indicators, whose labels become dims of the result."""
    rest = [f for f in term.factors if isinstance(f, Constant) or f.function != "indicator"]
    plain = tuple(Constant(f.tensor, f.labels) if isinstance(f, Constant) else f for f in rest)
    used = {x for factor in plain for x in factor.labels}
    return Term(term.coefficient, plain, tuple(x if x in used else None for x in labels))


def _cancelled(terms: Sequence[Term]) -> list[Term]:
    """Terms of the same statistic and data added up: σ k + (1 - σ) k = k."""
    kept: list[Term] = []
    for term in terms:
        for i, other in enumerate(kept):
            if _alike(term, other):
                total = other.coefficient + term.coefficient
                kept[i] = Term(total, other.factors, other.out)
                break
        else:
            kept.append(term)
    return [term for term in kept if term.coefficient]


def _alike(a: Term, b: Term) -> bool:
    return (
        len(a.factors) == len(b.factors)
        and all(
            x.same_place(y) and str(x.function) == str(y.function)
            for x, y in zip(a.atoms(), b.atoms(), strict=False)
        )
        and len(a.atoms()) == len(b.atoms())
        and all(map(_same_data, a.constants(), b.constants()))
    )


def _same_data(a: Constant, b: Constant) -> bool:
    if a.labels != b.labels:
        return False
    return a.tensor is b.tensor or (
        a.tensor.shape == b.tensor.shape and torch.equal(a.tensor, b.tensor)
    )


def _data(term: Term, labels: Sequence[int]) -> tuple[Constant, ...]:
    """A term's constants, those that meet inside it summed over what is not in the labels."""
    constants = term.constants()
    if all(x in labels for c in constants for x in c.labels):
        return tuple(constants)
    kept = [x for x in labels if any(x in c.labels for c in constants)]
    return (Constant(contract_constants(constants, kept), tuple(kept)),)


def _laid_out(
    data: Sequence[Constant], labels: Sequence[int], sizes: dict[int, int]
) -> list[torch.Tensor]:
    """Each with a dim for every label, of size one where it does not vary."""
    found = []
    for constant in data:
        order = sorted(range(len(constant.labels)), key=lambda i: labels.index(constant.labels[i]))
        view = [sizes[x] if x in constant.labels else 1 for x in labels]
        found.append(constant.tensor.double().permute(order).reshape(view))
    return found


def _of_predictor(
    terms: Sequence[Term],
    common: Sequence[int],
    supports: Sequence[int],
    sizes: dict[int, int],
    predictor: MakePredictor,
) -> tuple[Atom, Function] | None:
    """The predictor, at its place, and the sum of terms as a function of it."""
    latent = [term for term in terms if term.atoms()]
    if any(len(t.atoms()) > 1 or t.atoms()[0].function != 1.0 for t in latent):
        return None
    plain = [(t.coefficient, _data(t, [*common, *supports]), None) for t in terms if not t.atoms()]
    weights = [_weight(term, common, supports) for term in latent]
    first = weights[0]
    is_shared = first is not None and all(
        w is not None and len(w) == len(first) and all(map(_same_data, w, first)) for w in weights
    )
    if is_shared:
        assert first is not None
        over, parts = list(common), [_less(t, first) for t in latent]
        slope = (1.0, tuple(first), as_function(1.0))
    else:
        over, parts = [*common, *supports], list(latent)
        slope = (1.0, (), as_function(1.0))
    varying = [x if any(x in t.labels() for t in parts) else None for x in over]
    if any(x is not None and x not in sizes for x in varying):
        return None  # an axis of latents alone, w[z], whose length terms do not know
    shape = [1 if x is None else sizes[x] for x in varying]
    parts = [
        Term(t.coefficient, t.factors, tuple(x if x in t.labels() else None for x in varying))
        for t in parts
    ]
    name = predictor(parts, shape)
    only = torch.zeros((), dtype=torch.long)
    place = Atom(name, 1.0, tuple(Gather(only, ()) if x is None else x for x in varying))
    return place, combined([slope, *plain])


def _weight(term: Term, common: Sequence[int], supports: Sequence[int]) -> list[Constant] | None:
    """The constants by which a latent's coefficient differs between cases; None where more does."""
    weight = [c for c in term.constants() if set(c.labels) & set(supports)]
    rest = {x for f in term.factors if not any(f is w for w in weight) for x in f.labels}
    if any(x not in supports for w in weight for x in w.labels) or rest & set(supports):
        return None
    return weight


def _less(term: Term, weight: Sequence[Constant]) -> Term:
    kept = tuple(
        f for f in term.factors if isinstance(f, Atom) or not any(_same_data(f, w) for w in weight)
    )
    return Term(term.coefficient, kept, term.out)
