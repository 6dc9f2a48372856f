"""What a distribution remembers of its last draw, to score it without rounding it first."""

from collections.abc import Callable

import torch
from torch import Tensor

Known = Tensor | Callable[[], Tensor]
"""A tensor, or how to compute it from what the draw was made of, should anyone ask."""


class LastDraw:
    """A draw, its coordinate in log-space, and its log density where that came with the draw.

    Like the cache of a torch transform it is recognised by identity: ``last.value is value``.
    """

    def __init__(self, value: Tensor, coordinate: Known, log_density: Known | None = None):
        self.value = value
        self._coordinate = coordinate
        self._log_density = log_density
        self._differentiable = torch.is_grad_enabled()

    def score(self, log_density_at: Callable[[Tensor], Tensor]) -> Tensor:
        """The log density of the draw, by ``log_density_at`` its coordinate where necessary.

        A draw made without gradients (``sample``) is a constant whose score may still be
        differentiated in the parameters: then the density of its making, which is not, won't do.
        """
        made_constant = torch.is_grad_enabled() and not self._differentiable
        if self._log_density is None or made_constant:
            return log_density_at(self._evaluate(self._coordinate))
        return self._evaluate(self._log_density)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Copies and saved distributions have drawn nothing yet (and graphs cannot be copied)."""
        return type(None), ()

    def _evaluate(self, known: Known) -> Tensor:
        """As it would have been at the draw: constant if that was."""
        if isinstance(known, Tensor):
            return known
        with torch.set_grad_enabled(self._differentiable and torch.is_grad_enabled()):
            return known()
