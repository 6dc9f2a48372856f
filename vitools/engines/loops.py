"""A graph of aten operations as plain C loops, which a C++ compiler takes in a second or two.

torch's own compiler needs ten times as long, most of it in Python. Each operation becomes a loop
nest over its result; an elementwise result that is used once is written into the loop of its user
instead, and one that is the same along a dimension is computed once along it. Views are never
copied: a value is a buffer, an offset and strides. Nests over the same rows are run together
(:mod:`~vitools.engines.loop_groups`), buffers share memory once their last reader is past. Large
products of matrices, and all that is not known here, are left to torch, called from inside.

The first inputs can be a *state* that the first outputs replace: one call then takes many steps.
Other devices and number types raise :class:`NotInLoops`, and torch's compiler has to do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from vitools.engines.loop_emission import Emitter
from vitools.engines.loop_groups import grouped
from vitools.engines.loop_nests import Call
from vitools.engines.loop_operations import (
    BOOLEAN_ONLY,
    ELEMENTWISE,
    OF_ARGUMENTS,
    POWERS,
    TO_BOOLEAN,
    TYPES,
    VIEWS,
    literal,
    name_of,
)
from vitools.engines.loop_products import (
    PRODUCTS,
    in_columns,
    is_for_library,
    lies_better_in_columns,
    product,
)
from vitools.engines.loop_source import source
from vitools.engines.loop_special import SPECIAL
from vitools.engines.loop_values import Buffer, Expression, NotInLoops, Value, contiguous

aten = torch.ops.aten

OF_ONE = {"sum", "mean", "prod", "amax", "amin"}
BEYOND_CORE = [aten._log_softmax, aten._softmax, aten.addmm, aten.stack]
FILLED = {"full", "full_like", "scalar_tensor", "zeros", "zeros_like", "ones", "ones_like"}
FILLED |= {"new_zeros", "new_ones", "new_full", "empty", "empty_like", "new_empty"}


@dataclass(frozen=True)
class LoopProgram:
    """C++ source of ``run(inputs, outputs, work, steps, call)`` and what a caller must allot.

    Attributes:
        constants: inputs behind those of the graph.
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
) -> LoopProgram:
    """The loops of ``module``, whose last ``num_noise`` inputs differ from step to step.

    Args:
        fixed: inputs whose numbers never change.

    Raises:
        NotInLoops: an operation, dtype or device that cannot be written.
    """
    if any(t.device.type != "cpu" or t.dtype not in TYPES for t in example):
        raise NotInLoops("inputs of other kinds than float and integer tensors on the CPU")
    decomposed = _decomposed(module, example)
    return _Lowering(decomposed, example, num_state, num_noise, frozenset(fixed)).program()


@cache
def _decompositions() -> dict[Any, Any]:
    """torch's own, of everything that is not known here."""
    known = {*ELEMENTWISE, *VIEWS, *FILLED, *OF_ONE, *PRODUCTS, *SPECIAL, "clamp"}
    made = {**core_aten_decompositions(), **get_decompositions(BEYOND_CORE)}
    return {op: how for op, how in made.items() if name_of(op) not in known}


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


