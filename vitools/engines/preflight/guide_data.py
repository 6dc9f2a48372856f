"""Minibatches that count for too little or too much, told from two runs of the model."""

import math
from typing import Any

import torch
from pyro.poutine import Trace
from torch import Tensor
from torch.utils._pytree import tree_leaves

from vitools.errors import OptionError
from vitools.problem import Problem


def refuse_miscounted_data(problem: Problem, first: Trace, second: Trace) -> None:
    """Raise :class:`OptionError` where a minibatch stands for itself alone, or is weighted twice.

    A plate weighs its minibatch by N/B. Rows that the model takes by itself, in a plate of B, have
    weight 1: they change from run to run and all of them are among those of a larger argument.
    Rows that were taken before the model was called cannot be told from the whole.
    """
    for name in problem.observed:
        node, again = first.nodes[name], second.nodes[name]
        frames = [frame for frame in node["cond_indep_stack"] if frame.vectorized]
        weight = math.prod((frame.full_size or frame.size) / frame.size for frame in frames)
        scale = _number(node["scale"])
        if weight == 1.0 and scale == 1.0 and not torch.equal(node["value"], again["value"]):
            _refuse_if_taken(problem, name, node["value"], again["value"])
        if weight != 1.0 and scale is not None and math.isclose(scale, weight**2, rel_tol=1e-6):
            raise OptionError(
                f"site '{name}' of model '{problem.name}' is weighted by {scale:g}: its plates "
                f"weigh the minibatch by {weight:g} already, and poutine.scale does so again. "
                "Leave the poutine.scale out."
            )


def _refuse_if_taken(problem: Problem, name: str, *values: Tensor) -> None:
    count = values[0].shape[0] if values[0].dim() else 1
    for argument in tree_leaves((problem.args, problem.kwargs)):
        if (
            isinstance(argument, Tensor)
            and argument.dim()
            and len(argument) > count
            and all(bool(torch.isin(value, argument.to(value)).all()) for value in values)
        ):
            raise OptionError(
                f"site '{name}' of model '{problem.name}' takes other {count} of {len(argument)} "
                "rows at each run, which count for themselves only: the prior would weigh too much "
                f"by {len(argument) / count:g}. Let the plate choose them and weigh them: with "
                f"pyro.plate(…, {len(argument)}, subsample_size={count}) as rows."
            )


def _number(scale: Any) -> float | None:
    """A scale as a number; ``None`` for one weight an element."""
    if isinstance(scale, Tensor):
        return float(scale) if scale.numel() == 1 else None
    return float(scale)
