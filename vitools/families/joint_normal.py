"""A normal distribution over a tensor in which some axes are correlated and the others are not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, constraints


class JointNormal(Distribution):
    """x of shape ``shape``, jointly normal along ``axes``, independent along the other axes.

    ``mean`` has shape [rest…, D] and ``covariance`` [rest…, D, D], where rest are the sizes of the
    other axes in order and D is the number of elements along ``axes``.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012
    support = constraints.real
    has_rsample = True

    def __init__(self, mean: Tensor, covariance: Tensor, shape: Sequence[int], axes: Sequence[int]):
        self.vector = MultivariateNormal(mean, covariance_matrix=covariance, validate_args=False)
        self._axes = tuple(axes)
        self._rest = tuple(i for i in range(len(shape)) if i not in self._axes)
        order = (*self._rest, *self._axes)
        self._layout = tuple(shape[i] for i in order)
        self._back = tuple(order.index(i) for i in range(len(shape)))
        self._order = order
        super().__init__(torch.Size(), torch.Size(shape), validate_args=False)

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
        density = self.vector.log_prob(self._to_vector(value))
        return density.sum(tuple(range(-len(self._rest), 0))) if self._rest else density

    def entropy(self) -> Tensor:
        return self.vector.entropy().sum()
