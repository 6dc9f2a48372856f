"""The Concrete (Gumbel-softmax) distribution: a smooth stand-in for a categorical draw.

    θ = softmax((log p + g) / τ),  g_k ~ Gumbel(0, 1)
    log q(θ) = log (K-1)! + (K-1) log τ + Σ_k (ℓ_k - (τ+1) log θ_k) - K log Σ_k e^{ℓ_k - τ log θ_k}

C. Maddison, A. Mnih, Y. W. Teh (2017) and E. Jang, S. Gu, B. Poole (2017).
"""

import math
from typing import ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from vitools.distributions.last_draw import LastDraw
from vitools.distributions.log_space import standard_exponential


class Concrete(TorchDistribution):
    """Concrete with temperature τ (``batch``) and class ``logits`` ℓ (``batch + (K,)``).

    **Biased as a categorical.** At τ > 0 a bound that puts θ where the model has a one-hot draw
    is the bound of another, relaxed model, not of the discrete one; as τ → 0 the bias goes and
    the variance of the gradient grows without limit. Where the discrete variable can be summed
    out, as every enumerable site is here, do that.

    Unlike torch's ``RelaxedOneHotCategorical`` its draws are scored in log-space, so that low
    temperatures stay finite, and follow ``torch.vmap``.

    >>> Concrete(torch.tensor(0.5), torch.zeros(3)).log_prob(torch.tensor([0.2, 0.3, 0.5])).exp()
    tensor(0.5860)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "temperature": constraints.positive,
        "logits": constraints.real_vector,
    }
    support = constraints.simplex
    has_rsample = True

    def __init__(self, temperature: Tensor, logits: Tensor, validate_args: bool | None = None):
        batch_shape = torch.broadcast_shapes(temperature.shape, logits.shape[:-1])
        self.temperature = temperature.expand(batch_shape)
        self.logits = logits.expand(batch_shape + logits.shape[-1:])
        self._last_draw: LastDraw | None = None
        super().__init__(batch_shape, logits.shape[-1:], validate_args)

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(Concrete, _instance)
        batch_shape = torch.Size(batch_shape)
        new.temperature = self.temperature.expand(batch_shape)
        new.logits = self.logits.expand(batch_shape + self.event_shape)
        new._last_draw = None
        TorchDistribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(sample_shape)
        gumbel = -torch.log(standard_exponential(shape, self.logits))
        log_value = torch.log_softmax((self.logits + gumbel) / self.temperature.unsqueeze(-1), -1)
        value = torch.exp(log_value).clamp(min=torch.finfo(log_value.dtype).tiny)
        self._last_draw = LastDraw(value, log_value)
        return value

    def log_prob_log(self, log_value: Tensor) -> Tensor:
        """log q(θ) (a density on the simplex) at the point whose logarithm is given."""
        temperature = self.temperature.unsqueeze(-1)
        size = self.event_shape[0]
        tilted = self.logits - temperature * log_value
        constant = math.lgamma(size) + (size - 1) * self.temperature.log()
        return constant + (tilted - log_value).sum(-1) - size * tilted.logsumexp(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(θ). The last draw of this very object is scored at the log θ it was made from."""
        if self._last_draw is not None and self._last_draw.value is value:
            return self._last_draw.score(self.log_prob_log)
        if self._validate_args:
            self._validate_sample(value)
        return self.log_prob_log(torch.log(value.clamp(min=torch.finfo(value.dtype).tiny)))
