"""The same model with other data: what calibration fits again and again."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from pyro import poutine
from torch import Tensor

from vitools.errors import OptionError
from vitools.problem import Problem


def with_data(problem: Problem, data: Mapping[str, Tensor]) -> Problem:
    """The same problem with ``{observed site: value}`` in the place of the data.

    The model is called with its arguments as they are and its observed sites are conditioned on the
    new values, so that prior, likelihood and predictive stay those of the problem: what the model
    uses as a covariate (the lags of a series, say) is kept even where it is made of the old data.

    Example:
        >>> import torch
        >>> from vitools.models import coin
        >>> problem = with_data(
        ...     Problem(coin.model, torch.ones(3).double()), {"heads": torch.zeros(3).double()})
        >>> problem.log_joint({"p": torch.tensor(0.5).double()}).exp()
        tensor(0.1250, dtype=torch.float64)
    """
    for name in problem.observed:
        if name not in data:
            raise OptionError(f"expected data for '{name}', got {', '.join(data) or 'none'}.")
    model: Callable[..., Any] = problem.model
    values = {name: data[name] for name in problem.observed}

    def conditioned(*args: Any, **kwargs: Any) -> Any:
        return poutine.condition(model, data=values)(*args, **kwargs)

    if hasattr(model, "__name__"):
        conditioned = wraps(model, updated=())(conditioned)
    if problem.invariants is not None:
        conditioned.invariants = problem.invariants  # type: ignore[attr-defined]
    return Problem(conditioned, *problem.args, **problem.kwargs).with_coords(**problem.coords)
