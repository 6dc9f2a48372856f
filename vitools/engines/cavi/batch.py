"""Several runs as one: their states stacked, and each move mapped over the stack.

The state of one run is a nest of tensors; that of R > 1 runs has the same tensors with a leading
axis of R. A move is written for one run, and ``torch.vmap`` makes it one for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

# Beyond this the arithmetic dominates, and the runs only push each other out of the cache.
BATCH_BYTES = 32 << 20


def together(states: Sequence[Any]) -> Any:
    """The states of several runs as one."""
    if len(states) == 1:
        return states[0]
    return tree_map(lambda *parts: torch.stack(parts), *states)


def one(state: Any, run: int, count: int) -> Any:
    """The state of one of ``count`` runs."""
    return state if count == 1 else tree_map(lambda x: x[run], state)


def some(state: Any, runs: Tensor, count: int) -> Any:
    """The states of those of ``count`` runs that a mask [R] names, at least one."""
    if bool(runs.all()):
        return state
    if int(runs.sum()) == 1:
        return one(state, int(runs.nonzero()), count)
    return tree_map(lambda x: x[runs], state)


def select(mask: Tensor, state: Any, other: Any) -> Any:
    """``state`` for the runs in the mask [R], ``other`` for the rest."""
    if bool(mask.all()):
        return state
    if not bool(mask.any()):
        return other

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(mask.reshape(-1, *[1] * (a.dim() - 1)), a, b)

    return tree_map(pick, state, other)


def each(count: int, move: Callable[..., Any], *arguments: Any) -> Any:
    """A move of ``count`` runs; numbers of runs are tensors [R], going in and coming out."""
    if count > 1:
        return torch.vmap(move)(*arguments)
    result = move(*(x.squeeze(0) if isinstance(x, Tensor) else x for x in arguments))
    if isinstance(result, tuple):
        return tuple(x.unsqueeze(0) if isinstance(x, Tensor) else x for x in result)
    return result.unsqueeze(0) if isinstance(result, Tensor) else result


def room(state: Any) -> int:
    """How many runs with a state of this size go well together."""
    size = sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(state))
    return max(1, BATCH_BYTES // max(1, size))
