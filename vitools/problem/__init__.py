"""A Pyro model bound to its data, read once: sites, plates, densities, draws."""

from vitools.problem.check import check_problem
from vitools.problem.problem import Problem
from vitools.problem.sites import Plate, Site

__all__ = ["Plate", "Problem", "Site", "check_problem"]
