"""Densities that ``torch.vmap`` refuses as torch and Pyro write them, written so that it does not."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro.distributions import Categorical, OrderedLogistic
from pyro.ops import special
from torch import Tensor
from torch.distributions import Multinomial


class _SafeLog(torch.autograd.Function):
    """Pyro's logarithm whose gradient at 0 is finite: an autograd function of the new style."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.log()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad / x.clamp(min=torch.finfo(x.dtype).eps)


def _multinomial_log_prob(self: Multinomial, value: Tensor) -> Tensor:
    """torch's, with 0 log 0 = 0 by a choice instead of an assignment to some entries."""
    if self._validate_args:
        self._validate_sample(value)
    never = (value == 0) & (self.logits == -torch.inf)
    powers = torch.where(never, 0.0, self.logits).mul(value).sum(-1)
    return torch.lgamma(value.sum(-1) + 1) - torch.lgamma(value + 1).sum(-1) + powers


def _ordered_logistic(
    self: OrderedLogistic, predictor: Tensor, cutpoints: Tensor, validate_args: bool | None = None
) -> None:
    """Pyro's constructor, the masses joined instead of assigned."""
    below = torch.sigmoid(cutpoints - predictor.unsqueeze(-1))
    self.predictor = predictor.expand(below.shape[:-1])
    self.cutpoints = cutpoints.expand(below.shape)
    masses = torch.cat([below[..., :1], below.diff(dim=-1), 1 - below[..., -1:]], -1)
    Categorical.__init__(self, masses, validate_args=validate_args)


@contextmanager
def mappable_densities() -> Iterator[None]:
    """Inside the block vmap takes ``Multinomial``, ``OrderedLogistic`` and what uses ``safe_log``, as ``DiscreteHMM``."""
    log, log_prob, ordered = special._SafeLog, Multinomial.log_prob, OrderedLogistic.__init__
    special._SafeLog = _SafeLog
    Multinomial.log_prob = _multinomial_log_prob  # type: ignore[method-assign]
    OrderedLogistic.__init__ = _ordered_logistic
    try:
        yield
    finally:
        OrderedLogistic.__init__ = ordered
        special._SafeLog = log
        Multinomial.log_prob = log_prob  # type: ignore[method-assign]
