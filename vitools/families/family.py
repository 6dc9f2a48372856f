"""Exponential families: q(x) = exp(η·t(x) - A(η)), with base measure one.

A family states its sufficient statistics t, its log-normaliser A and its mean parameters ∇A; the
entropy A(η) - η·∇A(η) and the divergence between two members follow (Wainwright and Jordan 2008,
"Graphical models, exponential families, and variational inference", section 3).

To add a family: subclass :class:`Family`, state ``statistics`` (the names that atoms of the
conjugacy calculus use: a power such as ``1.0``, ``"log"``, ``"log1m"``, ``"indicator"``,
``"log_determinant"``), ``event_dims``, the methods below, and add a line to
:data:`vitools.families.FAMILIES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

Natural = tuple[Tensor, ...]


class Family(ABC):
    """One exponential family. Natural and mean parameters are tuples in the order of statistics.

    Each tensor has shape ``batch + event``, where the event of statistic i has
    ``event_dims[i]`` dims.
    """

    name: ClassVar[str]
    statistics: ClassVar[tuple[float | str, ...]]
    event_dims: ClassVar[tuple[int, ...]]
    support: ClassVar[torch.distributions.constraints.Constraint]

    @abstractmethod
    def log_normaliser(self, natural: Natural) -> Tensor:
        """A(η), of the batch shape."""

    @abstractmethod
    def mean_parameters(self, natural: Natural) -> Natural:
        """E t(x) = ∇A(η), in closed form."""

    @abstractmethod
    def to_distribution(self, natural: Natural) -> Distribution:
        """The member as a torch distribution."""

    @abstractmethod
    def from_distribution(self, distribution: Distribution) -> Natural:
        """The natural parameters of a torch distribution of this family."""

    @abstractmethod
    def proper(self, natural: Natural) -> Tensor:
        """Where the natural parameters give a density (booleans of the batch shape)."""

    def normalised(self, natural: Natural) -> tuple[Tensor, Natural]:
        """A(η), nan where η gives no density, and ∇A(η); overridden where both share work."""
        log_normaliser = self.log_normaliser(natural)
        nan = torch.full((), torch.nan, dtype=log_normaliser.dtype)
        proper = torch.where(self.proper(natural), log_normaliser, nan)
        return proper, self.mean_parameters(natural)

    def normalised_with(
        self, shared: Sequence[Tensor | None]
    ) -> Callable[[Natural], tuple[Tensor, Natural]]:
        """:meth:`normalised` for many batches whose components in ``shared`` are always these."""
        return self.normalised

    def inner(self, natural: Natural, mean: Natural) -> Tensor:
        """η·μ, of the batch shape."""
        total: Tensor | None = None
        for eta, mu, dims in zip(natural, mean, self.event_dims, strict=True):
            product = eta * mu
            part = product.sum(tuple(range(-dims, 0))) if dims else product
            total = part if total is None else total + part
        assert total is not None
        return total

    def entropy(self, natural: Natural, mean: Natural | None = None) -> Tensor:
        """-E log q = A(η) - η·μ."""
        mean = self.mean_parameters(natural) if mean is None else mean
        return self.log_normaliser(natural) - self.inner(natural, mean)

    def kl(self, natural: Natural, other: Natural) -> Tensor:
        """KL(q_η ‖ q_η') = (η-η')·μ - A(η) + A(η')."""
        mean = self.mean_parameters(natural)
        difference = tuple(a - b for a, b in zip(natural, other, strict=True))
        gap = self.inner(difference, mean)
        return gap - self.log_normaliser(natural) + self.log_normaliser(other)
