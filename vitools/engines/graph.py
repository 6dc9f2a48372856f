"""A Python function of tensors, recorded once as a graph of aten operations.

Running the graph skips Pyro's handlers, which cost more than the arithmetic of a small
model. The function must take the same path on every call; what cannot be recorded is
run as it is.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from vitools.errors import VitoolsWarning
from vitools.isolation import seeded


def record(function: Callable[..., Any], example: tuple[Tensor, ...], subject: str) -> Any:
    """``function`` as a recorded graph, checked against it at ``example``; or ``function`` itself.

    Random operations inside are recorded as operations, so each call draws afresh.

    Args:
        subject: names the function in the notice given when it cannot be recorded.
    """
    try:
        graph = make_fx(function)(*example)
        with seeded(0):
            expected = function(*example)
        with seeded(0):
            got = graph(*example)
    except Exception as reason:  # tracing fails in as many ways as there are models
        notice(subject, reason)
        return function
    pairs = zip(_leaves(expected), _leaves(got), strict=True)
    if not all(torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True) for a, b in pairs):
        notice(subject, ValueError("the recording gives other numbers than the model"))
        return function
    return graph


def _leaves(tree: Any) -> list[Tensor]:
    return [leaf.detach() for leaf in torch.utils._pytree.tree_leaves(tree)]


def notice(subject: str, reason: Exception) -> None:
    """Say once that something runs as it is, and why."""
    words = str(reason).splitlines()[0] if str(reason) else type(reason).__name__
    warnings.warn(
        f"{subject} cannot be recorded as a graph and runs step by step in Python "
        f"(slower, same numbers): {words}",
        VitoolsWarning,
        stacklevel=4,
    )
