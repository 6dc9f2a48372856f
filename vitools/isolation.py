"""Running user code without leaving a trace on global state.

Pyro models draw from torch's global generator and keep parameters in one global store;
both are borrowed here and handed back unchanged, whatever happens inside.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro.poutine.subsample_messenger import SubsampleMessenger

ParamState = dict[str, Any]
"""What ``pyro.get_param_store().get_state()`` returns: unconstrained tensors and constraints."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generators inside the block and restore them after it."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def isolated(params: ParamState | None = None) -> Iterator[ParamState]:
    """A private parameter store, no outer handlers, and no validation inside the block.

    Validation is off because it branches on values, which neither vmap nor graph
    tracing can follow; :class:`~vitools.problem.Problem` has validated once, by name.
    Yields the state of the store, filled in when the block ends.
    """
    state: ParamState = {"params": {}, "constraints": {}} if params is None else dict(params)
    with (
        pyro.get_param_store().scope(state) as inner,
        pyro.validation_enabled(False),
        pyro.poutine.block(),
    ):
        yield inner


@contextmanager
def full_plates() -> Iterator[None]:
    """Inside the block ``plate(..., subsample_size=B)`` spans all its N indices.

    Pyro offers no handler for the *size* of a subsample (a handler may only choose the
    indices), so the one function that decides it is replaced while the block runs.
    """
    original = SubsampleMessenger._subsample

    def whole(
        name: str,
        size: int | None = None,
        subsample_size: int | None = None,
        subsample: torch.Tensor | None = None,
        use_cuda: bool | None = None,
        device: str | None = None,
    ) -> Any:
        if subsample is None:
            subsample_size = None if size is not None else subsample_size
        return original(name, size, subsample_size, subsample, use_cuda, device)

    SubsampleMessenger._subsample = staticmethod(whole)  # type: ignore[method-assign]
    try:
        yield
    finally:
        SubsampleMessenger._subsample = staticmethod(original)  # type: ignore[method-assign]
