"""Stable elementary functions for distributions whose samples crowd against 0 and 1.

Where one form does not serve every argument, each sees arguments clamped into its own region, so
that values *and* gradients stay finite (a NaN times the zero of ``torch.where`` is still a NaN).
They use few operations and hardly any ``torch.where``, which costs as much as two logarithms,
because guides call them in every step.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

EULER_GAMMA = 0.57721566490153286


_LEAST = -40.0  # log(1 - exp(-exp(s))) = s to the last digit below it
_FAR = 3.5  # 1 - exp(-x) = 1 to the last digit above exp of it
_STIRLING = 8.0  # log b above which four terms of the Stirling series are exact
_LARGEST = 40.0  # above it nothing changes but an overflow; squares of exp of it are finite


def _complement(s: Tensor) -> tuple[Tensor, Tensor]:
    """(c, d) with -log(1 - exp(-exp(s))) = c exp(-d).

    For x = e^s, -log(1 - e^{-x}) = log1p(1 / expm1(x)), one form that is accurate both for small
    and for large x. It is never less than -s, which stands in for it where x underflows; for large
    x, where expm1(x) would overflow, it falls as e^{-x}, and that factor is split off.
    """
    near = torch.exp(s.clamp(_LEAST, _FAR))
    complement = torch.maximum(torch.log1p(torch.expm1(near).reciprocal()), -s)
    return complement, torch.exp(s.clamp(max=_LARGEST)) - near


def log1mexp_exp(s: Tensor) -> Tensor:
    """log(1 - exp(-exp(s))), for every real s.

    With s = log(-log p) this is log(1 - p), accurate however close p is to 0 or 1.
    """
    complement, decay = _complement(s)
    return -complement * torch.exp(-decay)


def flip(s: Tensor) -> Tensor:
    """log(-log(1 - exp(-exp(s)))): an involution that takes log(-log p) to log(-log(1 - p))."""
    complement, decay = _complement(s)
    return torch.log(complement) - decay


def log_softplus(x: Tensor) -> Tensor:
    """log(log(1 + exp(x))), which tends to x as x → -∞; takes -logit p to log(-log p)."""
    return torch.where(x < _LEAST, x, torch.log(softplus(x.clamp(min=_LEAST), threshold=40.0)))


def logit_from_loglog(s: Tensor) -> Tensor:
    """logit v from log(-log v); undoes ``log_softplus(-logit v)``."""
    return -torch.exp(s.clamp(max=_LARGEST)) - log1mexp_exp(s)


def exp_below_overflow(x: Tensor) -> Tensor:
    """exp(x), never more than an absurd number whose square is finite in float32."""
    return torch.exp(x.clamp(max=_LARGEST))


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


def harmonic(log_b: Tensor) -> Tensor:
    """ψ(b + 1) + γ in float64, which is log b + γ for every large b."""
    log_b = log_b.double()
    moderate = log_b.clamp(max=37.0)
    return torch.digamma(torch.exp(moderate) + 1) + EULER_GAMMA + (log_b - moderate)


def log_gamma_ratio(log_b: Tensor, d: Tensor) -> Tensor:
    """log Γ(b + d) - log Γ(b) for d > 0, in float64.

    For large b the difference of two large log-gammas is that of their Stirling series, in which
    b log b cancels by hand.
    """
    b = torch.exp(log_b.clamp(max=_STIRLING))
    direct = torch.lgamma(b + d) - torch.lgamma(b)
    log_b = log_b.clamp(min=_STIRLING)
    share = torch.exp(torch.log(d) - log_b).clamp(min=1e-150)  # d / b, and its square a number
    log1p = torch.log1p(share)
    before = torch.exp(-log_b)
    after = before / (1 + share)
    series = (after - before) / 12 - (after.pow(3) - before.pow(3)) / 360
    series = series + d * log_b + d * (log1p / share - 1) + (d - 0.5) * log1p
    return torch.where(log_b > _STIRLING, series, direct)


def inverse_digamma(y: Tensor) -> Tensor:
    """ψ⁻¹ by Newton from Minka's start, five steps to 14 digits (T. Minka 2000)."""
    x = torch.where(y > -2.22, torch.exp(y.clamp(max=30.0)) + 0.5, -1 / (y + EULER_GAMMA))
    for _ in range(5):
        x = x - (torch.digamma(x) - y) / torch.polygamma(1, x)
    return x
