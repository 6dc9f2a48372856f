"""Gradient steps in which every process has some of the rows.

A rank's bound counts its rows N / N_r times; the mean of the ranks' gradients, weighted by N_r / N, is the
gradient of the bound of all rows (:class:`~vitools.engines.sharding.shard.Shard`). All processes draw from
one seed and take the same steps, so that they have the same parameters throughout, and decide alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from vitools.engines.objectives import Elbo, Objective
from vitools.engines.objectives.objective import drawn_sites, guide_name, run_guide
from vitools.engines.sharding.shard import Shard
from vitools.engines.svi.optimisers.gradient import Gradient
from vitools.errors import NotSupportedError, OptionError
from vitools.graphs.compiled import Compile
from vitools.problem import Problem
from vitools.problem.sites import listed


@dataclass(frozen=True)
class SharedGradient:
    """The loss of all rows and its gradient, from what every process has of them."""

    own: Gradient
    shard: Shard

    def __call__(self, parameters: Sequence[Tensor], noise: Sequence[Tensor]) -> Sequence[Tensor]:
        return self.shard.mean(self.own(parameters, noise))

    def draw(self, count: int) -> list[Tensor]:
        return self.own.draw(count)


def refuse_options(
    objective: Callable[[Problem, Any], Objective] | None, compile: Compile, callback: object
) -> None:
    """Raise for what several processes cannot do, or not alike."""
    if objective is not None and not isinstance(objective, Elbo):
        raise OptionError(
            "sharded: not beside objective=, which is no sum over rows unless it is the ELBO. Leave one of "
            "both out, or give Elbo(…)."
        )
    if compile is True:
        raise OptionError(
            "sharded: not beside compile=True, since gradients are added up between the steps. Leave "
            "compile out."
        )
    if callback is not None:
        raise OptionError(
            "sharded: not beside callback=, by which one process could do what the others do not. Leave it "
            "out; progress= is told how far the run is."
        )


def begin_alike(
    problem: Problem,
    guide: Any,
    objective: Objective,
    parameters: Sequence[Parameter],
    shard: Shard,
) -> None:
    """Put the parameters of all processes where the first has them; refuse those of single rows.

    A parameter is of all rows where nothing that the guide draws for single rows stands outside the
    plate, so that each draw counts as the rows do.
    """

    def check() -> None:
        run = drawn_sites(run_guide(problem, guide))
        inside = [n for n, s in problem.drawn.items() if shard.plate in s.plates]
        outside_plate = [
            name
            for name in inside
            if name not in run
            or shard.plate not in {frame.name for frame in run[name]["cond_indep_stack"]}
        ]
        shapes = [p for p in parameters if inside and shard.own in p.shape]
        if outside_plate or shapes:
            raise NotSupportedError(
                f"sharded: guide {guide_name(guide)} has parameters of single rows of '{shard.plate}' (site "
                f"{listed(outside_plate or inside)}), and svi() adds up the gradients of what all rows share. "
                "Take a guide that makes the factors of rows from their data inside a pyro.plate of that "
                "name (an encoder), a model without such latents, or cavi()."
            )
        if objective.state:
            raise NotSupportedError(
                "sharded: a guide whose draws are not differentiated through has baselines of its own on "
                "each process. Take a guide without such draws."
            )

    shard.ranks.each(check)
    shapes = [(tuple(p.shape), str(p.dtype)) for p in parameters]
    shard.refuse_unlike("the shapes of all parameters", str(shapes))
    values = shard.ranks.of_first([p.detach().cpu() for p in parameters])
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
