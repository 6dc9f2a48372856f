"""Values of :mod:`vitools.graphs.loops`: strided looks at buffers, and expressions of them in C."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from vitools.graphs.loops.operations import TYPES


class NotInLoops(NotImplementedError):
    """A graph holds what cannot be written as loops here."""


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor without gaps."""
    return tuple(prod(shape[d + 1 :]) for d in range(len(shape)))


def are_apart(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether no two elements of such a tensor are one number in memory."""
    reach = 0
    for stride, n in sorted(zip(strides, shape, strict=True)):
        if n > 1:
            if stride <= reach:
                return False
            reach += stride * (n - 1)
    return True


@dataclass(eq=False)
class Buffer:
    """A run of numbers: an input, a state, noise, an output, or (``work``) scratch memory.

    Attributes:
        home: the buffer that it is a part of, if any, and from which number on.
        source: the C pointer it is read by. A state is read where the step before left it, in the
            first step of a call in its input, and written by its own name.
    """

    name: str
    dtype: torch.dtype
    size: int
    kind: str = "work"
    index: int = 0
    home: "tuple[Buffer, int] | None" = None

    @property
    def bytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def source(self) -> str:
        return f"old{self.index}" if self.kind == "state" else self.name


@dataclass(frozen=True)
class Value:
    """A strided look at a buffer.

    Attributes:
        lookup: an index in memory, of the same shape, and the stride it is multiplied by: one
            more term of the address.
    """

    buffer: Buffer
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    lookup: "tuple[Value, int] | None" = None

    def meta(self) -> Tensor:
        """A tensor without numbers of the same layout, on which torch works out what a view is."""
        blank = torch.empty(1 + self.offset + self.span(), dtype=self.dtype, device="meta")
        return blank.as_strided(self.shape, self.strides, self.offset)

    def span(self, without: int | None = None) -> int:
        """How far the last element lies from the first, one dimension perhaps held still."""
        return sum(
            stride * max(n - 1, 0)
            for d, (stride, n) in enumerate(zip(self.strides, self.shape, strict=True))
            if d != without
        )

    def seen_as(self, view: Tensor) -> "Value":
        """The same buffer with the layout of ``view``, made from :meth:`meta`."""
        return Value(
            self.buffer, self.dtype, tuple(view.shape), view.stride(), int(view.storage_offset())
        )

    def broadcast(self, shape: Sequence[int]) -> "Value":
        return self.seen_as(self.meta().expand(tuple(shape)))

    def permuted(self, order: Sequence[int]) -> "Value":
        lookup = self.lookup and (self.lookup[0].permuted(order), self.lookup[1])
        shape, strides = (tuple(xs[d] for d in order) for xs in (self.shape, self.strides))
        return replace(self, shape=shape, strides=strides, lookup=lookup)

    def expression(self) -> "Formula":
        return Formula(self.dtype, self.shape, "{0}", (self,))

    def is_whole(self) -> bool:
        """Whether it is its buffer from the first number to the last."""
        own = tuple(0 if n == 1 else s for s, n in zip(self.strides, self.shape, strict=True))
        want = tuple(
            0 if n == 1 else s for s, n in zip(contiguous(self.shape), self.shape, strict=True)
        )
        return self.offset == 0 and own == want and prod(self.shape) == self.buffer.size

    def at(self, indices: Sequence[str]) -> str:
        """The element at these indices, as C."""
        terms = [
            index if stride == 1 else f"{index} * {stride}"
            for index, stride in zip(indices, self.strides, strict=True)
            if stride != 0 and index != "0"
        ]
        if self.lookup is not None:
            terms.append(f"{self.lookup[0].at(indices)} * {self.lookup[1]}")
        if self.offset or not terms:
            terms.append(str(self.offset))
        return f"{self.buffer.source}[{' + '.join(terms)}]"


@dataclass(frozen=True)
class Formula:
    """A C expression of elements of ``leaves``, which all have its shape; ``{0}`` is the first."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    text: str
    leaves: tuple[Value, ...]

    @staticmethod
    def of(
        template: str,
        dtype: torch.dtype,
        shape: tuple[int, ...],
        arguments: Sequence["Formula"],
    ) -> "Formula":
        leaves: list[Value] = []
        texts = []
        for argument in arguments:
            marks = [f"{{{len(leaves) + i}}}" for i in range(len(argument.leaves))]
            texts.append(argument.text.format(*marks))
            leaves += argument.leaves
        return Formula(dtype, shape, template.format(*texts), tuple(leaves))

    def cast(self, dtype: torch.dtype) -> "Formula":
        if dtype is self.dtype:
            return self
        return Formula(dtype, self.shape, f"({TYPES[dtype]})({self.text})", self.leaves)