@dataclass
class _Lowering:
    """Walks the graph once; ``values`` holds what each node became."""

    module: GraphModule
    example: Sequence[Tensor]
    num_state: int
    num_noise: int
    fixed: frozenset[int]
    emitter: Emitter = field(default_factory=Emitter)
    values: dict[Node, Any] = field(default_factory=dict)
    closed: dict[Node, Any] = field(default_factory=dict)
    """Nodes that follow from no input, and their values where they were wanted."""
    constants: list[Tensor] = field(default_factory=list)

    def program(self) -> LoopProgram:
        nodes = list(self.module.graph.nodes)
        inputs = [node for node in nodes if node.op == "placeholder"]
        columns = self._inputs(inputs)
        for node in nodes:
            if node.op == "call_function":
                self.values[node] = self._lowered(node)
            elif node.op == "get_attr":
                raise NotInLoops("a tensor inside the graph")
        (output,) = [node for node in nodes if node.op == "output"]
        results = [self._result(node) for node in output.args[0]]
        outputs = self._outputs(results)
        statements = grouped(self.emitter.statements, torch.get_num_threads())
        text, places, work = source(statements, self.emitter.inputs, outputs)
        return LoopProgram(
            text,
            len(inputs),
            tuple(self.constants),
            columns,
            self.num_state,
            tuple(range(len(inputs) - self.num_noise, len(inputs))),
            tuple((torch.Size(v.shape), v.dtype) for v in results),
            work,
            places,
            tuple(s for s in statements if isinstance(s, Call)),
        )

    def _inputs(self, nodes: Sequence[Node]) -> dict[int, int]:
        """Gives every input its buffer; returns those that are wanted column by column.

        What never changes and is the same memory is one buffer: a matrix and its transpose.
        """
        first_noise = len(nodes) - self.num_noise
        same: dict[Any, Buffer] = {}
        columns = {}
        for i, (node, tensor) in enumerate(zip(nodes, self.example, strict=True)):
            kind = "state" if i < self.num_state else "noise" if i >= first_noise else "input"
            strides = tensor.stride() if kind == "input" else contiguous(tensor.shape)
            key: Any = i
            if i in self.fixed:
                turned = lies_better_in_columns(node, tensor)
                key = (tensor.data_ptr(), tensor.numel(), tensor.dtype, turned)
                if turned:
                    columns[i] = same[key].index if key in same else i
                    strides = in_columns(tensor.to("meta")).stride()
            if key not in same:
                same[key] = self.emitter.given(kind, i, tensor.dtype, tensor.numel())
            shape = tuple(tensor.shape)
            self.values[node] = Value(same[key], tensor.dtype, shape, strides, 0)
        return columns

    def _result(self, node: Node) -> Value:
        """An output in memory of its own: the state's changes before the others are read."""
        value = self.value(node)
        if value.buffer.kind == "state":
            return self.emitter.stored(value.expression(), everywhere=True)
        return value

    def _outputs(self, results: Sequence[Value]) -> list[Buffer]:
        """Writes the results; returns the buffers of those that are not state."""
        outputs = []
        for i, value in enumerate(results):
            if i < self.num_state:  # the state lives in the outputs
                into = self.emitter.inputs[i]
            else:
                into = Buffer(f"out{i}", value.dtype, prod(value.shape), "output", i)
                outputs.append(into)
            place = Value(into, value.dtype, value.shape, contiguous(value.shape), 0)
            self.emitter.assign(place, value.expression())
        return outputs

    # ---- what a node is -----------------------------------------------------------------

    def _lowered(self, node: Node) -> Any:
        name, made = name_of(node.target), node.meta["val"]
        if all(a in self.closed for a in node.all_input_nodes) and not _is_random(node):
            self.closed[node] = None
            number = _filled_with(node, name)
            if not isinstance(made, Tensor):
                return None
            return self._constant(node) if number is None else _full(number, made)
        if getattr(node.target, "__name__", "") == "getitem":
            return self.values[node.args[0]][node.args[1]]  # type: ignore[index]
        if name in VIEWS:
            return self._view(node)
        for part in made if isinstance(made, tuple | list) else [made]:
            if not isinstance(part, Tensor) or part.dtype not in TYPES or _is_symbolic(part):
                raise NotInLoops(f"{name or node.target}: {getattr(part, 'dtype', part)}")
        number = _filled_with(node, name)
        if number is not None:
            return _full(number, made)
        try:
            return self._written(node, name, made)
        except NotInLoops:
            return self._called(node)

    def _written(self, node: Node, name: str, made: Any) -> Any:
        if not isinstance(made, Tensor):
            raise NotInLoops(name)
        if name in OF_ONE:
            return self._reduction(node, name, made)
        if name in PRODUCTS:
            if is_for_library(node, name):
                raise NotInLoops(name)
            left, right = (self.value(argument) for argument in node.args)
            return product(self.emitter, name, left, right, made.dtype)
        if name in SPECIAL:
            return SPECIAL[name](self, node, made)
        expression = self._elementwise(node, name, made)
        return expression if self._is_written_into_user(node) else self.emitter.stored(expression)

    def _constant(self, node: Node) -> Value:
        tensor = self._known(node)
        if tensor.dtype not in TYPES:
            raise NotInLoops(str(tensor.dtype))
        index = len(self.example) + len(self.constants)
        tensor = tensor.contiguous()
        self.constants.append(tensor)
        buffer = self.emitter.given("input", index, tensor.dtype, tensor.numel())
        shape = tuple(tensor.shape)
        return Value(buffer, tensor.dtype, shape, contiguous(shape), 0)

    def _known(self, node: Node) -> Any:
        """The value of a node that follows from no input."""
        if self.closed[node] is None:
            args, kwargs = map_arg((node.args, node.kwargs), self._known)
            with torch.no_grad():
                self.closed[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        return self.closed[node]

    def _called(self, node: Node) -> Any:
        """What torch computes itself, in memory of the program."""
        made = node.meta["val"]
        reads: list[Buffer] = []

        def given(argument: Node) -> Any:
            value = self.value(argument)
            reads.append(value.buffer)
            return value

        args, kwargs = map_arg((node.args, node.kwargs), given)
        parts = made if isinstance(made, tuple | list) else [made]
        results = [self.emitter.fresh(part.dtype, part.shape) for part in parts]
        self.emitter.call(node.target, args, kwargs, results, reads)
        return results if isinstance(made, tuple | list) else results[0]

    def _is_written_into_user(self, node: Node) -> bool:
        (user, *others) = node.users
        if others or user.op == "output":
            return False
        if sum(argument is node for argument in user.args) != 1:
            return False
        name = name_of(user.target)
        if name in OF_ONE:
            return True
        elementwise = name in ELEMENTWISE or name == "clamp"
        return elementwise and bool(user.meta["val"].shape == node.meta["val"].shape)

    def value(self, node: Any) -> Value:
        """The node as numbers in memory."""
        found = self.values[node]
        if isinstance(found, Expression):
            found = self.emitter.stored(found)
            self.values[node] = found
        return found

    def expression(self, argument: Any, shape: Sequence[int], dtype: torch.dtype) -> Expression:
        """An argument of an elementwise operation, broadcast to ``shape`` and cast to ``dtype``."""
        if not isinstance(argument, Node):
            if not isinstance(argument, int | float):
                raise NotInLoops(f"an argument {type(argument).__name__}")
            return Expression(dtype, tuple(shape), literal(argument, dtype), ())
        found = self.values[argument]
        if isinstance(found, Expression) and not found.leaves:
            found = Expression(found.dtype, tuple(shape), found.text, ())
        elif isinstance(found, Value) or found.shape != tuple(shape):
            found = self.value(argument).broadcast(shape).expression()
        return found.cast(dtype)

    def _elementwise(self, node: Node, name: str, made: Tensor) -> Expression:
        args = list(node.args)
        shape, dtype = tuple(made.shape), made.dtype
        inner = dtype
        if name in OF_ARGUMENTS:
            inner = torch.result_type(*(self._like(a) for a in (*args, *args)[:2]))
        elif name in TO_BOOLEAN:
            inner = torch.bool
        if name in BOOLEAN_ONLY and dtype is not torch.bool:
            raise NotInLoops(f"{name} of integers")
        if name == "clamp":
            found = self.expression(args[0], shape, dtype)
            for bound, function in zip(
                (*args[1:], None, None), ("larger", "smaller"), strict=False
            ):
                if bound is not None:
                    other = self.expression(bound, shape, dtype)
                    found = Expression.of(f"{function}({{0}}, {{1}})", dtype, shape, [found, other])
            return found
        if name == "pow" and isinstance(args[1], int | float) and dtype.is_floating_point:
            base = self.expression(args[0], shape, dtype)
            if args[1] in POWERS:
                return Expression.of(POWERS[args[1]], dtype, shape, [base])
        if name not in ELEMENTWISE or node.kwargs.get("rounding_mode") or len(args) > 3:
            raise NotInLoops(name or str(node.target))
        kinds = [torch.bool if name == "where" and i == 0 else inner for i in range(len(args))]
        found = [self.expression(a, shape, k) for a, k in zip(args, kinds, strict=True)]  # type: ignore[assignment]
        alpha = node.kwargs.get("alpha", 1)
        if alpha != 1:
            scale = self.expression(alpha, shape, dtype)
            found[1] = Expression.of("({0} * {1})", dtype, shape, [found[1], scale])  # type: ignore[index]
        template = ELEMENTWISE[name]
        if dtype in (torch.bool, torch.uint8):  # C computes these in int, without their overflow
            template = f"({TYPES[dtype]})({template})"
        return Expression.of(template, dtype, shape, found)  # type: ignore[arg-type]

    @staticmethod
    def _like(argument: Any) -> Any:
        return argument.meta["val"] if isinstance(argument, Node) else argument

    # ---- views and reductions -----------------------------------------------------------

    def _view(self, node: Node) -> Any:
        source, *rest = node.args
        made = node.meta["val"]
        known = self.values[source]  # type: ignore[index]
        if isinstance(known, Expression) and not known.leaves and isinstance(made, Tensor):
            return Expression(known.dtype, tuple(made.shape), known.text, ())
        value = self.value(source)
        target: Callable[..., Any] = node.target  # type: ignore[assignment]
        if name_of(target) in ("view", "_unsafe_view"):
            target = aten.view.default
        try:
            seen = target(value.meta(), *rest, **node.kwargs)
        except RuntimeError:  # a view that does not fit the strides: of a copy
            value = self.emitter.stored(value.expression(), everywhere=True)
            seen = target(value.meta(), *rest, **node.kwargs)
        if isinstance(seen, Tensor):
            return value.seen_as(seen)
        return [value.seen_as(part) for part in seen]

    def _reduction(self, node: Node, name: str, made: Tensor) -> Value:
        source: Any = node.args[0]
        shape = tuple(source.meta["val"].shape)
        dims = node.args[1] if len(node.args) > 1 else []
        given: Any = [dims] if isinstance(dims, int) else dims
        reduced = {d % len(shape) for d in given if shape} or set(range(len(shape)))
        found = self.expression(source, shape, made.dtype)
        if name == "mean":
            share = literal(1 / max(1, prod(shape[d] for d in reduced)), made.dtype)
            found = Expression.of(f"({{0}} * {share})", made.dtype, shape, [found])
        if node.kwargs.get("dtype") not in (None, made.dtype):
            raise NotInLoops(name)
        kind = "sum" if name == "mean" else name
        return self.emitter.reduced(kind, found, reduced, tuple(made.shape))


def _is_symbolic(tensor: Tensor) -> bool:
    """Whether a size is known only when the program runs."""
    return not all(isinstance(n, int) for n in tensor.shape)


def _is_random(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _filled_with(node: Node, name: str) -> Any:
    """The one number a new tensor is full of."""
    if name not in FILLED or node.meta["val"].dtype not in TYPES:
        return None
    if "full" in name or name == "scalar_tensor":
        number = node.args[0 if name == "scalar_tensor" else -1]
        return None if isinstance(number, Node) else number
    return 1 if "ones" in name else 0


def _full(number: Any, made: Tensor) -> Expression:
    return Expression(made.dtype, tuple(made.shape), literal(number, made.dtype), ())
