"""What every way up the bound has, whatever its optimiser.

An ascent owns the parameters' values, the optimiser's state and the sums from which iterates
are averaged. It advances by blocks of :data:`BLOCK` steps whose noise is given to it, and all
it is can be put into tensors and numbers and taken back.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.nn import Parameter

from vitools.engines.svi.optimisers.gradient import Gradient
from vitools.graphs.functional import FunctionalGraph

BLOCK = 4


class GradientAscent:
    """What every ascent has: averages of its iterates, over a stage or over its tail."""

    values: list[Tensor]
    totals: list[Tensor]
    lost: list[Tensor] | None = None
    """Parameters at which the last block left the finite numbers."""

    def __init__(
        self,
        parameters: Sequence[Parameter],
        gradient: Gradient,
        clip_norm: float | None,
    ) -> None:
        self.parameters, self.gradient = list(parameters), gradient
        self.clip_norm = clip_norm
        self.sizes = [p.numel() for p in self.parameters]
        self.compiled: Callable[..., Any] | None = None
        self.steps_a_call = 1  # of ``compiled``

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """Inputs of the compiled program that stay the same."""
        return self.gradient.constants if isinstance(self.gradient, FunctionalGraph) else ()

    @property
    def rounding(self) -> float:
        """Machine epsilon of the coarsest number type that the gradient is computed in."""
        return self.gradient.rounding if isinstance(self.gradient, FunctionalGraph) else 0.0

    @property
    def unroll(self) -> int:
        """Steps in one compiled program."""
        return 1

    @abstractmethod
    def program(self, noise: Sequence[Tensor]) -> tuple[GraphModule, list[Tensor]]:
        """What to compile into ``compiled``, and inputs to compile it for."""

    def one_step(self, noise: Sequence[Tensor]) -> tuple[GraphModule, list[Tensor], int]:
        """A program for :mod:`~vitools.graphs.loops`, its inputs, and how many of them are state."""
        return *self.program(noise), 0

    def allowances(self, steps: int) -> list[float]:
        """By how much rounding may change each result of the program beyond its digits."""
        return []

    @abstractmethod
    def advance(self, noise: Sequence[Tensor], count: int) -> list[float]:
        """Take ``count`` steps with noise ``[BLOCK, *shape]``; the loss before each of them.

        Where a loss or the parameters leave the finite numbers, ``lost`` is set.
        """

    @abstractmethod
    def scale_rate(self, factor: float) -> None:
        """Multiply the step size."""

    @abstractmethod
    def place(self, values: Sequence[Tensor]) -> None:
        """Set the parameters, as they are seen outside, to ``values``."""

    @abstractmethod
    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything a resumed ascent needs, as tensors and as what JSON can hold.

        No later step changes any of it.
        """

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""

    def restart_average(self) -> None:
        """Begin a stage."""
        self.totals = [torch.zeros_like(value) for value in self.values]
        self.averaged = 0
        self.marks = [(0, [torch.zeros_like(value) for value in self.values])] * 2

    def mark(self) -> None:
        """Remember the sums whenever the stage has doubled, for the average of its tail."""
        if self.averaged >= 2 * max(self.marks[-1][0], BLOCK):
            self.marks = [self.marks[-1], (self.averaged, [t.clone() for t in self.totals])]

    def average(self, *, tail: bool) -> list[Tensor]:
        """Mean iterate of the stage, or of its last half to three quarters."""
        nothing = [torch.zeros_like(total) for total in self.totals]
        count, before = self.marks[0] if tail else (0, nothing)
        return [
            (total - earlier) / (self.averaged - count)
            for total, earlier in zip(self.totals, before, strict=True)
        ]

    def vector(self) -> Tensor:
        """The parameters in one row, which the next step may change."""
        rows = [value.detach().flatten() for value in self.values]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def _average_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"total.{i}": t for i, t in enumerate(self.totals)}
        for which, (_, sums) in enumerate(self.marks):
            tensors |= {f"mark{which}.{i}": t for i, t in enumerate(sums)}
        return tensors, {"averaged": self.averaged, "marks": [count for count, _ in self.marks]}

    def _restore_average(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        indices = range(len(self.values))
        self.averaged = numbers["averaged"]
        self.totals = [tensors[f"total.{i}"] for i in indices]
        self.marks = [
            (count, [tensors[f"mark{which}.{i}"] for i in indices])
            for which, count in enumerate(numbers["marks"])
        ]
