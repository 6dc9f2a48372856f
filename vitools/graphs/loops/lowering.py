"""What each operation of a graph becomes in a loop program."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from vitools.graphs.loops.emission import Emitter
from vitools.graphs.loops.matrices import MATRICES
from vitools.graphs.loops.operations import (
    BOOLEAN_ONLY,
    ELEMENTWISE,
    OF_ARGUMENTS,
    POWERS,
    TO_BOOLEAN,
    TYPES,
    VIEWS,
    WRAPPING,
    literal,
    name_of,
)
from vitools.graphs.loops.products import PRODUCTS, is_for_library, product
from vitools.graphs.loops.special import SPECIAL
from vitools.graphs.loops.values import Buffer, Formula, NotInLoops, Value, contiguous

aten = torch.ops.aten

OF_ONE = {"sum", "mean", "prod", "amax", "amin"}
FILLED = {"full", "full_like", "scalar_tensor", "zeros", "zeros_like", "ones", "ones_like"}
FILLED |= {"new_zeros", "new_ones", "new_full", "empty", "empty_like", "new_empty"}
KNOWN = {*ELEMENTWISE, *VIEWS, *FILLED, *OF_ONE, *PRODUCTS, *SPECIAL, *MATRICES, "clamp"}
"""Operations that are not to be taken apart."""


@dataclass
class Lowering:
    """Walks the graph once; ``values`` holds what each node became."""

    num_inputs: int
    emitter: Emitter = field(default_factory=Emitter)
    values: dict[Node, Any] = field(default_factory=dict)
    closed: dict[Node, Any] = field(default_factory=dict)
    """Nodes that follow from no input, and their values where they were wanted."""
    constants: list[Tensor] = field(default_factory=list)

    def lowered(self, node: Node) -> Any:
        name, made = name_of(node.target), node.meta["val"]
        if all(a in self.closed for a in node.all_input_nodes) and not _is_random(node):
            self.closed[node] = None
            number = _filled_with(node, name)
            if not isinstance(made, Tensor):
                return None
            return self._constant(node) if number is None else _full(number, made)
        if _depends_on_layout(node, name) or _writes_in_place(node):
            raise NotInLoops(f"{name}, which depends on how torch lays out its memory")
        if getattr(node.target, "__name__", "") == "getitem":
            return self.values[node.args[0]][node.args[1]]  # type: ignore[index]
        if name in VIEWS:
            return self._view(node)
        for part in made if isinstance(made, tuple | list) else [made]:
            if part is None:  # a gradient that nobody asked for
                continue
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
        if name in MATRICES:
            return MATRICES[name](self, node, made)
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
        index = self.num_inputs + len(self.constants)
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
        results = [p if p is None else self.emitter.fresh(p.dtype, p.shape) for p in parts]
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
        if isinstance(found, Formula):
            found = self.emitter.stored(found)
            self.values[node] = found
        return found

    def expression(self, argument: Any, shape: Sequence[int], dtype: torch.dtype) -> Formula:
        """An argument of an elementwise operation, broadcast to ``shape`` and cast to ``dtype``."""
        if not isinstance(argument, Node):
            if not isinstance(argument, int | float):
                raise NotInLoops(f"an argument {type(argument).__name__}")
            return Formula(dtype, tuple(shape), literal(argument, dtype), ())
        found = self.values[argument]
        if isinstance(found, Formula) and not found.leaves:
            found = Formula(found.dtype, tuple(shape), found.text, ())
        elif isinstance(found, Value) or found.shape != tuple(shape):
            found = self.value(argument).broadcast(shape).expression()
        return found.cast(dtype)

    def _elementwise(self, node: Node, name: str, made: Tensor) -> Formula:
        args = list(node.args)
        shape, dtype = tuple(made.shape), made.dtype
        inner = dtype
        if name in OF_ARGUMENTS:
            inner = torch.result_type(*(self._like(a) for a in (*args, *args)[:2]))
        elif name in TO_BOOLEAN:
            inner = torch.bool
        if name in BOOLEAN_ONLY and dtype is not torch.bool:
            raise NotInLoops(f"{name} of integers")
        if name == "pow" and not dtype.is_floating_point:
            raise NotInLoops("pow of integers")
        if name == "clamp":
            found = self.expression(args[0], shape, dtype)
            for bound, function in zip(
                (*args[1:], None, None), ("larger", "smaller"), strict=False
            ):
                if bound is not None:
                    other = self.expression(bound, shape, dtype)
                    found = Formula.of(f"{function}({{0}}, {{1}})", dtype, shape, [found, other])
            return found
        if name == "pow" and isinstance(args[1], int | float) and dtype.is_floating_point:
            base = self.expression(args[0], shape, dtype)
            if args[1] in POWERS:
                return Formula.of(POWERS[args[1]], dtype, shape, [base])
        if name not in ELEMENTWISE or node.kwargs.get("rounding_mode") or len(args) > 3:
            raise NotInLoops(name or str(node.target))
        kinds = [torch.bool if name == "where" and i == 0 else inner for i in range(len(args))]
        found = [self.expression(a, shape, k) for a, k in zip(args, kinds, strict=True)]  # type: ignore[assignment]
        alpha = node.kwargs.get("alpha", 1)
        if alpha != 1:
            scale = self.expression(alpha, shape, dtype)
            template = _template("mul", dtype)
            found[1] = Formula.of(template, dtype, shape, [found[1], scale])  # type: ignore[index]
        return Formula.of(_template(name, dtype), dtype, shape, found)  # type: ignore[arg-type]

    @staticmethod
    def _like(argument: Any) -> Any:
        return argument.meta["val"] if isinstance(argument, Node) else argument

    # ---- views and reductions -----------------------------------------------------------

    def _view(self, node: Node) -> Any:
        source, *rest = node.args
        made = node.meta["val"]
        known = self.values[source]  # type: ignore[index]
        if isinstance(known, Formula) and not known.leaves and isinstance(made, Tensor):
            return Formula(known.dtype, tuple(made.shape), known.text, ())
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
        dims = node.args[1] if len(node.args) > 1 else None
        given: Any = [dims] if isinstance(dims, int) else dims or []
        reduced = {d % len(shape) for d in given if shape} or set(range(len(shape)))
        found = self.expression(source, shape, made.dtype)
        if name == "mean":
            share = literal(1 / max(1, prod(shape[d] for d in reduced)), made.dtype)
            found = Formula.of(f"({{0}} * {share})", made.dtype, shape, [found])
        if node.kwargs.get("dtype") not in (None, made.dtype):
            raise NotInLoops(name)
        kind = "sum" if name == "mean" else name
        return self.emitter.reduced(kind, found, reduced, tuple(made.shape))


def _template(name: str, dtype: torch.dtype) -> str:
    """The operation in C, with the overflow of its type."""
    template, kind = ELEMENTWISE[name], TYPES[dtype]
    if dtype in (torch.bool, torch.uint8):  # C computes these in int
        return f"({kind})({template})"
    if name in WRAPPING and not dtype.is_floating_point:
        for mark in ("{0}", "{1}"):
            template = template.replace(mark, f"(unsigned {kind}){mark}")
        return f"({kind})({template})"
    return template


def _is_symbolic(tensor: Tensor) -> bool:
    """Whether a size is known only when the program runs."""
    return not all(isinstance(n, int) for n in tensor.shape)


def _depends_on_layout(node: Node, name: str) -> bool:
    """Whether it counts in memory, where a result may lie in another order here than in torch."""
    if not name.startswith("as_strided"):
        return False
    source: Any = node.args[0]
    in_order = source.op == "placeholder" and source.meta["val"].is_contiguous()
    return name != "as_strided" or not in_order


def _writes_in_place(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


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


def _full(number: Any, made: Tensor) -> Formula:
    return Formula(made.dtype, tuple(made.shape), literal(number, made.dtype), ())
