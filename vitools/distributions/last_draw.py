"""What a distribution remembers of its last draw, to score it without rounding it first."""

from collections.abc import Callable

import torch
from torch import Tensor


class LastDraw:
    """A draw, its coordinate in log-space, and its log density where that came with the draw.

    Like the cache of a torch transform it is recognised by identity: ``last.value is value``.
    """

    def __init__(self, value: Tensor, coordinate: Tensor, log_density: Tensor | None = None):
        self.value = value
        self.coordinate = coordinate
        self._log_density = log_density
        self._differentiable = torch.is_grad_enabled()

    def score(self, log_density_at: Callable[[Tensor], Tensor]) -> Tensor:
        """The log density of the draw, by ``log_density_at`` its coordinate where necessary.

        A draw made without gradients (``sample``) is a constant whose score may still be
        differentiated in the parameters: then the density of its making, which is not, won't do.
        """
        made_constant = torch.is_grad_enabled() and not self._differentiable
        if self._log_density is None or made_constant:
            return log_density_at(self.coordinate)
        return self._log_density
