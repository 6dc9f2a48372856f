"""Gaussian sites that share a factor by themselves: those that a term couples.

Under a joint normal, a term that is at most quadratic in several Gaussian sites together (X w + b, u[group])
has a closed form whatever their correlations, so tearing the sites apart would only lose accuracy.
The factors of a product (W x) are kept apart: its square is of degree four.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from vitools.calculus.algebra.atoms import Predictor
from vitools.calculus.densities.closed_terms import ClosedTerm
from vitools.calculus.densities.surrogates import SURROGATES
from vitools.calculus.tracing.trace import TracedSite

LARGEST_DENSE = 1000
"""Numbers that share one dense covariance unless asked for more."""


def coupled_groups(
    sites: Mapping[str, TracedSite],
    terms: Sequence[ClosedTerm],
    fits: Callable[[Sequence[str]], bool],
) -> list[tuple[str, ...]]:
    """Groups of several Gaussian sites, in the order of the model.

    Args:
        sites: the Gaussian sites that may be joined.
        fits: whether a joint factor of some sites is cheap enough.
    """
    friends, foes = _pairs(sites, terms)
    group: dict[str, tuple[str, ...]] = {name: (name,) for name in sites}
    for a, b in friends:
        if group[a] == group[b]:
            continue
        members = tuple(name for name in sites if name in (*group[a], *group[b]))
        if any(pair in foes for pair in itertools.combinations(members, 2)):
            continue
        if fits(members):
            group |= dict.fromkeys(members, members)
    return [g for g in dict.fromkeys(group.values()) if len(g) > 1]


def _pairs(
    sites: Mapping[str, TracedSite], terms: Sequence[ClosedTerm]
) -> tuple[list[tuple[str, str]], set[tuple[str, str]]]:
    """Pairs that a term of degree two couples, and pairs that stand in one of a higher degree."""
    place = {name: i for i, name in enumerate(sites)}
    friends: dict[tuple[str, str], None] = {}
    foes: set[tuple[str, str]] = set()
    for term in terms:
        inside = [atom for atom in term.atoms if atom.site in sites]
        found = {atom.site for atom in inside}
        degree = sum(a.function if isinstance(a.function, float) else math.inf for a in inside)
        predictors = [below & set(sites) for below in _below_functions(term)]
        apart: list[set[str]] = [found]
        if any(predictors) and found - set().union(*predictors):
            if any(found & below for below in predictors):
                apart = [{name} for name in found.union(*predictors)]
            else:  # E f(η) · E x holds only where x is no part of η, but x may share a factor
                apart = [found, *predictors]
        names = sorted(set().union(*apart), key=place.__getitem__)
        for pair in itertools.combinations(names, 2):
            if not any(set(pair) <= part for part in apart):
                foes.add(pair)
            elif set(pair) <= found:
                if degree <= 2:
                    friends[pair] = None
                else:
                    foes.add(pair)
    return [pair for pair in friends if pair not in foes], foes


def _below_functions(term: ClosedTerm) -> list[set[str]]:
    """The latents below each predictor of which the term holds a curved function."""
    return [
        set(atom.site.expression.sites())
        for atom in term.atoms
        if isinstance(atom.site, Predictor) and atom.function not in SURROGATES
    ]


def joint_size(sites: Iterable[TracedSite], axes: Mapping[str, Sequence[int]]) -> int:
    """Numbers in each member of a joint factor of the sites along these axes."""
    return sum(math.prod(site.shape[i] for i in axes[site.name]) for site in sites)
