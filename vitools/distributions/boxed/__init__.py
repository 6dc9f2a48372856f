"""Matrices whose unconstrained coordinates lie in a box."""

from vitools.distributions.boxed.matrices import BoxedCorrelation, BoxedCovariance, BoxedMatrix

__all__ = ["BoxedCorrelation", "BoxedCovariance", "BoxedMatrix"]
