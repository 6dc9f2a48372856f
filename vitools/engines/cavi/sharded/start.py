"""The model of one process's rows, and where a run on all of them begins.

A run begins from rows of all processes: all there are where they are few, else so many at random. These every
process sees, so that all begin alike, and where one process with those rows would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from vitools.calculus import ConjugateModel
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.reduction.shifting import Points
from vitools.calculus.streams.share import Share
from vitools.calculus.tracing.trace import TracedSite
from vitools.engines.cavi.minibatches.rows import same_rows
from vitools.engines.cavi.minibatches.steps import (
    Naturals,
    enter,
    naturals,
    outside,
    refuse_unfit,
)
from vitools.engines.sharding.shard import Shard
from vitools.errors import NotSupportedError
from vitools.families import Family
from vitools.problem import Problem
from vitools.problem.reading.program import fingerprint

FEW = 1000
"""Rows of a process on which the model is run once more."""


@dataclass(frozen=True)
class Begun:
    """A model of the rows of this process, and the factors of what all rows share at each start."""

    model: ConjugateModel
    starts: list[Naturals]
    shard: Shard

    def enter(self, natural: Naturals) -> None:
        """Put the shared factors where they are given, and those of single rows at their optimum."""
        self.model.together = None
        enter(self.model, natural)
        self.model.together = self.shard.mean


def begun(
    problem: Problem,
    shard: Shard,
    make: Callable[..., ConjugateModel],
    seeds: Sequence[int],
    initialise: Callable[[ConjugateModel, int], object],
    points: Points | None,
) -> Begun:
    """The model of this process and its starts, or an error that all processes raise.

    Args:
        make: the conjugate model of a Pyro model, its arguments and what its rows stand for.
        initialise: sets a model to the start of a seed.
        points: what the locations are taken about; sought in the rows that all see if omitted.
    """
    args, kwargs, rows = shard.sample(problem, seeds[0])

    def of_sample() -> tuple[list[Naturals], Points, list[str]]:
        share = Share(shard.plate, shard.total / rows, points)
        model = make(problem.model, args, kwargs, share=share)
        shared = _shared_points(model, shard.plate)
        if shared.keys() != model.points.keys():
            model = make(problem.model, args, kwargs, share=replace(share, points=shared))
        refuse_unfit(model, problem.name, shard.plate, "sharded")
        starts = []
        for seed in seeds:
            initialise(model, seed)
            starts.append(naturals(model))
        # which blocks settle first depends on how many rows there are
        return starts, shared, [name for block in model.inner for name in block.names]

    starts, points, inner = shard.ranks.of_first(shard.ranks.each(of_sample))

    def of_own() -> ConjugateModel:
        share = Share(shard.plate, shard.weight, points)
        arguments = (problem.model, problem.args, dict(problem.kwargs))
        model = make(*arguments, share=share, inner=inner)
        refuse_unfit(model, problem.name, shard.plate, "sharded")
        _refuse_rows_that_know_others(problem, shard, model, make)
        for block in outside(model):
            block.restore(starts[0][block.title])  # tells the number and shapes of its parts
        return model

    model = shard.ranks.each(of_own)
    for what, words in _in_words(model, shard.plate).items():
        shard.refuse_unlike(what, words)
    return Begun(model, starts, shard)


def _shared_points(model: ConjugateModel, plate: str) -> Points:
    """Reference points of what all rows share."""
    return {
        name: at for name, at in model.points.items() if not _is_inside(model.latents[name], plate)
    }


def _is_inside(site: TracedSite, plate: str) -> bool:
    return any(other.name == plate for other in site.plates.values())


def _refuse_rows_that_know_others(
    problem: Problem, shard: Shard, model: ConjugateModel, make: Callable[..., ConjugateModel]
) -> None:
    """Raise where what the model states of a row depends on the other rows of its process."""
    if shard.own < 2:
        return
    args, kwargs = shard.few_rows(problem, FEW)
    few = make(problem.model, args, kwargs, share=Share(shard.plate, 1.0, {}))
    for name, site in model.trace.sites.items():
        twin = few.trace.sites.get(name)
        if twin is not None and not same_rows(site, twin):
            raise NotSupportedError(
                f"sharded: what model '{problem.name}' states of site '{name}' depends on which rows "
                "there are (a mean taken inside the model, say), and each process has others. Compute "
                "it from all rows before, and give it to the model of every process, or let it hand out facts_of_rows, as "
                "vitools.models.mixtures.mixture does."
            )


def _in_words(model: ConjugateModel, plate: str) -> dict[str, str]:
    """What all processes must agree on, by what it is called."""
    found = {
        "the factors": ", ".join(
            f"{type(block).__name__}({block.title})" for block in model.blocks
        ),
        "the order of updates": ", ".join(block.title for block in model.order),
        "what settles first": ", ".join(block.title for block in model.inner) or "nothing",
    }
    for block in outside(model):
        family: Family = block.member_family
        shapes = [list(part.shape) for part in block.natural]
        found[f"the factor of '{block.title}'"] = f"{family.name} {shapes}"
    for name, site in model.latents.items():
        if not _is_inside(site, plate):
            constants = [
                constant
                for argument in site.arguments.values()
                for constant in _constants(argument)
            ]
            found[f"the prior of '{name}'"] = f"of constants {fingerprint((), constants)}"
    return found


def _constants(argument: object) -> list[torch.Tensor]:
    if isinstance(argument, torch.Tensor):
        return [] if argument.is_meta else [argument.detach()]
    if isinstance(argument, Expression):
        tensors = [c.tensor for term in argument.terms for c in term.constants()]
        return [tensor for tensor in tensors if not tensor.is_meta]
    return []
