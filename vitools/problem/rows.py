"""The rows of a model: the plate they stand in, and the arguments that have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

from vitools.errors import NotSupportedError, OptionError
from vitools.problem import Problem
from vitools.problem.sites import listed, nearest


def plate_of_rows(problem: Problem, option: str, name: str | None = None) -> str:
    """The plate that an option is about: the one it names, or the longest that observed sites stand in."""
    if name is not None:
        if name not in problem.plates:
            raise OptionError(
                f"{option}: no plate '{name}' in model '{problem.name}' (plates: "
                f"{listed(list(problem.plates)) or 'none'}).{nearest(name, problem.plates)}"
            )
        return name
    observed = {p for site in problem.observed.values() for p in site.plates if p in problem.plates}
    if not observed:
        raise NotSupportedError(
            f"{option}: no observed site of model '{problem.name}' stands in a plate, so there are "
            f"no rows to take some of. Put the rows of data into a pyro.plate, or leave {option} "
            "out."
        )
    return max(observed, key=lambda plate: problem.plates[plate].size)


def is_of_rows(leaf: Any, total: int) -> bool:
    """Whether an argument is a tensor with so many rows."""
    return isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == total


def cut(arguments: Any, total: int, rows: Tensor) -> Any:
    """Arguments of a model, those that have the rows with some of them only."""
    return tree_map(lambda leaf: leaf[rows] if is_of_rows(leaf, total) else leaf, arguments)


def has_facts(problem: Problem) -> bool:
    """Whether the model makes of all rows what it can be told instead, as ``facts=``."""
    return hasattr(problem.model, "facts_of_rows") and problem.kwargs.get("facts") is None


def facts_of(problem: Problem) -> Any:
    """What the model makes of these rows.

    A model that needs something of all rows (a mean, say, or which groups there are) hands out
    ``model.facts_of_rows(*args, **kwargs)``; its result has a method ``joined``, of those of several parts.
    """
    make: Callable[..., Any] = problem.model.facts_of_rows  # type: ignore[attr-defined]
    return make(*problem.args, **problem.kwargs)


def told(problem: Problem, parts: Sequence[Any]) -> Problem:
    """The problem whose model is told what all rows are like, from what each part of them is."""
    facts = parts[0].joined(parts)
    made = Problem(problem.model, *problem.args, **{**problem.kwargs, "facts": facts})
    made = made.with_coords(**problem.coords)
    return made.with_params(problem.params) if problem.has_given_params else made
