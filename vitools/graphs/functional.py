"""A recorded gradient as a pure function: parameters, data and noise in, loss and gradient out.

Recording runs the Python once and keeps its aten operations (``make_fx``). What does not depend
on a parameter is then taken out of the graph, so that a step does only what it must:

- what follows from the data alone is computed once;
- noise that no parameter shapes (``randn``, ``rand``, the indices of a minibatch) becomes an
  input, drawn outside for several steps at a time: a graph gives the same numbers however it
  is run, and a run can be taken up again at any block of steps;
- what is left is freed of duplicates and of operations that change nothing.

Draws that a parameter shapes (gamma, Dirichlet) stay inside and use torch's global generator.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from vitools.errors import VitoolsWarning, callers_level
from vitools.graphs.mutation import drop_detached, is_mutable, replace_mutations
from vitools.graphs.noise import Noise, is_random, noise_of
from vitools.graphs.numbers import NumbersOfData

aten = torch.ops.aten

SMALL_PART = 1e-3
UNCHANGED = {
    aten.lift_fresh_copy.default,
    aten.lift_fresh.default,
    aten.detach_copy.default,
    aten.alias_copy.default,
}
"""Operations whose value is their first argument's."""


@dataclass(frozen=True)
class FunctionalGraph:
    """A graph whose inputs are ``[*parameters, *constants, *noise]``; its outputs are a list.

    Attributes:
        constants: tensors that follow from the data.
        recorded_noise: what the recorded function draws, in order, and whether the graph uses it.
        has_inner_noise: whether draws remain that a parameter shapes.
        elements: numbers computed in one run, a measure of its work.
        rounding: machine epsilon of the coarsest number type, float32 or finer, that it computes
            in: a float64 result may hold no more than float32's digits.
    """

    module: GraphModule
    constants: tuple[Tensor, ...]
    recorded_noise: tuple[tuple[Noise, bool], ...]
    has_inner_noise: bool
    elements: int
    rounding: float

    def __call__(self, parameters: Sequence[Tensor], noise: Sequence[Tensor]) -> Any:
        return self.module(*parameters, *self.constants, *noise)

    @cached_property
    def noise(self) -> tuple[Noise, ...]:
        return tuple(noise for noise, is_used in self.recorded_noise if is_used)

    def draw(self, count: int) -> list[Tensor]:
        """Noise of ``count`` runs, each ``[count, *shape]``."""
        return [noise.draw(count) for noise in self.noise]

    def draw_as_recorded(self) -> list[Tensor]:
        """Noise of one run, the numbers that the recorded function draws with the same seed.

        Where ``has_inner_noise``, the two draw in another order.
        """
        drawn = [(noise.draw(1, as_recorded=True)[0], used) for noise, used in self.recorded_noise]
        return [numbers for numbers, is_used in drawn if is_used]

    @property
    def num_nodes(self) -> int:
        return sum(node.op == "call_function" for node in self.module.graph.nodes)


def functional_graph(
    function: Callable[..., Sequence[Tensor]],
    example: Sequence[Tensor],
    captured: Sequence[Tensor] = (),
) -> FunctionalGraph:
    """``function(*example)``, a flat sequence of tensors, as a :class:`FunctionalGraph`.

    Args:
        captured: tensors the function reads without being given them; they become parameters
            of the graph, before those of ``example``.

    Raises:
        Exception: whatever tracing raises; there are as many ways to fail as there are models.
    """

    def reading(*inputs: Tensor) -> Sequence[Tensor]:
        with NumbersOfData(captured):
            return function(*inputs)

    recorded = make_fx(reading)(*example)
    _lift(recorded, captured)
    drop_detached(recorded.graph)
    if not replace_mutations(recorded.graph):  # views share memory: torch knows how to part them
        recorded.recompile()
        inputs = [tensor.detach() for tensor in (*captured, *example)]
        recorded = make_fx(torch.func.functionalize(recorded, remove="mutations"))(*inputs)
        drop_detached(recorded.graph)
        replace_mutations(recorded.graph)
    return _Rewriter(recorded).result


