"""The guide that a model is given where nobody names one."""

from vitools.guides.base import PriorCentredGuide
from vitools.guides.joint.multivariate import AutoMultivariate
from vitools.guides.mean_field.mean_field import AutoMeanField
from vitools.problem import Problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

MOST_JOINT = 300
"""Unconstrained numbers up to which one Gaussian over all, with every correlation, is worth its cost."""


def default_guide(problem: Problem) -> type[PriorCentredGuide]:
    """One Gaussian over all latents up to :data:`MOST_JOINT` numbers, independent factors beyond.

    Whether latents are correlated a posteriori is not known beforehand, and a product of factors that
    misses it is too narrow. A model that the first cannot take (latents whose values cannot be listed)
    gets the second as well.
    """
    is_joint = set(problem.drawn) == set(problem.continuous)
    size = UnconstrainedSpace(problem).size if is_joint else 0
    return AutoMultivariate if is_joint and 0 < size <= MOST_JOINT else AutoMeanField
