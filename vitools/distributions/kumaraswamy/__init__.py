"""The Kumaraswamy distribution and its divergences."""

from vitools.distributions.kumaraswamy import divergences as divergences
from vitools.distributions.kumaraswamy.scalar import Kumaraswamy

__all__ = ["Kumaraswamy"]
