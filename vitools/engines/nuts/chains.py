"""What every no-U-turn sampler takes and returns, and the space they move in."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.graphs.compiled import Compile, compiled
from vitools.posterior import Posterior
from vitools.posterior.mixing import FEWEST_DRAWS
from vitools.problem import Problem
from vitools.problem.coordinates.density import value_and_gradient
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

LogDensity = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From a point ``[P]`` to the log density there and its gradient ``[P]``."""


@dataclass(frozen=True)
class ChainPlan:
    """How long to run: ``report`` is told the number of transitions done, warm-up included."""

    num_samples: int
    num_warmup: int
    seed: int
    report: Callable[[int], None]


@dataclass(frozen=True)
class Chains:
    """Draws ``[chains, draws, P]`` after warm-up, from whole chains unless there is only one."""

    draws: Tensor
    divergences: int
    is_interrupted: bool = False

    @classmethod
    def interrupted(cls, chains: list[Tensor], num_samples: int, divergences: int) -> "Chains":
        """The whole ones of some chains ``[n, P]``; the longest if none is; else KeyboardInterrupt."""
        kept = [chain for chain in chains if len(chain) == num_samples]
        if not kept:
            kept = sorted((c for c in chains if len(c) >= FEWEST_DRAWS), key=len)[-1:]
        if not kept:
            raise KeyboardInterrupt  # there are no draws to keep
        return cls(torch.stack(kept), divergences, True)


class WhitenedSpace(UnconstrainedSpace):
    """u = centre + scale · v, so that a unit mass matrix suits v from the first step."""

    def __init__(self, problem: Problem, start: Posterior | None, seed: int) -> None:
        super().__init__(problem)
        self.starts: Tensor | None = None
        self.centre, self.scale = (
            torch.zeros((), dtype=self.dtype),
            torch.ones((), dtype=self.dtype),
        )
        if start is not None:
            draws = self.from_values(start.sample(200, seed))
            self.centre = draws.mean(0)
            self.scale = draws.std(0).clamp(min=1e-6)
            self.starts = (draws - self.centre) / self.scale

    def start_of_chain(self, chain: int, seed: int) -> Tensor:
        if self.starts is not None:
            return self.starts[chain % len(self.starts)]
        return self.initial_point(seed)

    def log_density_at(self, vector: Tensor) -> Tensor:
        return super().log_density_at(self.centre + self.scale * vector)

    def log_density_and_gradient(self, option: Compile, calls: int) -> LogDensity:
        """:meth:`log_density_at` with its gradient, as a graph where that is possible.

        Args:
            option: whether to compile it (see :func:`~vitools.graphs.compiled.compiled`).
            calls: about how often it will be evaluated.
        """
        function = value_and_gradient(self.log_density_at)
        subject = f"nuts on model '{self.problem.name}'"
        example = (self.start_of_chain(0, 0),)
        tried = (self.start_of_chain(1, 1),)
        return compiled(function, example, subject, option=option, calls=calls, tried=tried)  # type: ignore[return-value]
