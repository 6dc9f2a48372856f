"""The conjugacy calculus: a Pyro model becomes a sum of einsum terms, and those its updates.

Stages: ``trace`` (run the model once on shape-only latents) · ``expression``, ``discrete``,
``operations`` (the algebra) · ``factors`` (log densities as formulas) · ``terms`` (close, fold,
merge) · ``rows`` (distinct rows) · ``blocks``, ``gaussian`` (factors of q) · ``contraction``,
``update`` (messages, updates, the bound).
"""

from vitools.conjugacy.update import ConjugateModel

__all__ = ["ConjugateModel"]
