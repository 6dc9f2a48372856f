"""The gradient of a loss with respect to parameters it reads: recorded where it can be, or run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from vitools.graphs.functional import (
    FunctionalGraph,
    functional_graph,
    notice,
    refuse_other_numbers,
)
from vitools.isolation import seeded

LossAndGradient = Callable[[], tuple[Tensor, ...]]


class Gradient(Protocol):
    """A loss and its gradient at parameters, with noise that is drawn outside for several steps."""

    def __call__(self, parameters: Sequence[Tensor], noise: Sequence[Tensor]) -> Sequence[Tensor]:
        """The loss and the gradient with respect to each parameter."""

    def draw(self, count: int) -> list[Tensor]:
        """The noise of so many steps."""


@dataclass(frozen=True)
class EagerGradient:
    """Runs the Python of the model at each step, with the parameters set to what is asked for."""

    function: LossAndGradient
    parameters: list[Parameter]

    def __call__(self, parameters: Sequence[Tensor], noise: Sequence[Tensor]) -> Sequence[Tensor]:
        with torch.no_grad():
            for own, value in zip(self.parameters, parameters, strict=True):
                if own is not value:
                    own.copy_(value)
        return self.function()

    def draw(self, count: int) -> list[Tensor]:
        """No noise is drawn outside."""
        return []


def recorded_gradient(
    function: LossAndGradient, parameters: list[Parameter], subject: str
) -> FunctionalGraph | EagerGradient:
    """``function`` as a graph, checked against it once; or as it is, after a notice with the reason.

    Args:
        function: returns the loss and its gradient at the present values of ``parameters``.
        subject: names the function in the notice.
    """
    values = [p.detach() for p in parameters]
    try:
        with seeded(1):  # other draws than those it is held against below
            graph = functional_graph(function, (), parameters)
        with seeded(0):
            expected = function()
        with seeded(0), torch.no_grad():
            got = graph(values, graph.draw_as_recorded())
        if not graph.has_inner_noise:  # else the two draw in another order
            refuse_other_numbers(expected, got, "the recording", 1e-4, least=0.01)
    except Exception as reason:  # tracing fails in as many ways as there are models
        notice(subject, reason)
        return EagerGradient(function, parameters)
    return graph
