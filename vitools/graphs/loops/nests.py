"""Statements of a loop program, and the C of a loop nest.

A nest runs over the dimensions of its target. Where one of them is the *row* of a group of nests
(:mod:`vitools.graphs.loops.groups`), it runs over a tile of ``n`` rows, and what has a stride
along it is reached from a pointer to the tile's first row, named after the buffer and that stride.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from vitools.graphs.loops.operations import TYPES, runs_in_vectors
from vitools.graphs.loops.values import Buffer, Formula, Value

UPDATE = {
    "sum": "{into} += {value};",
    "prod": "{into} *= {value};",
    "amax": "{into} = larger({into}, {value});",
    "amin": "{into} = smaller({into}, {value});",
}
START = {"sum": "0", "prod": "1", "amax": "-__builtin_inf()", "amin": "__builtin_inf()"}
SHORT = 4  # iterations that are not worth vectors
TOGETHER = 4  # terms added to a number in memory at a time


@dataclass(frozen=True)
class Statement:
    """What reads and writes buffers."""

    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    volume: int

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return tuple(dict.fromkeys((*self.reads, *self.writes)))


@dataclass(frozen=True)
class Text(Statement):
    """Loops whose shape follows no common pattern, as C."""

    text: str


@dataclass(frozen=True)
class Call(Statement):
    """An operation of torch's own on memory of the program.

    Attributes:
        args: with :class:`~vitools.graphs.loops.values.Value` where the operation takes a tensor.
        results: where its results go, None for one that it leaves out; ``out=`` takes the only
            one where ``has_out``.
    """

    operation: Any
    args: Any
    kwargs: Any
    results: tuple[Value | None, ...]
    has_out: bool


@dataclass(frozen=True)
class Nest(Statement):
    """``target[…] = expression[…]``, or its reduction along the dimensions ``gone``.

    The expression has the target's shape; along ``gone`` the target has stride 0.
    """

    target: Value
    expression: Formula
    reduction: str | None = None
    gone: frozenset[int] = frozenset()

    @staticmethod
    def of(
        target: Value,
        expression: Formula,
        reduction: str | None = None,
        gone: frozenset[int] = frozenset(),
    ) -> "Nest":
        reads = [leaf.buffer for leaf in expression.leaves]
        reads += [leaf.lookup[0].buffer for leaf in expression.leaves if leaf.lookup]
        volume = prod(target.shape)
        return Nest(tuple(reads), (target.buffer,), volume, target, expression, reduction, gone)

    @property
    def values(self) -> tuple[Value, ...]:
        """The target, the leaves, and the indices that these are looked up by."""
        leaves = self.expression.leaves
        return self.target, *leaves, *(leaf.lookup[0] for leaf in leaves if leaf.lookup)

    def start(self) -> Formula:
        """What a reduction's target holds before the first number."""
        number = f"({TYPES[self.target.dtype]})({START[self.reduction or 'sum']})"
        shape = tuple(1 if d in self.gone else n for d, n in enumerate(self.target.shape))
        return Formula(self.target.dtype, shape, number, ())

    def first(self) -> "Nest":
        """The nest that puts it there."""
        beginning = self.start()
        target = Value(
            self.target.buffer,
            self.target.dtype,
            beginning.shape,
            self.target.strides,
            self.target.offset,
        )
        return Nest.of(target, beginning)


# ---- C ---------------------------------------------------------------------------------------


@dataclass
class _Loops:
    """Loops over some dimensions, neighbours merged where the layout of every value allows it.

    Attributes:
        extents: how often each runs, in C, and ``lengths`` in numbers (with all rows).
        strides: of each loop, for each value.
    """

    extents: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    strides: list[list[int]] = field(default_factory=list)

    def around(self, body: str, first: int, simd: str | None) -> str:
        """The loops ``i{first}``, … around ``body``; ``simd``, if any, marks the innermost."""
        for k in reversed(range(len(self.extents))):
            i = f"i{first + k}"
            marked = simd is not None and k == len(self.extents) - 1 and self.lengths[k] > SHORT
            pragma = f"\n#pragma omp simd{simd}\n" if marked else ""
            body = f"{pragma}for (long {i} = 0; {i} < {self.extents[k]}; ++{i}) {{ {body} }}"
        return body


