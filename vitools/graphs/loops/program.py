"""A graph of aten operations as plain C loops, which a C++ compiler takes in a second or two.

torch's own compiler needs ten times as long, most of it in Python. Each operation becomes a loop
nest over its result; an elementwise result that is used once is written into the loop of its user
instead, and one that is the same along a dimension is computed once along it. Views are never
copied: a value is a buffer, an offset and strides. Nests over the same rows are run together
(:mod:`~vitools.graphs.loops.groups`), buffers share memory once their last reader is past. Large
products of matrices, and all that is not known here, are left to torch, called from inside.

The first inputs can be a *state* that the first outputs replace: one call then takes many steps.
Other devices and number types raise :class:`NotInLoops`, and torch's compiler has to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from vitools.graphs.loops.emission import Emitter
from vitools.graphs.loops.groups import grouped
from vitools.graphs.loops.lowering import KNOWN, Lowering
from vitools.graphs.loops.nests import Call
from vitools.graphs.loops.operations import TYPES, name_of
from vitools.graphs.loops.products import in_columns, lies_better_in_columns
from vitools.graphs.loops.source import source
from vitools.graphs.loops.values import Buffer, NotInLoops, Value, are_apart, contiguous

aten = torch.ops.aten

BEYOND_CORE = [aten._log_softmax, aten._softmax, aten.addmm, aten.stack]


@dataclass(frozen=True)
class LoopProgram:
    """C++ source of ``run(inputs, outputs, work, steps, call)`` and what a caller must allot.

    Attributes:
        constants: inputs behind those of the graph.
        strides: of the inputs, as it reads them.
        columns: inputs that it wants column by column, and which of them have the same memory.
        num_state: leading inputs that the leading outputs replace after every step.
        noise: which inputs have a leading dimension of steps.
        outputs: shape and dtype of each; those after the state get a leading dimension of steps.
        work: bytes of scratch memory, in which ``places`` says where a buffer begins.
        calls: what ``call(i, step)`` is to run.
    """

    source: str
    num_inputs: int
    constants: tuple[Tensor, ...]
    strides: tuple[tuple[int, ...], ...]
    columns: dict[int, int]
    num_state: int
    noise: tuple[int, ...]
    outputs: tuple[tuple[torch.Size, torch.dtype], ...]
    work: int
    places: dict[Buffer, int]
    calls: tuple[Call, ...]


def loop_program(
    module: GraphModule,
    example: Sequence[Tensor],
    num_state: int = 0,
    num_noise: int = 0,
    fixed: Sequence[int] = (),
    threads: int = 1,
) -> LoopProgram:
    """The loops of ``module``, whose last ``num_noise`` inputs differ from step to step.

    Args:
        fixed: inputs whose numbers never change.
        threads: how many share the rows of large groups.

    Raises:
        NotInLoops: an operation, dtype or device that cannot be written.
    """
    if any(t.device.type != "cpu" or t.dtype not in TYPES for t in example):
        raise NotInLoops("inputs of other kinds than float and integer tensors on the CPU")
    nodes = list(_decomposed(module, example).graph.nodes)
    lowering = Lowering(len(example))
    strides, columns = _take_inputs(
        lowering, nodes, example, num_state, num_noise, frozenset(fixed)
    )
    for node in nodes:
        if node.op == "call_function":
            lowering.values[node] = lowering.lowered(node)
        elif node.op == "get_attr":
            raise NotInLoops("a tensor inside the graph")
    (output,) = [node for node in nodes if node.op == "output"]
    results = [_in_own_memory(lowering, node) for node in output.args[0]]
    _check_steps(results, example, num_state, num_noise)
    outputs = _write_outputs(lowering.emitter, results, num_state)
    statements = grouped(lowering.emitter.statements, threads)
    text, places, work = source(statements, lowering.emitter.inputs, outputs)
    return LoopProgram(
        text,
        len(example),
        tuple(lowering.constants),
        strides,
        columns,
        num_state,
        tuple(range(len(example) - num_noise, len(example))),
        tuple((torch.Size(v.shape), v.dtype) for v in results),
        work,
        places,
        tuple(s for s in statements if isinstance(s, Call)),
    )


@cache
def _decompositions() -> dict[Any, Any]:
    """torch's own, of everything that is not known here and draws nothing.

    Taken apart, a draw would follow its distribution, but not the numbers of a seed.
    """
    made = {**core_aten_decompositions(), **get_decompositions(BEYOND_CORE)}
    return {
        op: how
        for op, how in made.items()
        if name_of(op) not in KNOWN and torch.Tag.nondeterministic_seeded not in op.tags
    }


def _decomposed(module: GraphModule, example: Sequence[Tensor]) -> GraphModule:
    mode = FakeTensorMode()
    with torch.no_grad(), mode:
        # one for each input, because the recorder tells them apart by their identity
        blanks = [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype) for t in example]
        try:
            recorded = make_fx(module, decomposition_table=_decompositions())(*blanks)
        except Exception as reason:  # tracing fails in as many ways as there are models
            raise NotInLoops(str(reason)) from reason
    recorded.graph.eliminate_dead_code()
    return recorded


def _take_inputs(
    lowering: Lowering,
    nodes: Sequence[Node],
    example: Sequence[Tensor],
    num_state: int,
    num_noise: int,
    fixed: frozenset[int],
) -> tuple[tuple[tuple[int, ...], ...], dict[int, int]]:
    """Gives every input its buffer; returns their strides, and which are wanted column by column.

    What never changes and is the same memory is one buffer: a matrix and its transpose.
    """
    same: dict[Any, Buffer] = {}
    columns, layouts = {}, []
    inputs = [node for node in nodes if node.op == "placeholder"]
    for i, (node, tensor) in enumerate(zip(inputs, example, strict=True)):
        is_noise = i >= len(inputs) - num_noise
        kind = "state" if i < num_state else "noise" if is_noise else "input"
        # numbers that are one number in the example may be several in a call
        as_given = kind == "input" and (i in fixed or are_apart(tensor.shape, tensor.stride()))
        strides = tensor.stride() if as_given else contiguous(tensor.shape)
        key: Any = i
        if i in fixed:
            turned = lies_better_in_columns(node, tensor)
            shape = tuple(sorted(tensor.shape)) if turned else ()  # one memory, two matrices
            key = (tensor.data_ptr(), tensor.numel(), tensor.dtype, turned, shape)
            if turned:
                columns[i] = same[key].index if key in same else i
                strides = in_columns(tensor.to("meta")).stride()
        if key not in same:
            same[key] = lowering.emitter.given(kind, i, tensor.dtype, tensor.numel())
        lowering.values[node] = Value(same[key], tensor.dtype, tuple(tensor.shape), strides, 0)
        layouts.append(strides)
    return tuple(layouts), columns


def _in_own_memory(lowering: Lowering, node: Node) -> Value:
    """A result, and not a look at the state, which changes before the others are read."""
    value = lowering.value(node)
    if value.buffer.kind == "state":
        return lowering.emitter.stored(value.expression(), everywhere=True)
    return value


def _check_steps(
    results: Sequence[Value], example: Sequence[Tensor], num_state: int, num_noise: int
) -> None:
    """Refuses what would be written outside of its memory when steps follow one another."""
    for i, (value, before) in enumerate(zip(results[:num_state], example, strict=False)):
        if (value.shape, value.dtype) != (tuple(before.shape), before.dtype):
            raise ValueError(
                f"result {i} is to replace a state of {before.dtype} {list(before.shape)}, "
                f"got {value.dtype} {list(value.shape)}"
            )
    if not num_noise:
        return
    stacked = [value.shape for value in results[num_state:]]
    stacked += [tuple(noise.shape) for noise in example[len(example) - num_noise :]]
    for shape in stacked:
        if shape[:1] != (1,):
            raise ValueError(f"noise and results of a step: expected [1, …], got {list(shape)}")


def _write_outputs(emitter: Emitter, results: Sequence[Value], num_state: int) -> list[Buffer]:
    """Writes the results; returns the buffers of those that are not state."""
    outputs = []
    for i, value in enumerate(results):
        if i < num_state:  # the state lives in the outputs
            into = emitter.inputs[i]
        else:
            into = Buffer(f"out{i}", value.dtype, prod(value.shape), "output", i)
            outputs.append(into)
        place = Value(into, value.dtype, value.shape, contiguous(value.shape), 0)
        emitter.assign(place, value.expression())
    return outputs
