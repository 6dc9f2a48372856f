"""The affine map of a Gaussian over all latents, trained relative to where it started.

    u = c + L (m + S y),   S = diag(s) (I + C),  C strictly lower triangular

c and L are the location and the Cholesky factor of the start and stay as they are; m = 0, S = I is
the start itself. Had it been exact, nothing would be left to learn, and in its units every step of
an optimiser is one of posterior standard deviations, however narrow, long or tilted the posterior:
in the coordinates of u a ridge is followed by steps of its width.
"""

import torch
from pyro.nn.module import PyroModule, PyroParam
from torch import Tensor


class Affine(PyroModule):
    """Started at independent scales ``[D]`` around ``location``, whose units are then 1.

    Attributes:
        start_location, start_tril: c ``[D]`` and L ``[D, D]``. They are kept with the parameters,
            for a saved fit to find them, and have no gradient.
        shift, log_scale, correlation: m ``[D]``, log s ``[D]`` and C ``[D, D]``.
    """

    def __init__(self, location: Tensor, scale: Tensor) -> None:
        super().__init__()
        unit = torch.eye(len(location)).to(location)
        self.start_location, self.start_tril = PyroParam(location.clone()), PyroParam(unit)
        self.shift = PyroParam(torch.zeros_like(location))
        self.log_scale = PyroParam(scale.log())
        self.correlation = PyroParam(torch.zeros_like(unit))

    @torch.no_grad()
    def start_at(self, location: Tensor, tril: Tensor) -> None:
        """Make this the start."""
        self.start_location.copy_(location)
        self.start_tril.copy_(tril)
        for parameter in (self.shift, self.log_scale, self.correlation):
            parameter.zero_()

    def location(self) -> Tensor:
        """E[u] where E[y] = 0, ``[D]``."""
        return self.start_location.detach() + self.start_tril.detach() @ self.shift

    def tril(self) -> Tensor:
        """L S, lower triangular: ``[D, D]``."""
        return self.start_tril.detach() @ scale_tril(self.log_scale, self.correlation)


def scale_tril(log_scale: Tensor, correlation: Tensor) -> Tensor:
    """diag(s) (I + C), where C is the part of ``correlation`` below the diagonal: ``[D, D]``."""
    unit = torch.eye(len(log_scale), dtype=log_scale.dtype, device=log_scale.device)
    return torch.exp(log_scale).unsqueeze(-1) * (correlation.tril(-1) + unit)