class _NestWriter:
    """Writes the elements of the values of nests over the same dimensions as C."""

    def __init__(self, nests: Sequence[Nest], rows: int | None) -> None:
        self.shape, self.rows = nests[0].target.shape, rows
        values = [v for nest in nests for v in (nest.target, *nest.expression.leaves)]
        lookups = [value.lookup[0] for value in values if value.lookup]
        self.values = list(dict.fromkeys([*values, *lookups]))
        self.places = {value: k for k, value in enumerate(self.values)}

    def loops(self, dims: Sequence[int]) -> _Loops:
        loops = _Loops()
        for d in dims:
            n, here = self.shape[d], [value.strides[d] for value in self.values]
            if d == self.rows:
                loops.extents.append("n")
            elif n == 1:
                continue
            elif loops.strides and all(
                outer == inner * n for outer, inner in zip(loops.strides[-1], here, strict=True)
            ):
                is_rows = loops.extents[-1].startswith("n")
                loops.lengths[-1] *= n
                loops.strides[-1] = here
                loops.extents[-1] = (
                    f"{loops.extents[-1]} * {n}" if is_rows else str(loops.lengths[-1])
                )
                continue
            else:
                loops.extents.append(str(n))
            loops.lengths.append(n)
            loops.strides.append(here)
        return loops

    def elements(self, nest: Nest, loops: Sequence[_Loops]) -> tuple[str, str]:
        """The target's element and the expression's."""
        steps = [strides for part in loops for strides in part.strides]
        leaves = [self.element(leaf, steps) for leaf in nest.expression.leaves]
        return self.target(nest, steps), nest.expression.text.format(*leaves)

    def target(self, nest: Nest, steps: Sequence[Sequence[int]]) -> str:
        return self.element(nest.target, steps, nest.target.buffer.name)

    def element(self, value: Value, steps: Sequence[Sequence[int]], name: str = "") -> str:
        """It as C; read, or in the memory of another ``name``."""
        k = self.places[value]
        name = name or value.buffer.source
        step = 0 if self.rows is None else value.strides[self.rows]
        name = row_pointer(name, step) if step else name
        terms = [
            f"i{i}" if strides[k] == 1 else f"i{i} * {strides[k]}"
            for i, strides in enumerate(steps)
            if strides[k]
        ]
        if value.lookup is not None:
            terms.append(f"{self.element(value.lookup[0], steps)} * {value.lookup[1]}")
        if value.offset or not terms:
            terms.append(str(value.offset))
        return f"{name}[{' + '.join(terms)}]"


def row_pointer(name: str, stride: int) -> str:
    """The name of the pointer to a tile's first row."""
    return f"{name}_{stride}"


def nest_text(nest: Nest, rows: int | None = None) -> str:
    """The nest in C; over ``n`` of the dimension ``rows``, if that is given.

    A reduction along ``rows`` adds to what its target holds.
    """
    kept = [d for d in range(len(nest.target.shape)) if d not in nest.gone]
    gone, writer = sorted(nest.gone), _NestWriter([nest], rows)
    if nest.reduction is None:
        loops = writer.loops(kept)
        target, value = writer.elements(nest, [loops])
        return loops.around(f"{target} = {value};", 0, "")
    update, goes_on = UPDATE[nest.reduction], rows in nest.gone
    if not _sums_inside(nest, kept, gone, rows):
        begin = "" if goes_on else nest_text(nest.first(), rows)
        return f"{begin} {_adding_to_memory(nest, writer, gone, kept)}"
    outer, inner = writer.loops(kept), writer.loops(gone)
    target, value = writer.elements(nest, [outer, inner])
    simd = " reduction(+ : a)" if nest.reduction == "sum" else None
    body = inner.around(update.format(into="a", value=value), len(outer.extents), simd)
    end = update.format(into=target, value="a") if goes_on else f"{target} = a;"
    number = TYPES[nest.target.dtype]
    body = f"{{ {number} a = {START[nest.reduction]}; {body} {end} }}"
    return outer.around(body, 0, None)


