"""The conjugacy calculus: a Pyro model becomes a sum of einsum terms, and those its updates.

Stages: ``trace`` (run the model once on shape-only latents, ``symbolic``) · ``term``, ``expression``,
``cases``, ``discrete``, ``operations`` (the algebra) · ``factors`` (log densities as formulas) ·
``terms`` (close them over plates) · ``rows`` (distinct rows) · ``folding`` (fold, merge) · ``plan``,
``blocks``, ``gaussian``, ``streamed`` (factors of q) · ``contraction``, ``update`` (messages, updates,
the bound) · ``initialise``, ``clusters`` (starts) · ``coordinates`` · ``explain``.
"""

from vitools.conjugacy.update import ConjugateModel

__all__ = ["ConjugateModel"]
