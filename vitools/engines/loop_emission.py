"""Loop nests over strided values, and the memory they share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import torch

from vitools.engines.loop_operations import TYPES, declarations
from vitools.engines.loop_values import Buffer, Expression, NotInLoops, Value, contiguous

LINE = 64  # bytes; buffers begin at a line of the cache


@dataclass
class Statement:
    """C text, the buffers it reads and the one it writes."""

    text: str
    reads: tuple[Buffer, ...]
    writes: Buffer


@dataclass
class Emitter:
    """Collects statements; ``volume`` counts the numbers they compute."""

    statements: list[Statement] = field(default_factory=list)
    inputs: list[Buffer] = field(default_factory=list)
    volume: int = 0
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
        self.statements.append(Statement(text, tuple(reads), writes))
        self.volume += volume

    # ---- what loops compute ---------------------------------------------------------------

    def stored(self, expression: Expression, *, everywhere: bool = False) -> Value:
        """The expression in memory: once along dimensions in which it is the same."""
        shape = expression.shape
        small = tuple(
            n if everywhere or any(leaf.strides[d] for leaf in expression.leaves) else min(n, 1)
            for d, n in enumerate(shape)
        )
        target = self.fresh(expression.dtype, small)
        self.assign(target, expression)
        return target.broadcast(shape)

    def assign(self, target: Value, expression: Expression) -> None:
        """``target[…] = expression[…]`` over the target's shape."""
        self._nest(target, expression, "{target} = {value};")

    def _nest(self, target: Value, expression: Expression, body: str, pragma: str = "simd") -> None:
        """A loop nest over ``target.shape``, neighbouring dimensions merged where all allow it."""
        values = (target, *expression.leaves)
        merged: list[tuple[int, list[int]]] = []
        for d, n in enumerate(target.shape):
            strides = [value.strides[d] for value in values]
            if n == 1:
                continue
            if merged and all(
                outer == inner * n for outer, inner in zip(merged[-1][1], strides, strict=True)
            ):
                merged[-1] = (merged[-1][0] * n, strides)
            else:
                merged.append((n, strides))
        indices = [f"i{d}" for d in range(len(merged))]
        flat = [
            Value(v.buffer, v.dtype, (), tuple(steps[k] for _, steps in merged), v.offset)
            for k, v in enumerate(values)
        ]
        accesses = [value.at(indices) for value in flat]
        text = body.format(target=accesses[0], value=expression.text.format(*accesses[1:]))
        for d in reversed(range(len(merged))):
            n = merged[d][0]
            mark = f"\n#pragma omp {pragma}\n" if d == len(merged) - 1 and n > 4 else ""
            text = f"{mark}for (int i{d} = 0; i{d} < {n}; ++i{d}) {{ {text} }}"
        reads = [leaf.buffer for leaf in expression.leaves]
        self.say(text, [*reads, target.buffer], target.buffer, prod(target.shape))

    def reduced(
        self, name: str, expression: Expression, dims: set[int], made: tuple[int, ...]
    ) -> Value:
        """The sum, product, or largest or smallest element, over ``dims``."""
        shape, leaves = expression.shape, expression.leaves
        if 0 in shape:
            raise NotInLoops("a reduction of nothing")
        kept = [d for d in range(len(shape)) if d not in dims]
        gone = sorted(dims)
        target = self.fresh(expression.dtype, [shape[d] for d in kept])
        over = [*kept, *gone]
        steps = dict(zip(kept, target.strides, strict=True))
        wide = Value(
            target.buffer,
            expression.dtype,
            tuple(shape[d] for d in over),
            tuple(steps.get(d, 0) for d in over),
            0,
        )
        turned = [
            Value(v.buffer, v.dtype, wide.shape, tuple(v.strides[d] for d in over), v.offset)
            for v in leaves
        ]
        moved = Expression(expression.dtype, wide.shape, expression.text, tuple(turned))
        last = [
            max((abs(v.strides[g[-1]]) for v in leaves), default=0) if g else 0
            for g in (gone, kept)
        ]
        inner = not kept or last[0] <= last[1] or shape[kept[-1]] < 4
        number = TYPES[expression.dtype]
        update = {
            "sum": "{into} += {value};",
            "prod": "{into} *= {value};",
            "amax": "{into} = larger({into}, {value});",
            "amin": "{into} = smaller({into}, {value});",
        }[name]
        start = {"sum": "0", "prod": "1", "amax": "-__builtin_inf()", "amin": "__builtin_inf()"}[
            name
        ]
        if not expression.dtype.is_floating_point and name in ("amax", "amin"):
            raise NotInLoops(f"{name} of integers")
        if inner:
            self._reduce_inner(name, wide, moved, len(kept), number, start, update)
        else:
            self.assign(
                target, Expression(expression.dtype, target.shape, f"({number})({start})", ())
            )
            order = [*range(len(kept), len(over)), *range(len(kept))]
            swapped = [_permuted(v, order) for v in (wide, *turned)]
            again = Expression(moved.dtype, swapped[0].shape, moved.text, tuple(swapped[1:]))
            self._nest(swapped[0], again, update.replace("{into}", "{target}"))
        return Value(target.buffer, target.dtype, made, contiguous(made), 0)

    def _reduce_inner(
        self,
        name: str,
        wide: Value,
        expression: Expression,
        num_kept: int,
        number: str,
        start: str,
        update: str,
    ) -> None:
        """Outer loops over what is kept, an accumulator over the rest."""
        sizes = wide.shape
        indices = [f"i{d}" for d in range(len(sizes))]
        elements = [leaf.at(indices) for leaf in expression.leaves]
        text = update.format(into="a", value=expression.text.format(*elements))
        innermost = max((d for d in range(num_kept, len(sizes)) if sizes[d] > 1), default=-1)
        for d in reversed(range(num_kept, len(sizes))):
            adds = d == innermost and name == "sum" and sizes[d] > 4
            mark = "\n#pragma omp simd reduction(+ : a)\n" if adds else ""
            text = f"{mark}for (int i{d} = 0; i{d} < {sizes[d]}; ++i{d}) {{ {text} }}"
        text = f"{number} a = {start}; {text} {wide.at(indices)} = a;"
        for d in reversed(range(num_kept)):
            text = f"for (int i{d} = 0; i{d} < {sizes[d]}; ++i{d}) {{ {text} }}"
        reads = [leaf.buffer for leaf in expression.leaves]
        self.say(f"{{ {text} }}", reads, wide.buffer, prod(sizes))

    # ---- the whole ------------------------------------------------------------------------

    def source(self, results: Sequence[Value], num_state: int) -> tuple[str, int]:
        """The C++ of all statements, and the bytes of scratch memory it wants."""
        for i, value in enumerate(results):
            out = Buffer(f"out{i}", value.dtype, prod(value.shape), "output", i)
            into = Value(out, value.dtype, value.shape, contiguous(value.shape), 0)
            self.assign(into, value.expression())
        states = [b for b in self.inputs if b.kind == "state"]
        offsets, end = _placed(self.statements, [s.writes for s in self.statements])
        lines = [declarations(), _HEAD]
        for buffer in self.inputs:
            if buffer.kind in ("input", "noise"):
                lines.append(_pointer(buffer, f"inputs[{buffer.index}]"))
        after = []
        for i, value in enumerate(results):
            out = Buffer(f"out{i}", value.dtype, prod(value.shape))
            if i < num_state:  # the state lives in the outputs, its successor in scratch memory
                state = states[i]
                lines.append(_pointer(state, f"outputs[{i}]", constant=False))
                lines.append(f"__builtin_memcpy(state{i}, inputs[{i}], {_bytes(state)});")
                lines.append(_pointer(out, f"work + {end}", constant=False))
                end += _rounded(_bytes(out))
                after.append(f"__builtin_memcpy(state{i}, out{i}, {_bytes(out)});")
            else:
                lines.append(_pointer(out, f"outputs[{i}]", constant=False))
                after.append(f"out{i} += {out.size};")
        for buffer, offset in offsets.items():
            lines.append(_pointer(buffer, f"work + {offset}", constant=False))
        lines.append("for (long step = 0; step < steps; ++step) {")
        lines += [statement.text for statement in self.statements]
        lines += after
        lines += [f"{b.name} += {b.size};" for b in self.inputs if b.kind == "noise"]
        return "\n".join([*lines, "}", "return outside;", "}"]) + "\n", end


