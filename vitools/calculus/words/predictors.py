"""Predictors in words: η, its working weights W, and what is said of them below the table.

A curved log density ℓ(η) speaks to the latents of η through λ₂ = ½ E ℓ″ and λ₁ = E ℓ′ - E η · E ℓ″
(:mod:`vitools.calculus.blocks.predictor`). Statisticians know both from iteratively reweighted least
squares: with W = -E ℓ″(η) and the working response z = E η + E ℓ′(η) / W,

    λ₂ = -W / 2,        λ₁ = W z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from vitools.calculus.algebra.atoms import Atom, Predictor
from vitools.calculus.algebra.functions import as_function
from vitools.calculus.densities.closed_terms import ClosedTerm
from vitools.calculus.densities.surrogates import CURVATURE, SLOPE, SURROGATES, predictors
from vitools.calculus.words.functions import in_words
from vitools.problem.sites import listed

CLOSED = {("exp", 1.0), ("relu", 1.0), ("abs", 1.0)}
"""Functions whose expectation under a normal has a closed form."""
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


class PredictorNames:
    """η for the only predictor of a model; η₁, η₂, … for several."""

    def __init__(self, terms: Sequence[ClosedTerm]) -> None:
        self.terms = terms
        every = list(predictors(atom for term in terms for atom in term.atoms))
        self.sums = [name for name in every if name.is_sum]
        self.found = [name for name in every if not (name.is_sum or name.is_factor)]

    def ending(self, name: Predictor) -> str:
        if len(self.found) == 1:
            return ""
        return str(self.found.index(name) + 1).translate(SUBSCRIPTS)

    def surrogate(self, atom: Atom) -> tuple[float, str] | None:
        """A surrogate's statistic as a number times words; None for what is none."""
        if not isinstance(atom.site, Predictor):
            return None
        if atom.site.is_factor:
            return 1.0, f"allotted[{atom.site.shown}]"
        if atom.site.is_sum:
            return 1.0, f"log Σ exp E[log ({atom.site.shown})]"
        end = self.ending(atom.site)
        if atom.function == SLOPE:
            return 1.0, f"W{end} z{end}"
        return (-0.5, f"W{end}") if atom.function == CURVATURE else None

    def notes(self) -> list[str]:
        """What each predictor is, and how its functions are expected."""
        return [*map(self._note, self.found), *map(self._note_of_sum, self.sums)]

    def _note_of_sum(self, name: Predictor) -> str:
        """What stands in place of the logarithm of a sum."""
        own = [t for t in self.terms if any(a.site == name for a in t.atoms) and t.origin != name]
        origins = listed(dict.fromkeys(repr(term.origin) for term in own))
        below = sorted(name.expression.sites())
        return (
            f"log Σ a of {origins}, a sum of products of {listed(below)}: E[log Σ a] is at least "
            "log Σ exp E[log a], a further bound (by\n"
            "    Jensen's inequality; Cemgil 2009). allotted[x]: the weights of these logarithms, shared "
            "out among the parts\n"
            "    with x by φ ∝ exp E[log a] and added up; shares are computed where they are needed and "
            "not kept."
        )

    def _note(self, name: Predictor) -> str:
        end = self.ending(name)
        own = [(t.origin, a) for t in self.terms for a in t.atoms if a.site == name]
        curved = [a.function for _, a in own if a.function not in SURROGATES]
        functions = dict.fromkeys(in_words(f, f"η{end}") for f in curved)
        origins = dict.fromkeys(repr(origin) for origin, _ in own if origin != name)
        what = f"η{end}: the predictor of {listed(origins)} from {listed(sorted(name.expression.sites()))}; "
        if name.is_vector:
            return (
                f"{what}E[{'], E['.join(functions)}] by its tilted bound (Knowles and Minka 2011);\n"
                f"    W{end} = diag(p) - p pᵀ and W{end} z{end} = W{end} E[η{end}] - p, p the softmax at "
                f"that bound: surrogate = natural-gradient step."
            )
        count = math.prod(name.expression.shape)
        how = f"expected by {count} one-dimensional integral{'s' if count != 1 else ''} a sweep"
        if all(as_function(function).name in CLOSED for function in curved):
            how = "in closed form"
        return (
            f"{what}E[{'], E['.join(functions)}] {how};\n"
            f"    W{end} = -E[ℓ″(η{end})] and W{end} z{end} = E[ℓ′(η{end})] + W{end} E[η{end}], ℓ the log "
            f"density in η{end}: surrogate = natural-gradient step."
        )
