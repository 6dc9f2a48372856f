"""The processes of one run, by torch.distributed: sums over them, and words in which one is missed.

All of them come to the same calls in the same order. What they decide on is what they were all handed, so
that they decide alike. On a backend of CPUs (gloo) tensors travel as they are; on NCCL, which is untried,
through the current GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vitools.errors import NotSupportedError, OptionError, ProcessError, VitoolsError, first_words

T = TypeVar("T")


class Ranks:
    """The processes of torch.distributed's default group.

    Attributes:
        rank: the number of this one.
        size: how many there are.
    """

    def __init__(self) -> None:
        if not dist.is_available():
            raise NotSupportedError(
                "sharded: this build of torch has no torch.distributed. Install one that has, or leave "
                "sharded out."
            )
        if not dist.is_initialized():
            raise OptionError(
                "sharded: no group of processes has been made. Call "
                "torch.distributed.init_process_group('gloo') in each process of `torchrun "
                "--nproc-per-node 2 script.py`, or leave sharded out."
            )
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        cuda = dist.get_backend() == "nccl"
        self._device = torch.device("cuda", torch.cuda.current_device()) if cuda else None

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum of each tensor over all processes, in one message of float64."""
        return self._reduced(tensors, dist.ReduceOp.SUM)

    def largest(self, tensor: Tensor) -> Tensor:
        """The largest of each number over all processes."""
        return self._reduced([tensor], dist.ReduceOp.MAX)[0]

    def _reduced(self, tensors: Sequence[Tensor], operation: Any) -> list[Tensor]:
        parts = [x.detach().reshape(-1).double() for x in tensors]
        whole = torch.cat(parts).to(self._device or parts[0].device)
        with self._answered():
            dist.all_reduce(whole, operation)
        whole = whole.to(tensors[0].device)
        pieces = whole.split([len(part) for part in parts])
        return [
            piece.reshape(x.shape).to(x.dtype) for piece, x in zip(pieces, tensors, strict=True)
        ]

    def gathered(self, thing: T) -> list[T]:
        """What every process has, by its number."""
        found: list[Any] = [None] * self.size
        with self._answered():
            dist.all_gather_object(found, thing)
        return found

    def of_first(self, thing: T) -> T:
        """What the first process has."""
        held: list[Any] = [thing if self.rank == 0 else None]
        with self._answered():
            dist.broadcast_object_list(held, src=0)
        return held[0]

    def each(self, make: Callable[[], T]) -> T:
        """What a process makes by itself; where one of them cannot, all raise its error."""
        made: list[T] = []
        mine: VitoolsError | None = None
        try:
            made.append(make())
        except VitoolsError as error:
            mine = error
        told = self.gathered(None if mine is None else (type(mine), str(mine)))
        if mine is not None:
            mine.is_common = True
            raise mine
        for rank, other in enumerate(told):
            if other is not None:
                kind, words = other
                theirs = kind(f"on rank {rank} of {self.size}: {words}")
                theirs.is_common = True
                raise theirs
        return made[0]

    @contextmanager
    def _answered(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # a connection that broke, or a wait beyond the timeout
            raise ProcessError(
                f"sharded: another of the {self.size} processes has ended or does not answer "
                f"({_reason(error)}); rank {self.rank} cannot go on without it. What it printed last "
                "says why. Start all of them again: with checkpoint= and resume=True they go on from the "
                "last state, on any number of processes."
            ) from error


def _reason(error: RuntimeError) -> str:
    """What the backend says, without the place in its source and the advice that follows."""
    return first_words(error).partition("] ")[2].partition(". ")[0] or first_words(error)
