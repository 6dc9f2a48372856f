"""What the engines that minimise with second derivatives ask of a problem, and how they get them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vitools.errors import NotSupportedError
from vitools.problem import Problem, check_problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace
from vitools.problem.sites import listed

MAX_DIMENSIONS = 1000  # the Hessian takes a product with it for each of its rows


def smooth_space(problem: Problem, engine: str) -> UnconstrainedSpace:
    """The latents as one vector; by name what ``engine`` cannot fit."""
    check_problem(problem, f"{engine}()")
    problem.refuse_unlisted(f"{engine}()")
    if not problem.continuous:
        raise NotSupportedError(
            f"model '{problem.name}' has only discrete latents; {engine} needs continuous ones. "
            "Use exact(problem)."
        )
    if problem.free_params and not problem.has_given_params:
        raise NotSupportedError(
            f"model '{problem.name}' has parameters of its own ({listed(problem.free_params)}), which "
            f"{engine} does not fit. Use svi(), whose fit.problem then has their trained values; or "
            "make them latents; or hold them on purpose by problem.with_params(problem.params)."
        )
    space = UnconstrainedSpace(problem)
    if space.size > MAX_DIMENSIONS:
        raise NotSupportedError(
            f"model '{problem.name}' has {space.size} continuous dimensions; {engine} computes a "
            f"dense Hessian and takes at most {MAX_DIMENSIONS}. Use svi(problem, AutoMeanField)."
        )
    return space


def dense_hessian(
    times_hessian: Callable[[np.ndarray, np.ndarray], np.ndarray], at: np.ndarray
) -> Tensor:
    """Row by row from products, made symmetric: ``[P, P]``, float64."""
    rows = torch.as_tensor(np.stack([times_hessian(at, unit) for unit in np.eye(len(at))]))
    return (rows + rows.mT) / 2