def notice(subject: str, reason: Exception) -> None:
    """Say once that something runs as it is, and why."""
    words = str(reason).splitlines()[0] if str(reason) else type(reason).__name__
    if "out of a tracing tensor" in words:
        words = (
            "it reads a number out of a tensor that depends on a parameter or a draw (int(x), "
            "float(x), x.item(), or an if on one); torch.where chooses without"
        )
    warnings.warn(
        f"{subject} cannot be recorded as a graph and runs step by step in Python "
        f"(slower, same numbers): {words}",
        VitoolsWarning,
        stacklevel=callers_level(),
    )


def refuse_other_numbers(
    expected: Sequence[Tensor],
    got: Sequence[Tensor],
    what: str = "the compiled graph",
    tolerance: float | None = None,
    least: float = 1.0,
    sizes: Sequence[int] = (),
    allowances: Sequence[float] = (),
    rounding: float = 0.0,
) -> None:
    """Raise ValueError where ``what`` does not give what is expected.

    Args:
        tolerance: relative to the number and to the largest one of its part, because sums cancel;
            half the digits if omitted.
        least: what a largest number counts as where it is smaller.
        sizes: of the parts of a row of all parameters; a part is held against a thousandth of the
            row's largest number at least.
        allowances: by how much more each tensor may differ, 0 if omitted.
        rounding: machine epsilon of what the tensors were computed in, where coarser than theirs.
    """
    spare = [*allowances, *[0.0] * (len(expected) - len(allowances))]
    for one, other, allowance in zip(expected, got, spare, strict=True):
        exact = not one.is_floating_point()
        digits = 0.0 if exact else 10 * max(torch.finfo(one.dtype).eps, rounding) ** 0.5
        digits = digits if tolerance is None else tolerance
        floor = max(least, SMALL_PART * _largest(one))
        in_parts = sizes and one.shape == (sum(sizes),)
        parts = one.split(list(sizes)) if in_parts else (one,)
        others = other.split(list(sizes)) if in_parts else (other,)
        for a, b in zip(parts, others, strict=True):
            within = digits * max(floor, _largest(a)) + allowance
            if not torch.allclose(a, b, rtol=digits, atol=within, equal_nan=True):
                raise ValueError(f"{what} gives other numbers")


