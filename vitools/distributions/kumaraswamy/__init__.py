"""The Kumaraswamy distribution, its divergences, and its like on the simplex."""

from vitools.distributions.kumaraswamy import divergences as divergences
from vitools.distributions.kumaraswamy.scalar import Kumaraswamy
from vitools.distributions.kumaraswamy.simplex import MVKumaraswamy

__all__ = ["Kumaraswamy", "MVKumaraswamy"]
