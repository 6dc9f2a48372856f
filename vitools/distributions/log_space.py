"""Stable elementary functions for distributions whose samples crowd against 0 and 1.

Each switches between forms that are accurate in their own region. Branches that would be infinite
outside their region see arguments clamped into it, so that values *and* gradients stay finite where
a branch is not taken (a NaN times the zero of ``torch.where`` is still a NaN). They use few
operations, because guides call them in every step.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

_LOWEST = -80.0  # exp of it is a normal float32, and below it log(1 + exp(x)) = exp(x) exactly
_LARGEST = 80.0
_LOG_2 = math.log(2.0)
EULER_GAMMA = 0.57721566490153286


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(-x)) for x in (0, ∞)."""
    near_zero = torch.log(-torch.expm1(-x))
    elsewhere = torch.log1p(-torch.exp(-x.clamp(min=0.5)))
    return torch.where(x < _LOG_2, near_zero, elsewhere)


def log1mexp_exp(s: Tensor) -> Tensor:
    """log(1 - exp(-exp(s))), for every real s.

    With s = log(-log p) this is log(1 - p), accurate however close p is to 0 or 1.
    """
    return torch.where(s < _LOWEST, s, _log1mexp(torch.exp(s.clamp(_LOWEST, _LARGEST))))


def flip(s: Tensor) -> Tensor:
    """log(-log(1 - exp(-exp(s)))): an involution that takes log(-log p) to log(-log(1 - p))."""
    x = torch.exp(s.clamp(_LOWEST, _LARGEST))
    far = x > 40.0  # there log(1 - exp(-x)) = -exp(-x) to the last digit, and underflows soon
    log_complement = torch.where(s < _LOWEST, s, _log1mexp(x.clamp(max=40.0)))
    return torch.where(far, -x, torch.log(-log_complement))


def log_softplus(x: Tensor) -> Tensor:
    """log(log(1 + exp(x))), which tends to x as x → -∞; takes -logit p to log(-log p)."""
    return torch.where(x < _LOWEST, x, torch.log(softplus(x.clamp(min=_LOWEST), threshold=40.0)))


def logit_from_loglog(s: Tensor) -> Tensor:
    """logit v from log(-log v); undoes ``log_softplus(-logit v)``."""
    return -torch.exp(s.clamp(max=_LARGEST)) - log1mexp_exp(s)


def into_unit_interval(value: Tensor) -> Tensor:
    """The nearest numbers of this dtype strictly inside (0, 1)."""
    info = torch.finfo(value.dtype)
    return value.clamp(info.tiny, 1.0 - info.eps / 2)


def logit(value: Tensor) -> Tensor:
    """log(v / (1 - v)), with v = 0 and v = 1 read as the nearest numbers inside (0, 1)."""
    value = into_unit_interval(value)
    return torch.log(value) - torch.log1p(-value)


def log_and_log1m(logit: Tensor) -> tuple[Tensor, Tensor]:
    """(log v, log(1 - v)) of v = sigmoid(logit), neither lost when v is next to 0 or 1."""
    return logsigmoid(logit), logsigmoid(-logit)


def standard_exponential(shape: torch.Size, like: Tensor) -> Tensor:
    """Draws of Exp(1), with the dtype and device of ``like``, never 0.

    Uniforms are drawn in float64: a float32 uniform has 24 bits, so one draw in 10⁷ would be 0,
    where the log-space coordinate is infinite, and both tails would be coarse.
    """
    uniform = torch.rand(shape, dtype=torch.float64, device=like.device)
    return -torch.log1p(-uniform.clamp(min=2.0**-54)).to(like.dtype)


def inverse_digamma(y: Tensor) -> Tensor:
    """ψ⁻¹ by Newton from Minka's start, five steps to 14 digits (T. Minka 2000)."""
    x = torch.where(y > -2.22, torch.exp(y.clamp(max=30.0)) + 0.5, -1 / (y + EULER_GAMMA))
    for _ in range(5):
        x = x - (torch.digamma(x) - y) / torch.polygamma(1, x)
    return x