def _largest(tensor: Tensor) -> float:
    finite = tensor[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _lift(recorded: GraphModule, captured: Sequence[Tensor]) -> None:
    """Makes inputs of tensors that the recorded function read by itself."""
    graph = recorded.graph
    with graph.inserting_before(next(iter(graph.nodes))):
        inputs = {id(t): graph.placeholder(f"p{i}") for i, t in enumerate(captured)}
    for node in list(graph.nodes):
        if node.op == "get_attr":
            lifted = inputs.get(id(_attribute(recorded, str(node.target))))
            if lifted is not None:
                node.replace_all_uses_with(lifted)
                graph.erase_node(node)


class _Rewriter:
    """Builds the functional graph from a recorded one."""

    def __init__(self, recorded: GraphModule) -> None:
        self.recorded = recorded
        self.graph = Graph()
        self.env: dict[Node, Any] = {}
        self.known: dict[Node, Any] = {}
        self.constants: dict[Any, tuple[Tensor, Node]] = {}
        self.noise: list[tuple[Noise, Node]] = []
        self.elements = 0
        self.rounding = 0.0
        recorded.graph.eliminate_dead_code(lambda node: _is_impure(node) or is_random(node))
        nodes = list(recorded.graph.nodes)
        live = self._inputs(nodes)
        for node in live:  # inputs first: torch.fx wants them before any operation
            for argument in node.all_input_nodes:
                if argument in self.known:
                    self._constant(argument)
        (output,) = [node for node in nodes if node.op == "output"]
        for argument in output.all_input_nodes:
            if argument in self.known:
                self._constant(argument)
        self._noise_inputs(live)
        self._operations(live)
        results = output.args[0]
        results = [results] if isinstance(results, Node) else list(results)
        self.graph.output([self.env[node] for node in results])
        inner_noise = sum(map(is_random, self.graph.nodes))
        self.graph.eliminate_dead_code(_is_impure)
        used = [(noise, bool(node.users)) for noise, node in self.noise]
        for _, node in self.noise:
            if not node.users:
                self.graph.erase_node(node)
        self.result = FunctionalGraph(
            GraphModule({}, self.graph),
            tuple(tensor for tensor, _ in self.constants.values()),
            tuple(used),
            inner_noise > 0,
            self.elements,
            self.rounding,
        )

    def _inputs(self, nodes: list[Node]) -> list[Node]:
        """Evaluates what no parameter touches; returns the operations that remain."""
        live: dict[Node, None] = {}
        for node in nodes:
            if node.op == "placeholder":
                self.env[node] = self.graph.placeholder(node.name)
            elif node.op == "get_attr":
                tensor = _attribute(self.recorded, str(node.target))
                self.known[node] = tensor.detach() if isinstance(tensor, Tensor) else tensor
            elif node.op == "call_function":
                if is_mutable(node):
                    raise ValueError(f"the model changes its own state by {node.target}")
                depends = any(a in self.env or a in live for a in node.all_input_nodes)
                if depends or is_random(node):
                    live[node] = None
                else:
                    args, kwargs = map_arg((node.args, node.kwargs), self.known.__getitem__)
                    self.known[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        return list(live)

    def _constant(self, node: Node) -> None:
        value = self.known[node]
        if not isinstance(value, Tensor):
            raise ValueError(f"cannot record the result of {node.target}")
        # the model may have looked at one tensor several times
        key: Any = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device)
        if value.numel() == 0:
            key = id(value)
        if node.op != "get_attr" and value.numel() == 1:  # the same number is one constant
            key = (value.dtype, value.device, value.shape, value.item())
        if key not in self.constants:
            self.constants[key] = (value, self.graph.placeholder(f"c{len(self.constants)}"))
        self.env[node] = self.constants[key][1]

    def _noise_inputs(self, live: list[Node]) -> None:
        for node in live:
            if not is_random(node):
                continue
            found = noise_of(node, self.known)
            if found is None:
                continue
            noise, drawn = found
            here = self.graph.placeholder(f"n{len(self.noise)}")
            self.env[node] = self.env[drawn] = here
            self.noise.append((noise, here))

    def _operations(self, live: list[Node]) -> None:
        seen: dict[Any, Node] = {}
        for node in live:
            if node in self.env:
                continue
            if node.target in UNCHANGED or _is_identity(node):
                self.env[node] = self.env[node.args[0]]  # type: ignore[index]
                continue
            args, kwargs = map_arg((node.args, node.kwargs), self.env.__getitem__)
            key = (node.target, repr(args), repr(kwargs))
            if is_random(node) or key not in seen:
                seen[key] = self.graph.call_function(node.target, args, kwargs)  # type: ignore[arg-type]
                value = node.meta.get("val")
                if isinstance(value, Tensor):
                    self.elements += value.numel()
                    if value.dtype in (torch.float32, torch.float64):
                        self.rounding = max(self.rounding, torch.finfo(value.dtype).eps)
            self.env[node] = seen[key]


def _attribute(module: GraphModule, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _is_impure(node: Node) -> bool:
    return node.op in ("placeholder", "output") or is_mutable(node)


def _is_identity(node: Node) -> bool:
    """An expansion to the shape it has, a product with one, a sum with zero."""
    first = node.args[0] if node.args else None
    if not isinstance(first, Node) or "val" not in first.meta or "val" not in node.meta:
        return False
    before, after = first.meta["val"], node.meta["val"]
    if not isinstance(after, Tensor) or not isinstance(before, Tensor):
        return False
    if before.shape != after.shape or before.dtype != after.dtype:
        return False
    if before.stride() != after.stride():  # a view of it may need the other layout
        return False
    if node.target in (aten.expand.default, aten.view.default, aten.expand_copy.default):
        return True
    scalar = node.args[1] if len(node.args) == 2 else None
    if not isinstance(scalar, int | float):
        return False
    if node.target in (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar):
        return scalar == 1
    return node.target in (aten.add.Tensor, aten.sub.Tensor, aten.add.Scalar) and scalar == 0
