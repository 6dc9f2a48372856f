"""Two scalars given by log q at the nodes of a grid: a free-form density, and one given the other.

    q(a, b) = q(a) q(b | a)

Both are :class:`~vitools.distributions.free_form.FreeForm`: q(a) of the sums over the nodes of b, q(b | a) of
the values that the polynomial along a has at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vitools.distributions.free_form.free_form import FreeForm
from vitools.distributions.free_form.nodes import Nodes, gently, stencil

AT_ONCE = 1 << 12
"""Draws whose conditional densities are held in memory together."""


class FreeFormPair(Distribution):
    """Values of a for every element of a batch, then those of b: ``[2 B]``.

    Args:
        log_density: in the coordinates of both, up to a constant, ``[B, K, L]``.
        lower, upper: bounds of a and b, ``[2, B]``, infinite where there is none.
        first, step: coordinates of the first node of each, and the steps, ``[2, B]``.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(
        self,
        log_density: Tensor,
        lower: Tensor,
        upper: Tensor,
        first: Tensor,
        step: Tensor,
        validate_args: bool | None = None,
    ):
        self.log_density, self._gentle = log_density, gently(log_density, (-2, -1))
        self.lower, self.upper, self.first, self.step = lower, upper, first, step
        self.nodes = [
            Nodes(lower[i], upper[i], first[i], step[i], log_density.shape[1 + i]) for i in (0, 1)
        ]
        self.marginals: list[FreeForm] = [
            self.nodes[i].density(log_density.logsumexp(2 - i)) for i in (0, 1)
        ]
        super().__init__(torch.Size(), torch.Size([2 * first.shape[1]]), validate_args=False)

    @staticmethod
    def of_nodes(a: Nodes, b: Nodes, log_density: Tensor) -> FreeFormPair:
        """Of elements of any batch, one after another."""
        size = a.first.numel()
        lower, upper, first, step = (
            torch.stack([getattr(x, name).expand(a.first.shape).reshape(size) for x in (a, b)])
            for name in ("lower", "upper", "first", "step")
        )
        return FreeFormPair(log_density.reshape(size, a.count, b.count), lower, upper, first, step)

    def given_first(self, a: Tensor) -> FreeForm:
        """q(b | a) for values ``[n, B]``."""
        nodes, other = self.nodes
        coordinate = nodes.line.coordinate(a.T).T
        place = ((coordinate - nodes.first) / nodes.step).clamp(0, nodes.count - 1)
        start, weights = stencil(place.reshape(-1), nodes.count)
        near = (start.unsqueeze(-1) + torch.arange(weights.shape[-1])).reshape(*place.shape, -1)
        element = torch.arange(place.shape[1]).reshape(-1, 1)
        weights = weights.reshape(near.shape)
        inside = (self._gentle[element, near] * weights.unsqueeze(-1)).sum(-2)
        lower, upper, first, step = (
            x.expand(a.shape) for x in (other.lower, other.upper, other.first, other.step)
        )
        return Nodes(lower, upper, first, step, other.count).density(inside)

    @property
    def mean(self) -> Tensor:
        return torch.cat([marginal.mean for marginal in self.marginals])

    @property
    def variance(self) -> Tensor:
        return torch.cat([marginal.variance for marginal in self.marginals])

    def sample(self, sample_shape: Sequence[int] | torch.Size = ()) -> Tensor:
        with torch.no_grad():
            a = self.marginals[0].sample(torch.Size([torch.Size(sample_shape).numel()]))
            b = torch.cat([self.given_first(part).sample() for part in a.split(AT_ONCE)])
            return torch.cat([a, b], -1).reshape(*sample_shape, -1)

    def log_prob(self, value: Tensor) -> Tensor:
        a, b = value.reshape(-1, 2, value.shape[-1] // 2).double().unbind(1)
        parts = zip(a.split(AT_ONCE), b.split(AT_ONCE), strict=True)
        found = self.marginals[0].log_prob(a)
        found = found + torch.cat([self.given_first(x).log_prob(y) for x, y in parts])
        return found.sum(-1).reshape(value.shape[:-1])
