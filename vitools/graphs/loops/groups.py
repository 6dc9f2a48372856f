"""Loop nests that run over the same rows, run together: a tile of rows at a time, by all threads.

A statement after another reads from memory what that wrote. Where both run over the same N rows
and row i needs nothing but row i, they can take turns tile by tile instead: what one wrote is
still in the cache when the next reads it, data are read once a step however many statements use
them, and what only lives inside the group needs memory for one tile. Tiles are shared out among
threads; each thread sums into numbers of its own, added up in a fixed order, so that a run
repeats its numbers.

The order of statements changes only where no statement can notice: one joins the group if it
reads and writes nothing that a statement left behind writes or reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from math import prod

from vitools.graphs.loops.nests import (
    Nest,
    Statement,
    in_one_loop,
    may_join,
    nest_text,
    row_pointer,
)
from vitools.graphs.loops.operations import TYPES
from vitools.graphs.loops.values import Buffer, Value, are_apart, contiguous

SMALLEST = 4096  # numbers a nest computes: below it lies in the cache anyhow
SHARED_OUT = 40_000  # numbers a group computes for which threads repay being woken
ACROSS = 0.6  # what a group by an inner dimension counts
TILE = 1 << 18  # bytes of a tile: half of a small second-level cache


@dataclass(frozen=True)
class Group(Statement):
    """Nests and the dimension of each that is its row."""

    members: tuple[tuple[Nest, int], ...]
    begins: tuple[Nest, ...]
    rows: int
    tile: int
    lanes: int
    private: dict[Buffer, int]
    """What lives in one tile alone, and its numbers a row."""
    partial: dict[Buffer, int]
    """What each thread sums into, and how many numbers."""


def grouped(statements: Sequence[Statement], lanes: int) -> list[Statement]:
    """The same work, with nests in groups.

    Args:
        lanes: threads.
    """
    users: dict[Buffer, int] = {}
    for statement in statements:
        for buffer in statement.buffers:
            users[buffer] = users.get(buffer, 0) + 1
    return _grouped(list(statements), users, lanes, count())


def _grouped(
    statements: list[Statement], users: dict[Buffer, int], lanes: int, numbers: "count[int]"
) -> list[Statement]:
    done: list[Statement] = []
    while True:
        large = (
            i
            for i, s in enumerate(statements)
            if isinstance(s, Nest) and s.volume >= SMALLEST and max(s.target.shape) > 1
        )
        start = next(large, None)
        if start is None:
            return done + statements
        first = statements[start]
        assert isinstance(first, Nest)
        sizes = first.target.shape
        tries = [_Gathering(first, d, statements[start + 1 :]) for d in _candidates(sizes)]
        # rows that lie behind one another in memory are to be preferred
        best = max(tries, key=lambda g: g.volume * (1.0 if g.row == tries[0].row else ACROSS))
        done += statements[:start]
        done += _grouped(best.ahead, users, lanes, numbers)
        done += best.statements(users, lanes, numbers)
        statements = best.behind


def _candidates(sizes: Sequence[int]) -> list[int]:
    """One dimension of each length above 1, outer ones first."""
    found: dict[int, int] = {}
    for d, n in enumerate(sizes):
        if n > 1:
            found.setdefault(n, d)
    return list(found.values())


@dataclass
class _Gathering:
    """Which statements can go with ``first``, whose dimension ``row`` is the row."""

    first: Nest
    row: int
    later: list[Statement]
    members: list[tuple[Nest, int]] = field(default_factory=list)
    ahead: list[Statement] = field(default_factory=list)
    behind: list[Statement] = field(default_factory=list)
    volume: int = 0
    looks: dict[Buffer, list[tuple[Value, int]]] = field(default_factory=dict)
    written: set[Buffer] = field(default_factory=set)
    sums: set[Buffer] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rows = self.first.target.shape[self.row]
        if not self._takes(self.first, self.row):  # a target that overlaps itself
            self.members = [(self.first, self.row)]
            self.behind = self.later
            self.alone = True
            return
        self.alone = False
        left_reads: set[Buffer] = set()
        left_writes: set[Buffer] = set()
        for statement in self.later:
            reads, writes = set(statement.reads), set(statement.writes)
            free = not (reads | writes) & left_writes and not writes & left_reads
            if free and isinstance(statement, Nest):
                shape = statement.target.shape
                rows = (d for d, n in enumerate(shape) if n == self.rows)
                if any(self._takes(statement, d) for d in rows):
                    continue
            touched = self.looks.keys()
            if free and not reads & (self.written | self.sums) and not writes & touched:
                self.ahead.append(statement)
            else:
                self.behind.append(statement)
                left_reads |= reads
                left_writes |= writes

    def _takes(self, nest: Nest, row: int) -> bool:
        """Makes ``nest`` a member, if row i of it and of the members need only each other."""
        target = nest.target
        added: dict[Buffer, list[tuple[Value, int]]] = {}
        for value in nest.values:
            added.setdefault(value.buffer, []).append((value, row))
        if self.sums & added.keys():
            return False
        summed = row in nest.gone
        if summed and (target.buffer in self.looks or len(added[target.buffer]) > 1):
            return False
        writes = set() if summed else {target.buffer}
        for buffer in added.keys() & (self.written | writes):
            if not _rows_apart([*self.looks.get(buffer, []), *added.get(buffer, [])]):
                return False
        for buffer, looks in added.items():
            self.looks.setdefault(buffer, []).extend(looks)
        self.written |= writes
        self.sums |= {target.buffer} if summed else set()
        self.members.append((nest, row))
        self.volume += nest.volume
        return True

    # ---- the group ----------------------------------------------------------------------

    def statements(
        self, users: dict[Buffer, int], lanes: int, numbers: "count[int]"
    ) -> list[Statement]:
        """The group and what goes before and after it."""
        shared_out = self.volume >= SHARED_OUT and self.rows >= 2 * lanes and not self.alone
        lanes = lanes if shared_out else 1
        if lanes == 1 and len(self.members) == 1:
            return [self.members[0][0]]
        private = self._private(users)
        tile = self._tile(private, lanes)
        for buffer, size in private.items():
            buffer.size = lanes * tile * size
        before: list[Statement] = []
        after: list[Statement] = []
        members, begins, partial = [], [], {}
        for nest, row in self.members:
            if row in nest.gone and lanes == 1:
                before.append(nest.first())
            elif row in nest.gone:
                part, own, sums = _parted(nest, lanes, next(numbers))
                partial[part] = part.size // lanes
                nest = own
                begins.append(own.first())
                after.append(sums)
            members.append((nest, row))
        reads = tuple(b for nest, _ in members for b in nest.reads)
        writes = tuple(b for nest, _ in members for b in nest.writes)
        group = Group(
            reads,
            writes,
            self.volume,
            tuple(members),
            tuple(begins),
            self.rows,
            tile,
            lanes,
            private,
            partial,
        )
        return [*before, group, *after]

    def _private(self, users: dict[Buffer, int]) -> dict[Buffer, int]:
        """What no other statement looks at, and its numbers a row."""
        inside: dict[Buffer, int] = {}
        for nest, _ in self.members:
            for buffer in nest.buffers:
                inside[buffer] = inside.get(buffer, 0) + 1
        return {
            buffer: looks[0][0].strides[looks[0][1]]
            for buffer, looks in self.looks.items()
            if buffer.kind == "work"
            and buffer.home is None
            and buffer in self.written
            and inside[buffer] == users[buffer]
            and all(_fits_row(value, row) for value, row in looks)
        }

    def _tile(self, private: dict[Buffer, int], lanes: int) -> int:
        """Rows in a tile: as many as leave it in the cache."""
        bytes_a_row = sum(size * buffer.dtype.itemsize for buffer, size in private.items())
        for buffer, looks in self.looks.items():
            steps = [abs(value.strides[row]) for value, row in looks if value.strides[row]]
            if buffer not in private and len(steps) > 1:
                across = max(_across(value, row) for value, row in looks)
                bytes_a_row += across * buffer.dtype.itemsize
        most = -(-self.rows // lanes)
        tile = TILE // max(1, bytes_a_row)
        return min(most, max(1, tile - tile % 16 if tile > 16 else tile))


def _across(value: Value, row: int) -> int:
    """How many numbers it has in a row."""
    return prod(n for d, n in enumerate(value.shape) if d != row and value.strides[d])


def _fits_row(value: Value, row: int) -> bool:
    """Whether row i lies between i and i + 1 times the stride."""
    return value.lookup is None and value.offset + value.span(row) < value.strides[row]


def _layout(value: Value, row: int) -> tuple[object, ...]:
    others = sorted(
        (stride, n)
        for d, (stride, n) in enumerate(zip(value.strides, value.shape, strict=True))
        if d != row and n > 1
    )
    return value.offset, value.strides[row], tuple(others)


def _rows_apart(looks: Sequence[tuple[Value, int]]) -> bool:
    """Whether no row of one of these looks at a buffer touches another row of any."""
    if any(value.lookup is not None for value, _ in looks):
        return False
    if len({value.strides[row] for value, row in looks}) > 1:
        return False
    if all(_fits_row(value, row) for value, row in looks):
        return True
    alike = len({_layout(value, row) for value, row in looks}) == 1
    return alike and are_apart(looks[0][0].shape, looks[0][0].strides)


def _parted(nest: Nest, lanes: int, number: int) -> tuple[Buffer, Nest, Nest]:
    """What the threads sum into; the nest of one thread; and the nest that adds them up."""
    kept = [d for d in range(len(nest.target.shape)) if d not in nest.gone]
    shape = tuple(nest.target.shape[d] for d in kept)
    size, dtype = prod(shape), nest.target.dtype
    part = Buffer(f"p{number}", dtype, lanes * size)
    one = Buffer(f"p{number}_lane", dtype, size, "lane")
    steps = dict(zip(kept, contiguous(shape), strict=True))
    strides = tuple(steps.get(d, 0) for d in range(len(nest.target.shape)))
    own = Nest.of(
        Value(one, dtype, nest.target.shape, strides, 0),
        nest.expression,
        nest.reduction,
        nest.gone,
    )
    own = replace(own, writes=(part,))
    into = Value(
        nest.target.buffer,
        dtype,
        (lanes, *shape),
        (0, *(nest.target.strides[d] for d in kept)),
        nest.target.offset,
    )
    whole = Value(part, dtype, into.shape, contiguous(into.shape), 0)
    return part, own, Nest.of(into, whole.expression(), nest.reduction, frozenset({0}))


def group_text(group: Group) -> str:
    """The group in C."""
    looks = {
        (name, value.strides[row], value.buffer)
        for nest, row in group.members
        for value in nest.values
        for name in {value.buffer.source, nest.target.buffer.name if value is nest.target else ""}
        if value.strides[row] and name
    }
    lines = []
    if group.lanes > 1:
        lines.append(f"\n#pragma omp parallel for schedule(static, 1) num_threads({group.lanes})")
    lines.append(f"for (int lane = 0; lane < {group.lanes}; ++lane) {{")
    for buffer, size in group.partial.items():
        kind = TYPES[buffer.dtype]
        lines.append(f"{kind}* {buffer.name}_lane = {buffer.name} + {size}L * lane;")
    lines += [nest_text(nest) for nest in group.begins]
    lines.append(f"const long end = {group.rows}L * (lane + 1) / {group.lanes};")
    lines.append(
        f"for (long begin = {group.rows}L * lane / {group.lanes}; begin < end; "
        f"begin += {group.tile}) {{ const long n = end - begin < {group.tile} ? end - begin : "
        f"{group.tile};"
    )
    for origin, stride, buffer in sorted(looks, key=lambda look: look[:2]):
        place = f"{group.tile * stride}L * lane" if buffer in group.private else f"begin * {stride}"
        name = row_pointer(origin, stride)
        lines.append(f"auto* {name} = {origin} + {place};")
    run: list[Nest] = []
    for k, (nest, row) in enumerate(group.members):
        run.append(nest)
        following = group.members[k + 1 :]
        if following and following[0][1] == row and may_join(run, following[0][0]):
            continue
        lines.append(_run_text(run, row, group))
        run = []
    return "\n".join([*lines, "}", "}"])


def _run_text(run: Sequence[Nest], row: int, group: Group) -> str:
    if len(run) == 1:
        return nest_text(run[0], row)
    inside = {id(nest) for nest in run}
    others = {b for nest, _ in group.members if id(nest) not in inside for b in nest.buffers}
    return in_one_loop(run, row, group.private.keys() - others)
