"""Draws of a fit carried to other data: which elements of the model's sites are those that were fitted.

A plate's elements are the same where their labels are. Of a plate without labels, the elements of observed
sites are new, and of other plates the first are those of the fit and the rest new. What is new is drawn from
its distribution given the rest: a new group from its prior given the scales.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from vitools.errors import NotSupportedError, OptionError
from vitools.problem.density.placing import Places
from vitools.problem.problem import Problem
from vitools.problem.sites import Site, listed


def carried_to(
    problem: Problem, at: Problem, draws: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor], Places]:
    """Values of whole sites of ``at``, values of some elements of others, and where these stand.

    Args:
        problem: the one that was fitted, whose latents ``draws`` are of, ``{site: [n, *shape]}``.
    """
    if not isinstance(at, Problem):
        raise OptionError(
            f"predictive: at expects a Problem of the same model and other data, got {type(at).__name__}. "
            "Write at=Problem(model, *other_arguments)."
        )
    only_here, only_there = (
        set(problem.latents) - set(at.latents),
        set(at.latents) - set(problem.latents),
    )
    if only_here or only_there:
        raise NotSupportedError(
            f"predictive: at is of model '{at.name}', which has other latents than the fit (only in the fit: "
            f"{listed(sorted(only_here)) or 'none'}; only there: {listed(sorted(only_there)) or 'none'}). Build "
            "it with the fit's model."
        )
    whole: dict[str, Tensor] = {}
    part: dict[str, Tensor] = {}
    places: dict[str, tuple[Tensor, ...]] = {}
    for name, value in draws.items():
        old, new = problem.latents[name], at.latents[name]
        if old.event_shape != new.event_shape or len(old.batch_shape) != len(new.batch_shape):
            raise NotSupportedError(
                f"predictive: site '{name}' has shape {list(old.shape)} in the fit and {list(new.shape)} there, "
                "and no plate says which elements are the same. Steps beyond the data of a chain are drawn by the "
                "fit itself, of data that are masked there."
            )
        taken, put = _positions(problem, at, old, new)
        if not all(len(index) for index in put):
            continue
        for dim, index in enumerate(taken, start=1):
            value = value.index_select(dim, index)
        sizes = new.batch_shape
        if all(len(index) == size for index, size in zip(put, sizes, strict=True)):
            for dim, index in enumerate(put, start=1):
                value = value.index_select(dim, index.argsort())
            whole[name] = value
        else:
            part[name], places[name] = value, put
    return whole, part, places


def _positions(
    problem: Problem, at: Problem, old: Site, new: Site
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """For each batch dim, the elements that are in both, by position in the fit and there."""
    own = {plate for site in problem.observed.values() for plate in site.plates if plate}
    taken, put = [], []
    for plate, before, now in zip(old.plates, old.batch_shape, new.batch_shape, strict=True):
        if plate in problem.coords and plate in at.coords:
            position = {label: i for i, label in enumerate(problem.coords[plate])}
            pairs = [(position[v], i) for i, v in enumerate(at.coords[plate]) if v in position]
        elif plate in own:
            pairs = []
        else:
            pairs = [(i, i) for i in range(min(before, now))]
        taken.append(torch.tensor([i for i, _ in pairs], dtype=torch.long))
        put.append(torch.tensor([i for _, i in pairs], dtype=torch.long))
    return tuple(taken), tuple(put)
