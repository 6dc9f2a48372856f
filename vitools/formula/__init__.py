"""A formula and a table in; an ordinary Problem around an ordinary Pyro model out."""

from vitools.formula.families import FAMILIES
from vitools.formula.problem import FormulaProblem, from_formula

__all__ = ["FAMILIES", "FormulaProblem", "from_formula"]
