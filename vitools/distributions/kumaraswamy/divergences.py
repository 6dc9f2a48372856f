"""Divergences of a Kumaraswamy from a Beta and from another Kumaraswamy.

    KL(K ‖ Beta(α, β)) = -H - (α-1) E log v - (β-1) E log(1 - v) + log B(α, β)

The last expectation has no closed form (and its series is of no use): it is a quadrature.
Everything is in float64, because terms of the size of α nearly cancel.
"""

import torch
from torch import Tensor
from torch.distributions import Beta
from torch.distributions.kl import register_kl

from vitools.distributions.kumaraswamy.scalar import Kumaraswamy
from vitools.distributions.log_space import exp_below_overflow, flip


@register_kl(Kumaraswamy, Beta)
def _kl_kumaraswamy_beta(p: Kumaraswamy, q: Beta) -> Tensor:
    wide = _in_float64(p)
    alpha, beta = q.concentration1.double(), q.concentration0.double()
    log_normaliser = torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(alpha + beta)
    cross = (alpha - 1) * wide.mean_log + (beta - 1) * wide.mean_log1m - log_normaliser
    return (-wide.entropy() - cross).to(p.log_a.dtype)


@register_kl(Kumaraswamy, Kumaraswamy)
def _kl_kumaraswamy_kumaraswamy(p: Kumaraswamy, q: Kumaraswamy) -> Tensor:
    wide = _in_float64(p)
    log_a, log_b = q.log_a.double(), q.log_b.double()

    def scaled_complement(loglog_v: Tensor) -> Tensor:
        log_ratio = flip(log_a.unsqueeze(-1) + loglog_v)
        return exp_below_overflow(log_b.unsqueeze(-1) + log_ratio) - torch.exp(log_ratio)

    cross = log_a + log_b + torch.expm1(log_a) * wide.mean_log
    return (-wide.entropy() - cross + wide.expectation(scaled_complement)).to(p.log_a.dtype)


def _in_float64(q: Kumaraswamy) -> Kumaraswamy:
    return Kumaraswamy(q.log_a.double(), q.log_b.double(), validate_args=False)
