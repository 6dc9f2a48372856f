"""The calculus: a Pyro model becomes a sum of einsum terms, and those the updates of its factors.

The rooms are in the order of the derivation, and each builds on those before it: ``algebra``
(terms and expressions) · ``tracing`` (the model run once on latents that carry expressions) ·
``densities`` (log densities as formulas, closed over plates) · ``reduction`` (distinct rows, folded
constants, contractions) · ``blocks`` (factors of q) · ``streams`` (long plates in chunks) ·
``messages``, ``model`` (updates and the bound) · ``start`` (where to begin) · ``words`` (all of it in
words).
"""

from vitools.calculus.model import ConjugateModel
from vitools.calculus.words.explain import explain

__all__ = ["ConjugateModel", "explain"]
