"""Jacobians of functions with few arguments and many values, by reverse mode twice.

u ↦ Jᵀu is linear, so the derivative of ⟨Jᵀu, v⟩ by u is J v: as many passes as there are arguments. torch's
forward mode does the same, but compiles its rules with a deprecated part of torch when it is first used.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp


def along(f: Callable[[Tensor], Any], at: Tensor, direction: Tensor) -> Any:
    """J v: how the values of ``f`` (a tensor or a tuple of them) change along a direction."""
    values, pull, *_ = vjp(f, at)
    flat = values if isinstance(values, tuple) else (values,)

    def pulled(*weights: Tensor) -> Tensor:
        return pull(weights if isinstance(values, tuple) else weights[0])[0]

    _, push, *_ = vjp(pulled, *map(torch.zeros_like, flat))
    moved = push(direction)
    return moved if isinstance(values, tuple) else moved[0]


def jacobian(f: Callable[[Tensor], Any], at: Tensor) -> Any:
    """∂f/∂at at ``[P]``: ``[*shape, P]`` for values ``[*shape]``, or a tuple of such."""
    basis = torch.eye(len(at), dtype=at.dtype)
    columns = [along(f, at, direction) for direction in basis]
    if isinstance(columns[0], tuple):
        return tuple(torch.stack(column, -1) for column in zip(*columns, strict=True))
    return torch.stack(columns, -1)
