"""A small graph of aten operations as plain C loops, which a C++ compiler takes in about a second.

torch's own compiler needs ten times as long, most of it in Python, to find the best code for
graphs of any size. A small graph needs no best code: it is a few hundred loops over numbers that
lie in the cache. Each operation becomes a loop nest over its result; an elementwise result that
is used once is written into the loop of its user instead, and one that is the same along a
dimension is computed once along it. Views are never copied: a value is a buffer, an offset and
strides. Buffers share memory once their last reader is past.

The first inputs can be a *state* that the first outputs replace: one call then takes many steps.
What is not known here raises :class:`NotInLoops`, and torch's compiler has to do.
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

from vitools.engines.loop_emission import Emitter
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
from vitools.engines.loop_special import SPECIAL
from vitools.engines.loop_values import Expression, NotInLoops, Value, contiguous

aten = torch.ops.aten

OF_ONE = {"sum", "mean", "prod", "amax", "amin"}
REDUCTIONS = OF_ONE | {"mv", "mm", "bmm", "dot"}
BEYOND_CORE = [aten._log_softmax, aten._softmax, aten.addmm, aten.stack]
FILLED = {"full", "full_like", "scalar_tensor", "zeros", "zeros_like", "ones", "ones_like"}
FILLED |= {"new_zeros", "new_ones", "new_full", "empty", "empty_like", "new_empty"}
LARGEST = 4_000_000  # numbers written in a step; beyond, threads and a library's products pay


@dataclass(frozen=True)
class LoopProgram:
    """C++ source of ``run(inputs, outputs, work, steps)`` and what a caller must allot.

    Attributes:
        num_state: leading inputs that the leading outputs replace after every step.
        noise: which inputs have a leading dimension of steps.
        outputs: shape and dtype of each; those after the state get a leading dimension of steps.
        work: bytes of scratch memory.
    """

    source: str
    num_inputs: int
    num_state: int
    noise: tuple[int, ...]
    outputs: tuple[tuple[torch.Size, torch.dtype], ...]
    work: int


def loop_program(
    module: GraphModule, example: Sequence[Tensor], num_state: int = 0, num_noise: int = 0
) -> LoopProgram:
    """The loops of ``module``, whose last ``num_noise`` inputs differ from step to step.

    Raises:
        NotInLoops: an operation, dtype or device that cannot be written, or too much work.
    """
    if any(t.device.type != "cpu" or t.dtype not in TYPES for t in example):
        raise NotInLoops("inputs of other kinds than float and integer tensors on the CPU")
    return _Lowering(_decomposed(module, example), example, num_state, num_noise).program()


@cache
def _decompositions() -> dict[Any, Any]:
    """torch's own, of everything that is not known here."""
    known = {*ELEMENTWISE, *VIEWS, *FILLED, *REDUCTIONS, *SPECIAL, "clamp"}
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
    emitter: Emitter = field(default_factory=Emitter)
    values: dict[Node, Any] = field(default_factory=dict)

    def program(self) -> LoopProgram:
        nodes = list(self.module.graph.nodes)
        inputs = [node for node in nodes if node.op == "placeholder"]
        first_noise = len(inputs) - self.num_noise
        for i, (node, tensor) in enumerate(zip(inputs, self.example, strict=True)):
            kind = "state" if i < self.num_state else "noise" if i >= first_noise else "input"
            buffer = self.emitter.given(kind, i, tensor.dtype, tensor.numel())
            strides = tensor.stride() if kind == "input" else contiguous(tensor.shape)
            self.values[node] = Value(buffer, tensor.dtype, tuple(tensor.shape), strides, 0)
        for node in nodes:
            if node.op == "call_function":
                self.values[node] = self._lowered(node)
            elif node.op == "get_attr":
                raise NotInLoops("a tensor inside the graph")
        (output,) = [node for node in nodes if node.op == "output"]
        results = [self.value(node) for node in output.args[0]]
        if self.emitter.volume > LARGEST:
            raise NotInLoops(f"{self.emitter.volume} numbers a step")
        source, work = self.emitter.source(results, self.num_state)
        return LoopProgram(
            source,
            len(inputs),
            self.num_state,
            tuple(range(first_noise, len(inputs))),
            tuple((torch.Size(v.shape), v.dtype) for v in results),
            work,
        )

    # ---- what a node is -----------------------------------------------------------------

    def _lowered(self, node: Node) -> Any:
        name = name_of(node.target)
        if getattr(node.target, "__name__", "") == "getitem":
            return self.values[node.args[0]][node.args[1]]  # type: ignore[index]
        made = node.meta["val"]
        if name in VIEWS:
            return self._view(node)
        if not isinstance(made, Tensor):
            raise NotInLoops(name)
        if made.dtype not in TYPES:
            raise NotInLoops(str(made.dtype))
        if name in FILLED:
            number = {"ones": 1, "ones_like": 1, "new_ones": 1}.get(name, 0)
            if "full" in name or name == "scalar_tensor":
                number = node.args[0 if name == "scalar_tensor" else -1]  # type: ignore[assignment]
            if isinstance(number, Node):
                raise NotInLoops(name)
            return Expression(made.dtype, tuple(made.shape), literal(number, made.dtype), ())
        if name in REDUCTIONS:
            return self._reduction(node, name, made)
        if name in SPECIAL:
            return SPECIAL[name](self, node, made)
        expression = self._elementwise(node, name, made)
        return expression if self._is_written_into_user(node) else self.emitter.stored(expression)

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
        if name in OF_ONE:
            source: Any = node.args[0]
            shape = tuple(source.meta["val"].shape)
            dims = node.args[1] if len(node.args) > 1 else []
            given: Any = [dims] if isinstance(dims, int) else dims
            reduced = {d % len(shape) for d in given if shape} or set(range(len(shape)))
            found = self.expression(source, shape, made.dtype)
            if name == "mean":
                share = literal(1 / max(1, prod(shape[d] for d in reduced)), made.dtype)
                found = Expression.of(f"({{0}} * {share})", made.dtype, shape, [found])
            kind = "sum" if name == "mean" else name
            return self.emitter.reduced(kind, found, reduced, tuple(made.shape))
        left, right = (self.value(argument) for argument in node.args)
        a, b = left.meta(), right.meta()
        if name in ("mv", "dot"):
            b = b.expand(a.shape)
        else:  # [… i, k, j]
            a, b = a.unsqueeze(-1), b.unsqueeze(-3)
            a, b = torch.broadcast_tensors(a, b)
        shape = tuple(a.shape)
        factors = [left.seen_as(a).expression(), right.seen_as(b).expression()]
        product = Expression.of("({0} * {1})", made.dtype, shape, factors)
        summed = len(shape) - 1 if name in ("mv", "dot") else len(shape) - 2
        return self.emitter.reduced("sum", product, {summed}, tuple(made.shape))
