"""Exponential families: q(x) = exp(η·t(x) - A(η)), with base measure one.

A family states its sufficient statistics t, its log-normaliser A and its mean parameters ∇A; the
entropy A(η) - η·∇A(η) and the divergence between two members follow (Wainwright and Jordan 2008,
"Graphical models, exponential families, and variational inference", section 3).

To add a family: subclass :class:`Family` in a file of its own, state the attributes and the abstract
methods below, and add a line to :data:`vitools.families.FAMILIES`. Coordinate ascent, ``explain``,
starts and the files of fits ask nobody else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

Natural = tuple[Tensor, ...]


class Family(ABC):
    """One exponential family. Natural and mean parameters are tuples in the order of statistics.

    Each tensor has shape ``batch + event``, where the event of statistic i has
    ``event_dims[i]`` dims. Arguments named ``natural``, ``other`` and ``mean`` are such tuples; a ``point``
    is what :meth:`coordinates` gives; an ``event_shape`` that of one draw.

    Attributes:
        name: one word; in ``explain``, where ``title`` has no others.
        statistics: t, in the words of the calculus: a power such as ``1.0``, ``"log"``, ``"log1m"``,
            ``"indicator"``, ``"log_determinant"``, ``"outer"``.
        priors: the distributions whose latents have their optimal factor in this family.
        filler: η of an element that nothing is said about: a number for each statistic, times the
            identity where it is a matrix.
        members: the distributions that a factor of the family is handed out as, and the parameters
            that make them anew from a file.
        is_gaussian: whether sites may share one normal factor with others.
        is_discrete: whether a factor is a table of probabilities of cases.
        is_precision: whether it is what precisions and rates have, whose unit a vague prior leaves open.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    statistics: ClassVar[tuple[float | str, ...]]
    event_dims: ClassVar[tuple[int, ...]]
    support: ClassVar[torch.distributions.constraints.Constraint]
    priors: ClassVar[tuple[str, ...]] = ()
    filler: ClassVar[tuple[float, ...]] = ()
    members: ClassVar[Mapping[type[Distribution], tuple[str, ...]]] = {}
    is_gaussian: ClassVar[bool] = False
    is_discrete: ClassVar[bool] = False
    is_precision: ClassVar[bool] = False

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

    def start(self, prior: Natural, generator: torch.Generator | None) -> Natural:
        """Where coordinate ascent begins: in the prior's units, and no two members alike.

        Args:
            prior: natural parameters that the prior alone gives, of the shape of the factor's;
                where it says nothing, the filler.
            generator: of the noise that tells members apart; none is added without one.
        """
        raise NotImplementedError  # a family made for one block, which starts itself

    def with_moments(self, mean: Tensor, variance: Tensor | None) -> Natural:
        """The member of this mean and variance; without one, so narrow that it is a value."""
        raise NotImplementedError

    def words(self, total: Callable[..., str]) -> str:
        """The optimal factor, its parameters written as sums of messages.

        Args:
            total: ``total(statistic, …, scale=1.0, plus=0.0)``, the sum of the messages to these
                statistics, times a number, plus a number.
        """
        raise NotImplementedError

    def coordinates(self, natural: Natural) -> Natural:
        """Where an extrapolation stays inside the family: log rates and precisions, means as they are.

        Matrices are taken as they are; a jump out of the positive definite cone gives no density.
        """
        return natural

    def from_coordinates(self, point: Natural) -> Natural:
        """The inverse of :meth:`coordinates`."""
        return point

    def statistic_of(self, function: Any, event_shape: Sequence[int]) -> Any | None:
        """The statistic that a function of the value is; ``None`` where the family offers none."""
        return function if function in self.statistics else None

    @property
    def of_elements(self) -> Family:
        """The family of a value's elements, each on its own."""
        return self

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

    def symmetrised_kl(self, natural: Natural, other: Natural) -> Tensor:
        """KL(q_η ‖ q_η') + KL(q_η' ‖ q_η) = (η-η')·(μ-μ').

        Its root is a relative change of q that needs no scale of its own.
        """
        eta = tuple(a - b for a, b in zip(natural, other, strict=True))
        means = self.mean_parameters(natural), self.mean_parameters(other)
        mu = tuple(a - b for a, b in zip(*means, strict=True))
        return self.inner(eta, mu).clamp(min=0)


NARROW = 1e-3
"""Standard deviation of a factor that stands for a value, relative to its size."""
NARROWEST = 1e-9
"""The same where the standard deviation is given, and is 0."""


def narrow(mean: Tensor) -> Tensor:
    """The variance of factors that stand for values."""
    size = mean.square().mean().sqrt()
    size = torch.where(size > 0, size, torch.ones_like(size))
    return torch.full_like(mean, float(NARROW * size) ** 2)


def noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal draws of this shape; zeros without a generator."""
    if generator is None:
        return torch.zeros(like.shape, dtype=torch.float64)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64)
