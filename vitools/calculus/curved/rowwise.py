"""Functions of independent rows that look at values, and still run many fits at once.

Where nodes are placed and when a search stops hangs on the numbers, which ``torch.vmap`` does not show. Rows
do not touch each other, though, so the rows of many runs are rows like any others: under vmap they are
laid one after another.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

OfRows = Callable[..., tuple[Tensor, ...]]
"""f(runs, *tensors [runs · N, …]) → tensors [runs · N, …]; row n of run r is number r N + n."""


def rowwise(function: OfRows, *tensors: Tensor) -> tuple[Tensor, ...]:
    """function(1, *tensors); under vmap once for the rows of all runs."""
    return _Rowwise.apply(function, 1, *tensors)


class _Rowwise(torch.autograd.Function):
    @staticmethod
    def forward(function: OfRows, runs: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(runs, *tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: OfRows, runs: int, *tensors: Tensor) -> Any:
        count = info.batch_size
        laid_out = [
            x.expand(count, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip(tensors, in_dims[2:], strict=True)
        ]
        found = _Rowwise.apply(function, runs * count, *(x.flatten(0, 1) for x in laid_out))
        return tuple(x.unflatten(0, (count, -1)) for x in found), (0,) * len(found)
