"""Bounds and the estimators of their gradients, each a choice for ``svi(…, objective=…)``."""

from typing import Any

from vitools.engines.objectives.beta import BetaElbo
from vitools.engines.objectives.elbo import Elbo
from vitools.engines.objectives.importance import ImportanceWeighted
from vitools.engines.objectives.objective import Objective
from vitools.engines.objectives.score import ScoreFunction
from vitools.problem import Problem

__all__ = ["BetaElbo", "Elbo", "ImportanceWeighted", "Objective", "ScoreFunction", "negative_elbo"]


def negative_elbo(problem: Problem, guide: Any, num_particles: int) -> Objective:
    """:class:`Elbo` by ``num_particles`` draws.

    Args:
        guide: a Pyro guide of the problem.
        num_particles: draws that a step averages over.
    """
    return Elbo(num_particles)(problem, guide)
