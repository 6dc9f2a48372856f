"""A density that is 0 beyond its ends, whatever its formula gives there.

torch's formulas hold on the support and are not looked at elsewhere: log Pareto(y | m, a) =
log a + a log m - (a + 1) log y is finite at y < m, and so is an exponential's below its shift. With
fixed ends and checked data nobody sees that; ends that move with a latent make the data impossible
at some of its values, and a finite density there is a wrong answer. Here

    log p(y) = formula(y) where least ≤ y ≤ most,   -∞ elsewhere,

and the formula is given another value where y is beyond, so that no NaN of it reaches a gradient.
"""

from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Size, Tensor


class WithinEnds(TorchDistribution):
    """``base_dist``, of scalars or of independent entries, with density 0 beyond its ends.

    Args:
        least, most: the ends of each entry, which broadcast with ``batch_shape + event_shape``;
            infinite or NaN for none.
        is_lattice: whether the values are whole numbers.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, base_dist: Any, least: Tensor, most: Tensor, is_lattice: bool) -> None:
        self.base_dist, self.is_lattice = base_dist, is_lattice
        self.least, self.most = least.detach(), most.detach()
        super().__init__(base_dist.batch_shape, base_dist.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:
        return bool(self.base_dist.has_rsample)

    @property
    def has_enumerate_support(self) -> bool:
        return bool(self.base_dist.has_enumerate_support)

    @property
    def support(self) -> Any:
        return self.base_dist.support

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        return self.base_dist.rsample(sample_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "WithinEnds":
        base = self.base_dist.expand(Size(batch_shape))
        return WithinEnds(base, self.least, self.most, self.is_lattice)

    def log_prob(self, value: Tensor) -> Tensor:
        is_beyond = (value < self.least) | (value > self.most)
        safe = torch.where(is_beyond, self._inner().to(value.dtype), value)
        log_prob = self.base_dist.log_prob(safe)
        for _ in range(self.event_dim):
            is_beyond = is_beyond.any(-1)
        return torch.where(is_beyond, -torch.inf, log_prob)

    def _inner(self) -> Tensor:
        """A value between the ends."""
        least, most = self.least, self.most
        one_sided = torch.where(least.isfinite(), least + 1 + least.abs(), most - 1 - most.abs())
        inner = torch.where(least.isfinite() & most.isfinite(), (least + most) / 2, one_sided)
        return inner.floor() if self.is_lattice else inner
