"""torch's own operations, called from inside a loop program on the memory it works in."""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from vitools.graphs.loops.nests import Call
from vitools.graphs.loops.values import Value

CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_long, ctypes.c_long)


class Calls:
    """The calls of a program; ``on`` binds them to the tensors of one run."""

    def __init__(self, program: Any, work: Tensor) -> None:
        self.program, self.work = program, work
        self.inputs: Sequence[Tensor] = ()
        self.outputs: Sequence[Tensor] = ()
        self.error: BaseException | None = None
        self.run = [self._prepared(call) for call in program.calls]
        self.callback = CALLBACK(self._call)

    @contextmanager
    def on(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Iterator[Any]:
        """The C function to be given to the program; what a call raises is raised at the end."""
        self.inputs, self.outputs, self.error = inputs, outputs, None
        yield self.callback
        self.inputs = self.outputs = ()
        if self.error is not None:
            raise self.error

    def _call(self, index: int, step: int) -> int:
        try:
            with torch.no_grad():
                self.run[index](step)
        except BaseException as error:  # C has no exceptions: kept, and raised by on()
            self.error = error
            return 1
        return 0

    def _prepared(self, call: Call) -> Callable[[int], None]:
        """A function of the step that runs the call."""
        if call.has_out:
            left, right, into = map(self._tensor, (*call.args, *call.results))
            multiply = torch.mm if call.operation is torch.ops.aten.mm.default else torch.bmm

            def product(step: int) -> None:
                multiply(left(step), right(step), out=into(step))

            return product
        places = tree_map(
            lambda x: self._tensor(x) if isinstance(x, Value) else x, (call.args, call.kwargs)
        )

        results = [None if v is None else self._tensor(v) for v in call.results]

        def run(step: int) -> None:
            args, kwargs = tree_map(lambda x: _dense(x(step)) if callable(x) else x, places)
            made = call.operation(*args, **kwargs)
            made = made if isinstance(made, tuple | list) else [made]
            for result, found in zip(results, made, strict=True):
                if result is not None:
                    result(step).copy_(found)

        return run

    def _tensor(self, value: Value) -> Callable[[int], Tensor]:
        """A function of the step that gives ``value`` as a tensor."""
        shape, strides = value.shape, value.strides
        buffer = value.buffer
        if buffer.kind == "work":
            begin = self.program.places[buffer]
            part = self.work[begin : begin + buffer.bytes].view(buffer.dtype)
            fixed = part.as_strided(shape, strides, part.storage_offset() + value.offset)
            return lambda step: fixed
        index, offset = buffer.index, value.offset
        behind = index - self.program.num_inputs
        if buffer.kind == "input" and behind >= 0:
            known = self.program.constants[behind].as_strided(shape, strides, offset)
            return lambda step: known
        state = buffer.kind == "state"
        each = buffer.size if buffer.kind == "noise" else 0

        def given(step: int) -> Tensor:
            tensor = (self.outputs if state and step else self.inputs)[index]
            first = tensor.storage_offset() + offset + step * each
            return tensor.as_strided(shape, strides, first)

        return given


def _dense(tensor: Tensor) -> Tensor:
    """A copy where many numbers are one in memory, which some of torch's operations overlook."""
    repeats = any(n > 1 and s == 0 for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.contiguous() if repeats else tensor
