"""Automatic guides, for ``pyro.infer.SVI`` and for :func:`vitools.svi`."""

from vitools.guides.flow.flow import AutoFlow
from vitools.guides.joint.multivariate import AutoMultivariate
from vitools.guides.mean_field.amortized import Amortized
from vitools.guides.mean_field.mean_field import (
    AutoDirichlet,
    AutoKumaraswamy,
    AutoLogisticNormal,
    AutoMeanField,
)

AutoNormal = AutoMeanField
"""Pyro's name of :class:`AutoMeanField`."""
AutoMultivariateNormal = AutoMultivariate
"""Pyro's name of :class:`AutoMultivariate`."""

__all__ = [
    "Amortized",
    "AutoDirichlet",
    "AutoFlow",
    "AutoKumaraswamy",
    "AutoLogisticNormal",
    "AutoMeanField",
    "AutoMultivariate",
    "AutoMultivariateNormal",
    "AutoNormal",
]
