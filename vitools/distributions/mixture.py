"""A finite mixture of any distributions of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    MixtureSameFamily,
    Normal,
    constraints,
)

_BISECTIONS = 200
_DIGITS = 4 * torch.finfo(torch.float64).eps


class Mixture(TorchDistribution):
    """Σ_k w_k q_k(x), the components of any kind.

    Unlike ``torch.distributions.MixtureSameFamily`` the components need not be one batch of one
    family: they may be densities on different parts of the line.

    Args:
        weights: ``[K]``, adding up to one.
        components: K distributions with one batch shape and one event shape.

    >>> half = Mixture(torch.tensor([0.5, 0.5]), [torch.distributions.Normal(m, 1.0) for m in (-1.0, 1.0)])
    >>> float(half.mean), float(half.variance)
    (0.0, 2.0)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"weights": constraints.simplex}
    has_rsample = False

    def __init__(
        self,
        weights: Tensor,
        components: Sequence[Distribution],
        validate_args: bool | None = None,
    ):
        self.weights, self.components = weights, tuple(components)
        first = self.components[0]
        super().__init__(first.batch_shape, first.event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """That of the components where they share one, else any number."""
        first, *rest = (str(component.support) for component in self.components)
        return self.components[0].support if all(s == first for s in rest) else constraints.real

    def expand(self, batch_shape: Any, _instance: Any = None) -> Mixture:
        parts = [component.expand(batch_shape) for component in self.components]
        return Mixture(self.weights, parts, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        pairs = zip(self.weights.log(), self.components, strict=True)
        return torch.stack([w + c.log_prob(value) for w, c in pairs]).logsumexp(0)

    def cdf(self, value: Tensor) -> Tensor:
        return self._average([component.cdf(value) for component in self.components])

    def icdf(self, value: Tensor) -> Tensor:
        """The root of the cdf, between the components' own quantiles, by bisection."""
        bounds = torch.stack([component.icdf(value) for component in self.components])
        low, high = bounds.amin(0), bounds.amax(0)
        for _ in range(_BISECTIONS):
            if bool((high - low <= _DIGITS * torch.maximum(low.abs(), high.abs())).all()):
                break
            middle = (low + high) / 2
            below = self.cdf(middle) < value
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def sample(self, sample_shape: Sequence[int] | torch.Size = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        with torch.no_grad():
            drawn = torch.stack([component.sample(shape) for component in self.components])
            lead = shape + self.batch_shape
            chosen = torch.multinomial(self.weights, max(1, lead.numel()), replacement=True)
            chosen = chosen[: lead.numel()].reshape(1, *lead, *(1,) * len(self.event_shape))
            return drawn.gather(0, chosen.expand(1, *drawn.shape[1:])).squeeze(0)

    @property
    def mean(self) -> Tensor:
        return self._average([component.mean for component in self.components])

    @property
    def variance(self) -> Tensor:
        mean = self.mean
        return self._average([c.variance + (c.mean - mean) ** 2 for c in self.components])

    def _average(self, values: Sequence[Tensor]) -> Tensor:
        pairs = zip(self.weights, values, strict=True)
        # what has no weight may be infinite
        return sum((w * v for w, v in pairs if w > 0), torch.zeros_like(values[0]))


class NormalMixture(MixtureSameFamily):
    """Σ_k p_k N(x | μ_k, σ_k²) for each element.

    Args:
        logits: […, K], log p up to a constant.
        loc: […, K].
        scale: […, K].
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = None
    ):
        self.logits, self.loc, self.scale = logits, loc, scale
        normal = Normal(loc, scale, validate_args=False)
        super().__init__(Categorical(logits=logits, validate_args=False), normal, False)
