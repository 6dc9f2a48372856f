"""A sum of terms as a function of one element of one latent, and functions of such sums.

log σ(2 x + 1), log Γ(y_n + r), (s² + c²)^-½: whatever is computed from a single scalar is one statistic
of it. Where cases stand before it (w[z]), exactly one holds, and f(Σ_k s_k t_k) = Σ_k s_k f(t_k).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vitools.calculus.algebra.atoms import Atom, Constant, Function, Unsupported, fresh
from vitools.calculus.algebra.cases import by_cases
from vitools.calculus.algebra.functions import as_function, combined
from vitools.calculus.algebra.term import Term, drop_unused_out, is_selector

Change = Callable[[float | str | Function], float | str | Function]


@dataclass(frozen=True)
class Place:
    """One element of a latent: a function of it, along the labels of the terms it came from."""

    atom: Atom
    function: Function


def one_place(terms: Sequence[Term], common: Sequence[int | None]) -> Place | None:
    """Σ terms as a function of a single element of one latent and of data; None where it is not.

    ``common`` are the labels of the out dims, which the terms carry.
    """
    allowed = {label for label in common if label is not None}
    place: Atom | None = None
    parts: list[tuple[float, Sequence[Constant], Function | None]] = []
    for term in terms:
        atoms = term.atoms()
        if len(atoms) > 1 or term.labels() - allowed or any(map(is_selector, term.factors)):
            return None
        function = None
        if atoms:
            (atom,) = atoms
            if atom.function == "log_determinant":
                return None
            if place is None:
                place = atom
            elif not place.same_place(atom):
                return None
            function = as_function(atom.function)
        parts.append((term.coefficient, term.constants(), function))
    if place is None:
        return None
    if len(parts) == 1 and parts[0][0] == 1 and not parts[0][1]:
        (atom,) = terms[0].atoms()
        return Place(place, as_function(atom.function))
    return Place(place, combined(parts))


def changed(terms: Sequence[Term], change: Change, what: str) -> list[Term]:
    """The terms of change(Σ terms), applied to the function of the one element that they are."""
    whole = _whole(terms, change)
    if whole is not None:
        return [whole]
    if any(is_selector(f) for term in terms for f in term.factors):
        try:
            return by_cases(terms, lambda term: [_case(term, change, what)], what)
        except Unsupported as error:
            raise Unsupported(
                f"{what} of a sum with a part that a discrete latent selects"
            ) from error
    raise Unsupported(f"{what} of what is not linear in the latents")


def _whole(terms: Sequence[Term], change: Change) -> Term | None:
    common = [fresh() for _ in terms[0].out] if terms else []
    renamed = []
    for term in terms:
        term = term.freshen()
        names = {x: common[i] for i, x in enumerate(term.out) if x is not None}
        renamed.append(term.rename(names))
    found = one_place(renamed, common)
    if found is None:
        return None
    atom = Atom(found.atom.site, change(shortest(found.function)), found.atom.indices)
    return drop_unused_out(Term(1.0, (atom,), tuple(common)))


def _case(term: Term, change: Change, what: str) -> Term:
    """The function of what stands beside a case's selectors."""
    selectors, values = term.split()
    inner = Term(term.coefficient, tuple(values), term.out)
    found = one_place([inner], sorted(inner.labels()))
    if found is None:
        raise Unsupported(f"{what} of a sum of latents")
    atom = Atom(found.atom.site, change(shortest(found.function)), found.atom.indices)
    return drop_unused_out(Term(1.0, (*selectors, atom), term.out))


def shortest(function: Function) -> float | str | Function:
    """A power or a plain logarithm by its short name."""
    return function.name if isinstance(function.name, float) or function.name == "log" else function
