"""The C++ of a whole loop program, and where its buffers lie."""

from collections.abc import Sequence

from vitools.graphs.loops.groups import Group, group_text
from vitools.graphs.loops.matrices import FUNCTIONS
from vitools.graphs.loops.nests import Call, Nest, Statement, Text, nest_text
from vitools.graphs.loops.operations import TYPES, declarations
from vitools.graphs.loops.values import Buffer

LINE = 64  # bytes; buffers begin at a line of the cache

_HEAD = """extern "C" int run(void** inputs, void** outputs, char* work, long steps,
                   int (*call)(long, long)) {
outside = 0;"""


def source(
    statements: Sequence[Statement], inputs: Sequence[Buffer], outputs: Sequence[Buffer]
) -> tuple[str, dict[Buffer, int], int]:
    """C++, where each buffer of scratch memory lies, and how many bytes it wants.

    Inputs of kind ``state`` live in the outputs of the same number, from step to step; the other
    outputs and the noise are gone through step by step.
    """
    offsets, end = _placed(statements)
    lines = [declarations(), FUNCTIONS, _HEAD]
    for buffer in inputs:
        if buffer.kind == "state":
            lines.append(_pointer(buffer, f"outputs[{buffer.index}]", constant=False))
        lines.append(_pointer(buffer, f"inputs[{buffer.index}]", name=buffer.source))
    for buffer in outputs:
        lines.append(_pointer(buffer, f"outputs[{buffer.index}]", constant=False))
    for buffer, offset in offsets.items():
        lines.append(_pointer(buffer, f"work + {offset}L", constant=False))
    lines.append("for (long step = 0; step < steps; ++step) {")
    calls = 0
    for statement in statements:
        if isinstance(statement, Call):
            lines.append(f"if (call({calls}, step)) return 2;")
            calls += 1
        else:
            lines.append(_text(statement))
    stepping = [*outputs, *(b for b in inputs if b.kind == "noise")]
    lines += [f"{b.name} += {b.size}L;" for b in stepping]
    lines += [f"{b.source} = {b.name};" for b in inputs if b.kind == "state"]
    lines += ["}", "return outside;", "}"]
    return "\n".join(lines) + "\n", offsets, end


def _text(statement: Statement) -> str:
    if isinstance(statement, Nest):
        return nest_text(statement)
    if isinstance(statement, Group):
        return group_text(statement)
    assert isinstance(statement, Text)
    return statement.text


def _pointer(buffer: Buffer, place: str, *, name: str = "", constant: bool = True) -> str:
    kind = ("const " if constant else "") + TYPES[buffer.dtype]
    return f"{kind}* {name or buffer.name} = ({kind}*)({place});"


def _rounded(size: int) -> int:
    return -(-max(size, 1) // LINE) * LINE


def _root(buffer: Buffer) -> tuple[Buffer, int]:
    """The buffer that has memory of its own, and the byte of it where this one begins."""
    if buffer.home is None:
        return buffer, 0
    whole, begin = buffer.home
    root, offset = _root(whole)
    return root, offset + begin * buffer.dtype.itemsize


def _placed(statements: Sequence[Statement]) -> tuple[dict[Buffer, int], int]:
    """Where each buffer lies: in a gap of its size once what lay there is not read again."""
    last = {_root(buffer)[0]: i for i, s in enumerate(statements) for buffer in s.buffers}
    offsets: dict[Buffer, int] = {}
    free: list[tuple[int, int]] = []  # size, offset
    end = 0
    for i, statement in enumerate(statements):
        for buffer in dict.fromkeys(_root(b)[0] for b in statement.writes):
            if buffer.kind != "work" or buffer in offsets:
                continue
            size = _rounded(buffer.bytes)
            fitting = [hole for hole in free if hole[0] == size]
            if fitting:
                free.remove(fitting[-1])
                offsets[buffer] = fitting[-1][1]
            else:
                offsets[buffer], end = end, end + size
        for used in dict.fromkeys(_root(b)[0] for b in statement.buffers):
            if used.kind == "work" and last[used] == i and used in offsets:
                free.append((_rounded(used.bytes), offsets[used]))
    for buffer in {b: None for s in statements for b in s.buffers if b.home is not None}:
        root, begin = _root(buffer)
        offsets[buffer] = offsets[root] + begin
    return offsets, end
