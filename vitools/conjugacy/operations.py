"""Torch operations on latents, each with its rule in the calculus.

One table: the name of a torch function → a function of the same arguments, in which latents stand
as :class:`Expression` or :class:`Discrete`. An operation that is not in the table has no rule; the
model can then not be fitted in closed form, and the refusal names the operation.
"""

# Importing a file of rules enters them in the table.
from vitools.conjugacy import arithmetic, indexing, joining, matrices, shapes  # noqa: F401
from vitools.conjugacy.rules import RULES, Node, function_name

__all__ = ["RULES", "Node", "function_name"]
