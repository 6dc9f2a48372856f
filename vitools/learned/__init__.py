"""Distributions learnt: from samples, with or without a context, and from a density known up to Z."""

from vitools.learned.energy import EnergyDensity
from vitools.learned.front_door import fit_density
from vitools.learned.samples import HeldOutHistory, LearnedDensity
from vitools.learned.storage import load, save

__all__ = [
    "EnergyDensity",
    "HeldOutHistory",
    "LearnedDensity",
    "fit_density",
    "load",
    "save",
]
