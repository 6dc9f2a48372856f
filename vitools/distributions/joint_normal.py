"""A normal distribution over a tensor in which some axes are correlated and the others are not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, constraints


class JointNormal(Distribution):
    """x of shape ``value_shape``, jointly normal along ``joint_axes``, independent along the others.

    Args:
        loc: [rest…, D], where rest are the sizes of the other axes in order and D is the number of
            elements along ``joint_axes``.
        scale_tril: [rest…, D, D], the Cholesky factor of each covariance.
        kept: [rest…, D], False for elements that take part in nothing: independent of the others
            with a standard normal, they are drawn but not counted in densities. All, if omitted.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012
    support = constraints.real
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        scale_tril: Tensor,
        value_shape: Sequence[int] | Tensor,
        joint_axes: Sequence[int] | Tensor,
        kept: Tensor | None = None,
        validate_args: bool | None = None,
    ):
        self.kept = torch.ones((), dtype=torch.bool) if kept is None else kept
        self.vector = MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)
        shape = tuple(int(size) for size in value_shape)
        self._axes = tuple(int(axis) for axis in joint_axes)
        self._rest = tuple(i for i in range(len(shape)) if i not in self._axes)
        order = (*self._rest, *self._axes)
        self._layout = tuple(shape[i] for i in order)
        self._back = tuple(order.index(i) for i in range(len(shape)))
        self._order = order
        super().__init__(torch.Size(), torch.Size(shape), validate_args=False)

    @property
    def loc(self) -> Tensor:
        return self.vector.loc

    @property
    def scale_tril(self) -> Tensor:
        return self.vector.scale_tril

    @property
    def value_shape(self) -> Tensor:
        return torch.tensor(self.event_shape)

    @property
    def kept_elements(self) -> Tensor:
        """``kept`` in the shape of the value."""
        return self._to_site(self.kept.expand(self.vector.loc.shape))

    @property
    def joint_axes(self) -> Tensor:
        return torch.tensor(self._axes)

    def _to_site(self, vector: Tensor) -> Tensor:
        lead = vector.dim() - len(self._rest) - 1
        shaped = vector.reshape(*vector.shape[:lead], *self._layout)
        return shaped.permute(*range(lead), *(lead + i for i in self._back))

    def _to_vector(self, value: Tensor) -> Tensor:
        lead = value.dim() - len(self._order)
        ordered = value.permute(*range(lead), *(lead + i for i in self._order))
        size = math.prod(self._layout[len(self._rest) :])
        return ordered.reshape(*ordered.shape[: lead + len(self._rest)], size)

    @property
    def mean(self) -> Tensor:
        return self._to_site(self.vector.loc)

    @property
    def variance(self) -> Tensor:
        return self._to_site(self.vector.variance)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self._to_site(self.vector.rsample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        vector = self._to_vector(value)
        density = self.vector.log_prob(vector) - self._set_aside(_log_standard_normal(vector))
        return density.sum(tuple(range(-len(self._rest), 0))) if self._rest else density

    def entropy(self) -> Tensor:
        one = torch.full_like(self.vector.mean, 0.5 * math.log(2 * math.pi * math.e))
        return (self.vector.entropy() - self._set_aside(one)).sum()

    def _set_aside(self, values: Tensor) -> Tensor:
        """The sum of what belongs to elements that are not kept."""
        return (values * ~self.kept).sum(-1)


def _log_standard_normal(x: Tensor) -> Tensor:
    return -0.5 * x**2 - 0.5 * math.log(2 * math.pi)
