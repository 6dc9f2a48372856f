"""The free-form distribution of one number: log q by polynomials on panels of the line."""

from vitools.distributions.free_form.free_form import FreeForm

__all__ = ["FreeForm"]
