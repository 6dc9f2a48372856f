"""The steps of a loop as one variable with an axis of steps."""

from collections.abc import Mapping

import numpy as np

from vitools.problem import Problem
from vitools.problem.dims import SAMPLE_DIMS
from vitools.problem.sequences import Steps, sequences
from vitools.reporting.arviz.groups import Variable


def step_dim(stem: str) -> str:
    """The name of the axis; its labels are the numbers of the steps."""
    return f"{stem}_step"


def sequences_of(problem: Problem) -> dict[str, Steps]:
    """Of latents, data and deterministic sites; without one whose axis a site has the name of."""
    sites = {**problem.latents, **problem.observed, **problem.deterministics}
    return {k: steps for k, steps in sequences(sites).items() if step_dim(k) not in sites}


def gathered(group: Mapping[str, Variable], found: Mapping[str, Steps]) -> dict[str, Variable]:
    """A group in which each sequence that is whole stands in the place of its first step."""
    made: dict[str, Variable] = {}
    first = {steps.sites[0]: steps for steps in found.values() if _is_whole(steps, group)}
    inner = {name for steps in first.values() for name in steps.sites}
    for name, variable in group.items():
        if name in first:
            made[first[name].stem] = _stacked(first[name], group)
        elif name not in inner:
            made[name] = variable
    return made


def _is_whole(steps: Steps, group: Mapping[str, Variable]) -> bool:
    return (
        all(name in group for name in steps.sites)
        and steps.stem not in group
        and len({group[name][1].shape for name in steps.sites}) == 1
    )


def _stacked(steps: Steps, group: Mapping[str, Variable]) -> Variable:
    name = steps.sites[0]
    dims = group[name][0]
    lead = len(SAMPLE_DIMS) if dims[: len(SAMPLE_DIMS)] == SAMPLE_DIMS else 0
    own = f"{name}_dim_"
    rest = tuple(
        dim.replace(own, f"{steps.stem}_dim_") if dim.startswith(own) else dim
        for dim in dims[lead:]
    )
    arrays = [group[each][1] for each in steps.sites]
    return (*dims[:lead], step_dim(steps.stem), *rest), np.stack(arrays, lead)
