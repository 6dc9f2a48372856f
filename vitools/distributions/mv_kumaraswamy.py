"""The multivariate Kumaraswamy: stick-breaking in a random order.

    o uniform over the K! orders;  v_{o_i} ~ K(α_{o_i}, Σ_{j>i} α_{o_j}),  i < K;
    π_{o_i} = v_{o_i} ∏_{j<i} (1 - v_{o_j})

Sticks of one fixed order treat the entries of the simplex unequally; averaging over orders is
exchangeable, and equals the Dirichlet where the Kumaraswamy is a Beta. The density

    q(π) = (1/K!) Σ_o q(π | o)

has K! terms, exact here up to K = 6. Beyond, a draw is scored by log q(π | o) at its own order,
which makes the evidence bound smaller by E KL(q(o | π) ‖ uniform): still a bound.

A. Stirn, T. Jebara, D. Knowles (2019), "A new distribution on the simplex with auto-encoding
applications", NeurIPS.
"""

import math
from itertools import permutations
from typing import ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from vitools.distributions.last_draw import LastDraw
from vitools.distributions.stick_breaking import StickBreaking, logits_from_simplex

LARGEST_EXACT = 6


class MVKumaraswamy(TorchDistribution):
    """MV-Kumaraswamy with log α = ``log_concentration``, ``batch + (K,)``.

    Batch shape ``batch``, event shape ``(K,)``.

    >>> q = MVKumaraswamy(torch.zeros(3))
    >>> q.log_prob(torch.tensor([0.2, 0.3, 0.5])).exp()
    tensor(2.)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "log_concentration": constraints.real_vector
    }
    support = constraints.simplex
    has_rsample = True

    def __init__(self, log_concentration: Tensor, validate_args: bool | None = None):
        self.log_concentration = log_concentration
        self._last_draw: LastDraw | None = None
        super().__init__(log_concentration.shape[:-1], log_concentration.shape[-1:], validate_args)

    @property
    def concentration(self) -> Tensor:
        """α."""
        return self.log_concentration.exp()

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(MVKumaraswamy, _instance)
        batch_shape = torch.Size(batch_shape)
        new.log_concentration = self.log_concentration.expand(batch_shape + self.event_shape)
        new._last_draw = None
        TorchDistribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def given_order(self, order: Tensor) -> StickBreaking:
        """The law of (π_{o_1}, …, π_{o_K}) for orders o, integers of shape ``… + batch + (K,)``.

        Args:
            order: the o.
        """
        return _sticks(self.log_concentration.expand(order.shape).gather(-1, order))

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(sample_shape)
        order = torch.rand(shape, device=self.log_concentration.device).argsort(-1)
        given_order = self.given_order(order)
        ordered = given_order.rsample()
        value = ordered.gather(-1, order.argsort(-1))
        self._last_draw = LastDraw(value, order, lambda: given_order.log_prob(ordered))
        return value

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(π) for K ≤ 6; beyond, log q(π | o) of this object's own last draw."""
        if self.event_shape[0] <= LARGEST_EXACT:
            return self._log_prob_over_orders(value)
        if self._last_draw is not None and self._last_draw.value is value:
            return self._last_draw.score(lambda order: self.log_prob_given_order(value, order))
        raise NotImplementedError(
            f"the density averages over {self.event_shape[0]}! orders: it is exact for "
            f"K ≤ {LARGEST_EXACT}; use log_prob_given_order for a bound"
        )

    def log_prob_given_order(self, value: Tensor, order: Tensor) -> Tensor:
        """log q(π | o), whose mean over draws of (o, π) is at least that of log q(π).

        Args:
            order: o, as of :meth:`given_order`.
        """
        ordered = value.gather(-1, order.expand(value.shape))
        return self.given_order(order).log_prob_logit(logits_from_simplex(ordered))

    def _log_prob_over_orders(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        size = self.event_shape[0]
        orders = torch.tensor(list(permutations(range(size))), device=value.device)
        each = _sticks(self.log_concentration[..., orders])  # batch + (K!, K)
        terms = each.log_prob_logit(logits_from_simplex(value[..., orders]))
        return terms.logsumexp(-1) - math.lgamma(size + 1)


def _sticks(ordered_log_alpha: Tensor) -> StickBreaking:
    """Kumaraswamy sticks K(α_i, Σ_{j>i} α_j) along the last dim."""
    remainder = ordered_log_alpha.flip(-1).logcumsumexp(-1).flip(-1)
    return StickBreaking.kumaraswamy(ordered_log_alpha[..., :-1], remainder[..., 1:])
