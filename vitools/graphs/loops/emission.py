"""The statements of a loop program as they are made, and the buffers they use."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch

from vitools.graphs.loops.nests import Call, Nest, Statement, Text
from vitools.graphs.loops.values import Buffer, Formula, NotInLoops, Value, contiguous

GENERATOR = Buffer("generator", torch.uint8, 0, "generator")
"""Stands for torch's generator: what draws from it keeps its order."""


@dataclass
class Emitter:
    """Collects statements; ``inputs`` are the buffers given from outside."""

    statements: list[Statement] = field(default_factory=list)
    inputs: list[Buffer] = field(default_factory=list)
    count: int = 0

    def given(self, kind: str, index: int, dtype: torch.dtype, size: int) -> Buffer:
        buffer = Buffer(f"{kind}{index}", dtype, size, kind, index)
        self.inputs.append(buffer)
        return buffer

    def fresh(self, dtype: torch.dtype, shape: Sequence[int]) -> Value:
        """A new buffer of this shape."""
        self.count += 1
        buffer = Buffer(f"b{self.count}", dtype, prod(shape))
        return Value(buffer, dtype, tuple(shape), contiguous(shape), 0)

    def say(self, text: str, reads: Sequence[Buffer], writes: Buffer, volume: int) -> None:
        self.statements.append(Text(tuple(reads), (writes,), volume, text))

    def call(
        self,
        operation: Any,
        args: Any,
        kwargs: Any,
        results: Sequence[Value | None],
        reads: list[Buffer],
    ) -> None:
        """An operation of torch's own, its results copied or written into ``results``."""
        kept = [value for value in results if value is not None]
        writes = [value.buffer for value in kept]
        if torch.Tag.nondeterministic_seeded in operation.tags:
            reads, writes = [*reads, GENERATOR], [*writes, GENERATOR]
        has_out = operation in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default)
        volume = sum(prod(value.shape) for value in kept)
        self.statements.append(
            Call(
                tuple(reads),
                tuple(writes),
                volume,
                operation,
                args,
                kwargs,
                tuple(results),
                has_out,
            )
        )

    def stored(self, expression: Formula, *, everywhere: bool = False) -> Value:
        """The expression in memory: once along dimensions in which it is the same."""
        shape = expression.shape
        small = tuple(
            n
            if everywhere or any(v.strides[d] or v.lookup for v in expression.leaves)
            else min(n, 1)
            for d, n in enumerate(shape)
        )
        target = self.fresh(expression.dtype, small)
        self.assign(target, expression)
        return target.broadcast(shape)

    def assign(self, target: Value, expression: Formula) -> None:
        """``target[…] = expression[…]`` over the target's shape."""
        leaves = tuple(_narrowed(leaf, target.shape) for leaf in expression.leaves)
        narrow = replace(expression, shape=target.shape, leaves=leaves)
        self.statements.append(Nest.of(target, narrow))

    def reduced(
        self, name: str, expression: Formula, dims: set[int], made: tuple[int, ...]
    ) -> Value:
        """The sum, product, or largest or smallest element, over ``dims``."""
        shape = expression.shape
        if 0 in shape:
            raise NotInLoops("a reduction of nothing")
        if not expression.dtype.is_floating_point and name in ("amax", "amin"):
            raise NotInLoops(f"{name} of integers")
        kept = [d for d in range(len(shape)) if d not in dims]
        target = self.fresh(expression.dtype, [shape[d] for d in kept])
        steps = dict(zip(kept, target.strides, strict=True))
        wide = replace(
            target, shape=shape, strides=tuple(steps.get(d, 0) for d in range(len(shape)))
        )
        self.statements.append(Nest.of(wide, expression, name, frozenset(dims)))
        return Value(target.buffer, target.dtype, made, contiguous(made), 0)

    def joined(self, into: Value, pieces: Sequence[tuple[Buffer, int]]) -> None:
        """``into`` is what lies in the buffers ``pieces``, which become parts of it from there on."""
        for piece, begin in pieces:
            piece.home = (into.buffer, begin)
        reads = tuple(piece for piece, _ in pieces)
        self.statements.append(Text(reads, (into.buffer,), 0, ""))


def _narrowed(value: Value, shape: Sequence[int]) -> Value:
    """``value`` where a nest runs over one of several equal numbers only."""
    lookup = value.lookup and (_narrowed(value.lookup[0], shape), value.lookup[1])
    return replace(value, shape=tuple(shape), lookup=lookup)
