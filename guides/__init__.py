"""Automatic guides, for ``pyro.infer.SVI`` and for :func:`vitools.svi`."""

from vitools.guides.amortized import Amortized
from vitools.guides.mean_field import (
    AutoDirichlet,
    AutoKumaraswamy,
    AutoLogisticNormal,
    AutoMeanField,
)
from vitools.guides.multivariate import AutoMultivariate

__all__ = [
    "Amortized",
    "AutoDirichlet",
    "AutoKumaraswamy",
    "AutoLogisticNormal",
    "AutoMeanField",
    "AutoMultivariate",
]
