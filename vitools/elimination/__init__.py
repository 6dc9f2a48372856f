"""Gaussians whose precision matrix has the structure of a tree, by elimination from the leaves on.

Numbers come in *levels* of groups (pupils, classes, schools), which may be Markov chains over time each,
and one dense *root* (coefficients, and what is crossed with the levels). :func:`~vitools.elimination.arrangement.arrange` finds the order from
which groups are coupled, :class:`~vitools.elimination.tree.Tree` lays out the precision matrix, and
:class:`~vitools.elimination.factor.Factor` is its factorisation: log-determinant, solutions, draws and
the selected inverse, all linear in the number of groups.
"""

from vitools.elimination.arrangement import Arrangement, Coupling, arrange, is_along
from vitools.elimination.border import Border
from vitools.elimination.factor import Factor
from vitools.elimination.tree import Level, Place, Tree

__all__ = [
    "Arrangement",
    "Border",
    "Coupling",
    "Factor",
    "Level",
    "Place",
    "Tree",
    "arrange",
    "is_along",
]