_HEAD = (
    """extern "C" int run(void** inputs, void** outputs, char* work, long steps) {\noutside = 0;"""
)


def _pointer(buffer: Buffer, place: str, *, constant: bool = True) -> str:
    kind = ("const " if constant else "") + TYPES[buffer.dtype]
    return f"{kind}* {buffer.name} = ({kind}*)({place});"


def _bytes(buffer: Buffer) -> int:
    return buffer.size * buffer.dtype.itemsize


def _rounded(size: int) -> int:
    return -(-max(size, 1) // LINE) * LINE


def _permuted(value: Value, order: Sequence[int]) -> Value:
    return Value(
        value.buffer,
        value.dtype,
        tuple(value.shape[d] for d in order),
        tuple(value.strides[d] for d in order),
        value.offset,
    )


def _placed(
    statements: Sequence[Statement], written: Sequence[Buffer]
) -> tuple[dict[Buffer, int], int]:
    """Where each buffer lies: in the first gap large enough once an earlier one is not read again."""
    last = {b: i for i, s in enumerate(statements) for b in (*s.reads, s.writes)}
    offsets: dict[Buffer, int] = {}
    free: list[tuple[int, int]] = []  # size, offset
    end = 0
    for i, (statement, buffer) in enumerate(zip(statements, written, strict=True)):
        if buffer.kind == "work" and buffer not in offsets:
            size = _rounded(_bytes(buffer))
            fitting = [hole for hole in free if hole[0] == size]
            if fitting:
                free.remove(fitting[-1])
                offsets[buffer] = fitting[-1][1]
            else:
                offsets[buffer], end = end, end + size
        for used in dict.fromkeys((*statement.reads, statement.writes)):
            if used.kind == "work" and last[used] == i and used in offsets:
                free.append((_rounded(_bytes(used)), offsets[used]))
    return offsets, end
