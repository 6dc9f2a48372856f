"""The free-form distribution of one number: log q by polynomials on panels of the line; and of two."""

from vitools.distributions.free_form.free_form import FreeForm
from vitools.distributions.free_form.pair import FreeFormPair

__all__ = ["FreeForm", "FreeFormPair"]
