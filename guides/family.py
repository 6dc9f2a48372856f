"""The contract of a variational family: one site's q, its parameters and where they start.

A family is one file: a subclass of :class:`GuideFamily` with four methods, and one line in the table
of ``mean_field/families.py``. Its parameters are unconstrained real tensors.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform

from vitools.supports import base_support, from_reals


@dataclass(frozen=True)
class LatentSite:
    """What a family may know of the site it approximates.

    ``mean`` and ``variance`` have the shape of the site's value with every plate at full size;
    ``location`` and ``scale`` that of the unconstrained value. All are finite, ``mean`` is
    interior to the support, and variances are positive.
    """

    name: str
    support: Constraint
    event_dim: int
    mean: Tensor
    variance: Tensor
    location: Tensor
    scale: Tensor

    @property
    def transform(self) -> Transform:
        """From the reals onto the support; remembers the pair it computed last."""
        return from_reals(self.support).with_cache(1)

    def to_reals(self, value: Tensor) -> Tensor:
        """The unconstrained value, rounded boundary points moved inside the support first."""
        return from_reals(self.support).inv(interior(value, self.support))

    @property
    def unconstrained_event_dim(self) -> int:
        """Event dims of the unconstrained value (a Cholesky factor has two, its vector one)."""
        return self.event_dim + self.location.dim() - self.mean.dim()


@dataclass(frozen=True)
class Parameter:
    """The start of one parameter; its last ``event_dim`` dims are not plates."""

    start: Tensor
    event_dim: int


class GuideFamily(ABC):
    """q of one site.

    ``init_scale``, where given, is the starting standard deviation as a multiple of the prior's;
    ``None`` leaves the choice to the family.
    """

    name: str

    @abstractmethod
    def fits(self, support: Constraint) -> bool:
        """Whether the family lives on this support."""

    @abstractmethod
    def start(self, site: LatentSite, init_scale: float | None) -> dict[str, Parameter]:
        """The parameters by name, matched to the site's prior moments."""

    @abstractmethod
    def distribution(
        self, site: LatentSite, parameters: dict[str, Tensor]
    ) -> TorchDistributionMixin:
        """q at the current parameters, with the site's event dims."""

    @abstractmethod
    def units(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        """How far each location goes to move q by one standard deviation; others have 1."""


def is_simplex(support: Constraint) -> bool:
    return base_support(support) is constraints.simplex


def is_unit_interval(support: Constraint) -> bool:
    """Whether the support is (0, 1), by name or as an interval with those ends."""
    support = base_support(support)
    if not isinstance(support, constraints.interval):
        return False
    lower = torch.as_tensor(support.lower_bound)
    upper = torch.as_tensor(support.upper_bound)
    return bool((lower == 0.0).all()) and bool((upper == 1.0).all())


def interior(value: Tensor, support: Constraint) -> Tensor:
    """``value`` finite, and off the boundary of the supports whose maps have infinite ends."""
    info = torch.finfo(value.dtype)
    value = value.clamp(-(info.max**0.5), info.max**0.5)
    if is_simplex(support):
        value = value.clamp(min=info.eps)
        return value / value.sum(-1, keepdim=True)
    inner = base_support(support)
    if isinstance(inner, constraints.interval):
        lower = torch.as_tensor(inner.lower_bound).to(value)
        upper = torch.as_tensor(inner.upper_bound).to(value)
        margin = info.eps * (upper - lower)
        return torch.minimum(torch.maximum(value, lower + margin), upper - margin)
    if isinstance(inner, constraints.greater_than | constraints.greater_than_eq):
        lower = torch.as_tensor(inner.lower_bound).to(value)
        return torch.maximum(value, lower + info.eps * lower.abs() + info.tiny)
    return value
