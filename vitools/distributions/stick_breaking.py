"""A distribution on the simplex from the sticks of any family on (0, 1).

    π_k = v_k ∏_{j<k} (1 - v_j),  k < K;     π_K = ∏_{j<K} (1 - v_j)
    log p(π) = Σ_{k<K} log q_k(v_k) - Σ_{k<K} (K-1-k) log(1 - v_k)

Beta sticks v_k ~ Beta(α_k, Σ_{j>k} α_j) give the Dirichlet (Connor and Mosimann 1969), so the KL
to a Dirichlet is the sum of the sticks' KLs. Kumaraswamy sticks give a family with an elementary
reparameterisation (Nalisnick and Smyth 2017, "Stick-breaking variational autoencoders").
Sums run over log v and log(1 - v): 1 - Σπ would lose every small remainder.
"""

from typing import ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import Beta, Dirichlet, Distribution, constraints
from torch.distributions.kl import kl_divergence, register_kl

from vitools.distributions.kumaraswamy import Kumaraswamy
from vitools.distributions.last_draw import LastDraw
from vitools.distributions.log_space import log_and_log1m, logit


class StickBreaking(TorchDistribution):
    """The law of π when the K - 1 sticks are independent draws of ``sticks``.

    Args:
        sticks: a univariate reparameterised distribution on (0, 1) of batch shape
            ``batch + (K-1,)``. Families that draw and score in log-space (``rsample_log`` and
            ``log_prob_logit``, as :class:`Kumaraswamy`) are never rounded to 0 or 1.

    Batch shape ``batch``, event shape ``(K,)``.

    >>> sticks = Kumaraswamy.from_concentrations(torch.ones(2), torch.tensor([2.0, 1.0]))
    >>> StickBreaking(sticks).mean
    tensor([0.3333, 0.3333, 0.3333])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, sticks: Distribution, validate_args: bool | None = None):
        self.sticks = sticks
        self._last_draw: LastDraw | None = None
        *batch_shape, count = sticks.batch_shape
        super().__init__(torch.Size(batch_shape), torch.Size([count + 1]), validate_args)

    @classmethod
    def kumaraswamy(cls, log_a: Tensor, log_b: Tensor) -> "StickBreaking":
        """Kumaraswamy sticks with parameters of shape ``batch + (K-1,)``.

        Args:
            log_a: log a of each stick.
            log_b: log b of each stick.
        """
        return cls(Kumaraswamy(log_a, log_b, validate_args=False), validate_args=False)

    @classmethod
    def closest_to(cls, dirichlet: Dirichlet) -> tuple["StickBreaking", Tensor]:
        """The Kumaraswamy sticks of least KL to a Dirichlet, and that KL (one per batch entry).

        Args:
            dirichlet: the distribution to come close to.
        """
        sticks, divergence = Kumaraswamy.closest_to(dirichlet_sticks(dirichlet.concentration))
        return cls(sticks), divergence.sum(-1)

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(StickBreaking, _instance)
        batch_shape = torch.Size(batch_shape)
        new.sticks = self.sticks.expand(batch_shape + self.sticks.batch_shape[-1:])
        new._last_draw = None
        TorchDistribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _rsample_sticks(self, sample_shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
        """(log v, log(1 - v), log q(v)) of reparameterised sticks."""
        if hasattr(self.sticks, "rsample_log"):
            return self.sticks.rsample_log(sample_shape)
        sticks = self.sticks.rsample(sample_shape)
        return *log_and_log1m(logit(sticks)), self.sticks.log_prob(sticks)

    def log_prob_logit(self, stick_logits: Tensor) -> Tensor:
        """log p(π) at the simplex point whose sticks have these logits.

        Args:
            stick_logits: logit v of each stick, ``batch + (K-1,)``.
        """
        if hasattr(self.sticks, "log_prob_logit"):
            log_density = self.sticks.log_prob_logit(stick_logits)
        else:
            log_density = self.sticks.log_prob(torch.sigmoid(stick_logits))
        _, log1m = log_and_log1m(stick_logits)
        return (log_density - _times_later_sticks(log1m)).sum(-1)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        log_v, log1m, log_density = self._rsample_sticks(sample_shape)
        log_density = (log_density - _times_later_sticks(log1m)).sum(-1)
        value = simplex_from_sticks(log_v, log1m)
        self._last_draw = LastDraw(value, log_v - log1m, log_density)
        return value

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(π). The last draw of this very object is scored at the sticks it was made from."""
        if self._last_draw is not None and self._last_draw.value is value:
            return self._last_draw.score(self.log_prob_logit)
        if self._validate_args:
            self._validate_sample(value)
        return self.log_prob_logit(logits_from_simplex(value))

    @property
    def mean(self) -> Tensor:
        return _stick_product(self.sticks.mean, 1 - self.sticks.mean)

    @property
    def variance(self) -> Tensor:
        mean, variance = self.sticks.mean, self.sticks.variance
        second = _stick_product(mean.square() + variance, (1 - mean).square() + variance)
        return (second - self.mean.square()).clamp(min=0.0)

    def entropy(self) -> Tensor:
        """Σ H(q_k) + Σ (K-1-k) E log(1 - v_k); Beta and Kumaraswamy sticks only."""
        jacobian = _times_later_sticks(_mean_log1m(self.sticks)).sum(-1)
        return self.sticks.entropy().sum(-1) + jacobian


