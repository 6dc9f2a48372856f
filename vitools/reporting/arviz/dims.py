"""Names for the dimensions of a site's values: plates where there are some."""

import math

import numpy as np
from torch import Tensor

from vitools.problem import Problem
from vitools.problem.dims import SAMPLE_DIMS, NamedShape, named_shape


def over_draws(
    shape: tuple[int, ...], dims: tuple[str, ...], sizes: tuple[int, ...], value: Tensor
) -> tuple[tuple[str, ...], np.ndarray]:
    """``value`` ``[chains · draws, *sizes]`` as a named array over ``shape`` = (chains, draws)."""
    # Without continuous latents there is one value for all draws, hence expand.
    flat = value.reshape((-1, *sizes)).expand((math.prod(shape), *sizes))
    return SAMPLE_DIMS + dims, flat.reshape(shape + sizes).detach().cpu().numpy()


def argument_dims(problem: Problem, name: str, value: Tensor) -> NamedShape:
    """Names for an array that the model was called with.

    Nothing says along which plate it lies. Its first dim is taken to lie along the outermost plate
    of an observed site where the lengths agree: rows of covariates beside rows of data.
    """
    outermost = {
        next((p for p in site.plates if p is not None), None) for site in problem.observed.values()
    }
    matching = [
        p for p in outermost if p and value.dim() and problem.plates[p].size == len(value) > 1
    ]
    plates: list[str | None] = [None] * value.dim()
    if len(matching) == 1:
        plates[0] = matching[0]
    return named_shape(name, tuple(value.shape), plates, [True] * value.dim())
