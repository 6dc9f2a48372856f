"""The settings of Adam, which :func:`~vitools.svi` compiles together with its step."""

import math
from dataclasses import dataclass
from functools import partial

import torch

from vitools.engines.svi.optimisers.optimizer_ascent import OptimizerFactory
from vitools.engines.svi.optimisers.schedules import Schedule, described
from vitools.errors import OptionError


@dataclass(frozen=True)
class Adam:
    """``svi(…, optimizer=Adam(…), learning_rate=…)``: the default optimiser with other settings.

    With g the gradient of the loss, m ← β₁ m + (1 - β₁) g and v ← β₂ v + (1 - β₂) g²,

        θ ← θ - r m̂ / (√v̂ + ε),   m̂ = m / (1 - β₁^t),   v̂ = v / (1 - β₂^t)

    where r is the learning rate times the schedule's factor (and the plateau rule's reductions).
    Reference: D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.

    A ``torch.optim.Adam`` steps in Python; with these settings all of a step stays one graph.

    Args:
        betas: β₁ and β₂.
        epsilon: ε, held against the gradient of the whole loss: that of all n rows, however
            many a minibatch has. An ε meant for the loss of one row is n times as large here.
        schedule: from the number of steps taken to a factor of the learning rate, such as
            :class:`~vitools.engines.svi.optimisers.schedules.Cosine`. It is asked once for each block of
            :data:`~vitools.engines.svi.optimisers.ascent.BLOCK` steps, for the block's first.

    Example:
        >>> import torch
        >>> from vitools import Adam, Problem, svi
        >>> from vitools.engines import Cosine
        >>> from vitools.guides import AutoKumaraswamy
        >>> from vitools.models import coin
        >>> settings = Adam(betas=(0.9, 0.99), schedule=Cosine(2000, warm_up=100))
        >>> problem = Problem(coin.model, torch.tensor([1.0, 1.0, 0.0]))
        >>> fit = svi(problem, AutoKumaraswamy, optimizer=settings, max_steps=2100)
        >>> bool(fit.mean()["p"] > 0.5)
        True
    """

    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))  # a list says the same
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise OptionError(f"Adam: expected two betas from 0 to below 1, got {self.betas}.")
        if not 0 <= self.epsilon < math.inf:
            raise OptionError(f"Adam: expected an epsilon of at least 0, got {self.epsilon}.")

    @property
    def words(self) -> str:
        """What a checkpoint says of it."""
        if self == Adam():
            return "Adam"
        schedule = described(self.schedule)
        return f"Adam(betas={self.betas}, epsilon={self.epsilon}, schedule={schedule})"

    def of_torch(self, rate: float) -> OptimizerFactory:
        """The same as an optimiser of torch's, for parameters that do not fit in one vector."""
        if self.schedule is not None:
            raise OptionError(
                "Adam: a schedule needs all parameters in one dtype and on one device. Make them so, "
                "or leave the schedule out."
            )
        return partial(torch.optim.Adam, lr=rate, betas=self.betas, eps=self.epsilon)