def simplex_from_sticks(log_v: Tensor, log1m: Tensor) -> Tensor:
    """π from the sticks' log v and log(1 - v), entries kept above the smallest normal number."""
    left = torch.cumsum(log1m, -1)
    before = torch.nn.functional.pad(left[..., :-1], (1, 0))
    log_value = torch.cat([log_v + before, left[..., -1:]], -1)
    return torch.exp(log_value).clamp(min=torch.finfo(log_value.dtype).tiny)


def logits_from_simplex(value: Tensor) -> Tensor:
    """logit v_k = log π_k - log Σ_{j>k} π_j: ratios, so nothing is lost next to 0 or 1."""
    value = value.clamp(min=torch.finfo(value.dtype).tiny)
    remainder = value.flip(-1).cumsum(-1).flip(-1)
    return torch.log(value[..., :-1]) - torch.log(remainder[..., 1:])


def dirichlet_sticks(concentration: Tensor) -> Beta:
    """The sticks of Dirichlet(α): Beta(α_k, Σ_{j>k} α_j), batch shape ``batch + (K-1,)``."""
    remainder = concentration.flip(-1).cumsum(-1).flip(-1)
    return Beta(concentration[..., :-1], remainder[..., 1:], validate_args=False)


def _times_later_sticks(x: Tensor) -> Tensor:
    """x_k (K-1-k), k = 1 … K-1: the number of sticks broken off what stick k leaves."""
    return x * torch.arange(x.shape[-1] - 1, -1, -1, device=x.device)


def _stick_product(kept: Tensor, left: Tensor) -> Tensor:
    """kept_k ∏_{j<k} left_j, and ∏ left_j for the last entry."""
    product = torch.cumprod(left, -1)
    before = torch.nn.functional.pad(product[..., :-1], (1, 0), value=1.0)
    return torch.cat([kept * before, product[..., -1:]], -1)


def _mean_log1m(sticks: Distribution) -> Tensor:
    if isinstance(sticks, Beta):
        alpha, beta = sticks.concentration1, sticks.concentration0
        return torch.digamma(beta) - torch.digamma(alpha + beta)
    if isinstance(sticks, Kumaraswamy):
        return sticks.mean_log1m
    raise NotImplementedError(f"no closed form of E log(1 - v) for {type(sticks).__name__} sticks")


@register_kl(StickBreaking, StickBreaking)
def _kl_stick_breaking(p: StickBreaking, q: StickBreaking) -> Tensor:
    """The change of variables is the same on both sides, so the KL is that of the sticks."""
    return kl_divergence(p.sticks, q.sticks).sum(-1)


@register_kl(StickBreaking, Dirichlet)
def _kl_stick_breaking_dirichlet(p: StickBreaking, q: Dirichlet) -> Tensor:
    return kl_divergence(p.sticks, dirichlet_sticks(q.concentration)).sum(-1)