def in_one_loop(nests: Sequence[Nest], rows: int | None, unread: Collection[Buffer]) -> str:
    """Elementwise nests over the same dimensions as one loop: each number is read where it is made.

    Args:
        unread: what nothing else reads, which is kept in registers alone.
    """
    writer = _NestWriter(nests, rows)
    loops = writer.loops(range(len(writer.shape)))
    made: dict[Value, str] = {}
    lines = []
    for k, nest in enumerate(nests):
        target, own = nest.target, f"v{k}"
        leaves = [
            made.get(leaf) or writer.element(leaf, loops.strides) for leaf in nest.expression.leaves
        ]
        value = nest.expression.text.format(*leaves)
        lines.append(f"const {TYPES[target.dtype]} {own} = {value};")
        if target.buffer not in unread:
            lines.append(f"{writer.target(nest, loops.strides)} = {own};")
        made[target] = own
    return loops.around(" ".join(lines), 0, "")


def may_join(nests: Sequence[Nest], nest: Nest) -> bool:
    """Whether an elementwise nest can go into one loop with those before it."""
    if not nests or nest.reduction or nests[-1].reduction:
        return not nests
    if nest.target.shape != nests[0].target.shape:
        return False
    if not all(runs_in_vectors(one.expression.text) for one in (nests[-1], nest)):
        return False
    made = {other.target.buffer: other.target for other in nests}
    if any(made.get(value.buffer, value) != value for value in nest.values):
        return False
    seen = [value for other in nests for value in other.values]
    return all(value == nest.target for value in seen if value.buffer is nest.target.buffer)


def _adding_to_memory(
    nest: Nest, writer: _NestWriter, gone: Sequence[int], kept: Sequence[int]
) -> str:
    """Outer loops over what is reduced, several at a time where they are summed."""
    over, inner = writer.loops(gone), writer.loops(kept)
    update = UPDATE[nest.reduction or "sum"]
    k = len(over.extents) - 1
    target, value = writer.elements(nest, [over, inner])
    one = inner.around(update.format(into=target, value=value), k + 1, "")
    if nest.reduction != "sum" or k < 0:
        return over.around(one, 0, None)
    whole, i = over.extents[k], f"i{k}"
    values = [value, *(re.sub(rf"\b{i}\b", f"({i} + {j})", value) for j in range(1, TOGETHER))]
    several = inner.around(update.format(into=target, value=" + ".join(values)), k + 1, "")
    last = (
        f"long {i} = 0; for (; {i} + {TOGETHER} <= {whole}; {i} += {TOGETHER}) {{ {several} }} "
        f"for (; {i} < {whole}; ++{i}) {{ {one} }}"
    )
    return replace(over, extents=over.extents[:k]).around(f"{{ {last} }}", 0, None)


def _sums_inside(nest: Nest, kept: Sequence[int], gone: Sequence[int], rows: int | None) -> bool:
    """Whether the innermost loop of a reduction is over what is reduced, into one number.

    Otherwise it is over what is kept, and adds to neighbouring numbers in memory.
    """
    if not kept or not gone:
        return True
    in_gone, in_kept = (
        max((abs(leaf.strides[dims[-1]]) for leaf in nest.expression.leaves), default=0)
        for dims in (gone, kept)
    )
    return in_gone <= in_kept or (kept[-1] != rows and nest.target.shape[kept[-1]] < SHORT)
