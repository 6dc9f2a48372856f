"""The conjugacy calculus: a Pyro model becomes a sum of einsum terms, and those its updates.

Stages: ``trace`` (run the model once on shape-only latents, ``symbolic``, ``constructors``) ·
``term``, ``positions``, ``cases``, ``logarithm``, ``expression``, ``products``, ``discrete``,
``spelling``, ``operations`` (the algebra) · ``factors`` (log densities as formulas) · ``terms`` (close them over
plates) · ``masks`` (what they leave out) · ``shifting``, ``least_squares``, ``references`` (locations
about a point near the data) · ``rows`` (distinct rows) · ``folding`` (fold, merge) · ``plan``,
``block``, ``blocks``, ``gaussian`` (factors of q) · ``dependence`` (what they lose) ·
``streaming``, ``streamed``, ``components``, ``features`` (long plates in chunks) · ``contraction``,
``compilation``, ``update`` (messages, updates, the bound) · ``initialise``, ``clusters``,
``scales``, ``moments`` (starts) ·
``schedule``, ``coordinates``, ``moves`` (what a run may do) · ``outcome`` (q as distributions) ·
``naming``, ``wording``, ``tables``, ``alternatives``, ``explain`` (all of it in words).
"""

from vitools.conjugacy.update import ConjugateModel

__all__ = ["ConjugateModel"]
