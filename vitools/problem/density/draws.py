"""Random draws under ``torch.vmap``: each mapped call gets its own.

Most samplers of torch.distributions fill a new tensor in place, ``torch.empty(shape).normal_()``,
or call an old-style autograd function; vmap refuses both. Inside :func:`vmap_can_draw` the
first fill a tensor that vmap knows, the second are called without autograd.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributions import dirichlet
from torch.overrides import TorchFunctionMode

_FILLS = (
    Tensor.normal_,
    Tensor.uniform_,
    Tensor.exponential_,
    Tensor.cauchy_,
    Tensor.geometric_,
    Tensor.log_normal_,
)


class _FreshFills(TorchFunctionMode):
    """``x.normal_()`` on a tensor of no particular draw returns a new one, drawn for each."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.binomial:  # vmap would resize the one that all draws share, with a warning
            count, prob, *rest = args
            zero = torch.zeros_like(count) + torch.zeros_like(prob)
            return func(count + zero, prob + zero, *rest, **(kwargs or {}))
        if func not in _FILLS or torch._C._functorch.is_batchedtensor(args[0]):
            return func(*args, **(kwargs or {}))
        target, *options = args
        fresh = torch.rand(target.shape, dtype=target.dtype, device=target.device)
        target.fill_(torch.nan)  # whoever keeps the old tensor must not take it for a draw
        return func(fresh, *options, **(kwargs or {}))


class _SampleDirichlet:
    """Stands in for torch's autograd function where no gradient is wanted."""

    apply = staticmethod(torch._sample_dirichlet)


@contextmanager
def vmap_can_draw() -> Iterator[None]:
    """Inside the block torch's samplers may be mapped; only for draws without gradients."""
    original = dirichlet._Dirichlet
    dirichlet._Dirichlet = _SampleDirichlet  # type: ignore[assignment, misc]
    try:
        with _FreshFills():
            yield
    finally:
        dirichlet._Dirichlet = original  # type: ignore[misc]
