"""Natural gradients as an optimiser: steps in the geometry of the guide's own families.

The guide knows its families and takes the step (:mod:`vitools.guides.mean_field.natural`); the engine's part
is the gradient and the step's size.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn import Parameter

from vitools.engines.svi.optimisers.optimizer_ascent import OptimizerFactory
from vitools.errors import OptionError


@dataclass(frozen=True)
class NaturalGradient:
    """``svi(…, optimizer=NaturalGradient(rate))``: λ ← λ + ρ F⁻¹ ∇_λ L in natural parameters.

    For guides made of exponential families, such as :class:`~vitools.guides.AutoDirichlet`. A
    step does not depend on how they are parametrised; with an exact gradient and ρ = 1 it is
    coordinate ascent's update of a conjugate site.

    Args:
        rate: ρ, first value; it falls at plateaus of the bound, as Adam's does.
        radius: longest step of one element in its Fisher metric: 1 is a normal's mean moved by a
            standard deviation.

    Example:
        >>> import torch
        >>> from vitools import NaturalGradient, Problem, svi
        >>> from vitools.guides import AutoDirichlet
        >>> from vitools.models import coin
        >>> problem = Problem(coin.model, torch.tensor([1.0, 1.0, 0.0]))
        >>> fit = svi(problem, AutoDirichlet, optimizer=NaturalGradient(), num_particles=4)
        >>> fit.status.label
        'converged'
    """

    rate: float = 0.1
    radius: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise OptionError(f"NaturalGradient: expected a rate in (0, 1], got {self.rate}.")
        if not self.radius > 0:
            raise OptionError(f"NaturalGradient: expected a radius above 0, got {self.radius}.")

    def of(self, guide: Any) -> OptimizerFactory:
        """The optimiser of this guide's parameters."""
        if not hasattr(guide, "natural_step"):
            raise OptionError(
                f"guide {getattr(guide, '__name__', type(guide).__name__)} has no natural_step, "
                "from which NaturalGradient takes its steps: use AutoDirichlet or another mean "
                "field of vitools.guides, or leave optimizer out."
            )
        return partial(NaturalSteps, guide, self.rate, self.radius)


class NaturalSteps(torch.optim.Optimizer):
    """Hands each step on to the guide."""

    def __init__(
        self, guide: Any, rate: float, radius: float, parameters: Iterable[Parameter]
    ) -> None:
        super().__init__(parameters, {"lr": rate})
        self.guide, self.radius = guide, radius
        own = {id(parameter) for parameter in guide.parameters()}
        if any(id(p) not in own for group in self.param_groups for p in group["params"]):
            raise OptionError(
                "NaturalGradient steps the parameters of a guide only, and the model has some of "
                "its own. Make them latents, or leave optimizer out."
            )

    def step(self, closure: Any = None) -> Any:
        self.guide.natural_step(self.param_groups[0]["lr"], self.radius)
