"""Conditional densities of vectors: the best normal whose mean is linear in the context, bent by a flow.

    w = R⁻¹ (x - Wᵀ (1, c)),   z = f(w; c),   log q(x | c) = log N(z; 0, I) + log |∂z/∂w| - log |R|

W is the least-squares fit of samples x to standardised contexts c and R Rᵀ the covariance of what it leaves:
without f this is the density of largest likelihood among those normals, in closed form. f is a stack of
invertible networks (:mod:`vitools.guides.flow.zuko_flows`) from the samples to the normal, the identity at
the start, so that what it learns is what a normal lacks. Densities cost one pass of the networks; draws,
which invert it, D with ``"spline"`` and ``"autoregressive"`` and 2 a layer with ``"realnvp"``.

G. Papamakarios, T. Pavlakou, I. Murray (2017), "Masked autoregressive flow for density estimation".
"""

import math
from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor

from vitools.guides.flow.zuko_flows import FlowMap
from vitools.isolation import seeded

LOG_2_PI = math.log(2 * math.pi)
LARGEST_GRADIENT = 10.0

Listen = Callable[[int, Tensor], bool]
"""Told of each step and its loss; True ends the training."""


class ConditionalDensity:
    """q(x | c), a normal until :meth:`train`.

    Args:
        x: samples ``[n, D]``.
        c: their contexts ``[n, C]``; C may be 0.
    """

    FITTED = ("center", "spread", "weights", "root")
    """What the samples decide, beside the flow."""

    def __init__(self, x: Tensor, c: Tensor) -> None:
        self.center = c.mean(0)
        spread = (c - self.center).square().mean(0).sqrt()
        self.spread = torch.where(spread > 0, spread, 1.0)
        design = self._design(c)
        self.weights = torch.linalg.lstsq(design, x, driver="gelsd").solution
        left = x - design @ self.weights
        covariance = left.mT @ left / len(x)
        jitter = torch.diag(1e-12 * covariance.diagonal())
        self.root = torch.linalg.cholesky(covariance + jitter)
        self.flow: FlowMap | None = None

    @classmethod
    def of(cls, fitted: Mapping[str, Tensor], flow: FlowMap | None) -> Self:
        """One whose samples are not at hand, from its :data:`FITTED` tensors."""
        made = cls.__new__(cls)
        for name in cls.FITTED:
            setattr(made, name, fitted[name])
        made.flow = flow
        return made

    @property
    def log_det(self) -> Tensor:
        """log |R|."""
        return self.root.diagonal().log().sum()

    @property
    def size(self) -> int:
        """D."""
        return len(self.root)

    def log_prob(self, x: Tensor, c: Tensor) -> Tensor:
        """log q of ``[n, D]`` given ``[n, C]``, ``[n]``."""
        design = self._design(c)
        return self._log_density(self._whitened(x, design), design[:, 1:]) - self.log_det

    def sample(self, c: Tensor) -> Tensor:
        """A draw for each context ``[n, C]``, ``[n, D]``, from torch's generator."""
        design = self._design(c)
        w = torch.randn(len(c), self.size, dtype=c.dtype, device=c.device)
        if self.flow is not None:
            w, _ = self.flow(w, _or_none(design[:, 1:]), inverse=True)
        return design @ self.weights + w @ self.root.mT

    def train(
        self,
        x: Tensor,
        c: Tensor,
        kind: str,
        *,
        layers: int,
        width: int,
        num_steps: int,
        batch: int,
        learning_rate: float,
        seed: int,
        listen: Listen | None = None,
    ) -> None:
        """Climb the mean of log q(x | c) with Adam, whose steps shrink along a cosine to 0.

        Args:
            kind: a name in :data:`vitools.guides.flow.zuko_flows.FLOWS`.
        """
        design = self._design(c)
        w, context = self._whitened(x, design), design[:, 1:]
        flow = FlowMap(
            kind, self.size, layers=layers, width=width, context=context.shape[1], seed=seed
        ).to(w)
        self.flow = flow
        parameters = list(flow.parameters())
        optimiser = torch.optim.Adam(parameters, lr=learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, num_steps)
        try:
            with seeded(seed), torch.enable_grad():
                for step in range(num_steps):
                    rows = torch.randint(len(w), (min(batch, len(w)),))
                    loss = -self._log_density(w[rows], context[rows]).mean()
                    if listen is not None and listen(step, loss.detach() + self.log_det):
                        break
                    optimiser.zero_grad()
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
                    optimiser.step()
                    schedule.step()
        finally:  # an interrupted one is used as well
            flow.requires_grad_(False)

    def _design(self, c: Tensor) -> Tensor:
        return torch.cat([c.new_ones(len(c), 1), (c - self.center) / self.spread], 1)

    def _whitened(self, x: Tensor, design: Tensor) -> Tensor:
        centred = (x - design @ self.weights).mT
        return torch.linalg.solve_triangular(self.root, centred, upper=False).mT

    def _log_density(self, w: Tensor, context: Tensor) -> Tensor:
        """log N(f(w)) + log |∂f/∂w|."""
        if self.flow is None:
            return -0.5 * (w.square() + LOG_2_PI).sum(-1)
        z, log_stretch = self.flow(w, _or_none(context))
        return log_stretch - 0.5 * (z.square() + LOG_2_PI).sum(-1)


def _or_none(context: Tensor) -> Tensor | None:
    return context if context.shape[1] else None
