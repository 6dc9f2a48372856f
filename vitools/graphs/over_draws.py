"""A function of one draw as machine code that takes any number of draws in one call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule

from vitools.graphs.compiled import seconds_to_write_loops
from vitools.graphs.functional import FunctionalGraph, aten, functional_graph, refuse_other_numbers
from vitools.graphs.loops import compile_loops, find_loop_compiler

SECONDS_PER_ELEMENT = 1e-9  # of a result computed by torch, many draws at a time


@dataclass(frozen=True)
class OverDraws:
    """A compiled function: from ``[n, *shape]`` of every argument to ``[n, *shape]`` of every result.

    Attributes:
        run: the program, called with ``constants`` and arguments.
        rounding: of the widest of its number types.
        seconds_by_torch: of one draw, about.
        seconds_to_write: what it took to have the program, about.
    """

    run: Callable[..., list[Tensor]]
    constants: Sequence[Tensor]
    rounding: float
    seconds_by_torch: float
    seconds_to_write: float

    def __call__(self, *draws: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return self.run(*self.constants, *(t.detach() for t in draws))

    def repays(self, num_samples: int) -> bool:
        """Whether so many draws repay the writing of it."""
        return num_samples * self.seconds_by_torch >= 2 * self.seconds_to_write

    def gives(self, expected: Sequence[Tensor], draws: Sequence[Tensor]) -> bool:
        """Whether it gives the numbers that torch gives at some draws; infinities and NaN prove nothing."""
        if not all(bool(value.isfinite().all()) for value in expected):
            return False
        try:
            got = self(*draws)
            if [t.shape for t in got] != [t.shape for t in expected]:
                return False
            refuse_other_numbers([t.detach() for t in expected], got, rounding=self.rounding)
        except ValueError:
            return False
        return True


class Programs(dict[str, OverDraws]):
    """Compiled functions of one problem's draws by name, each written once.

    Data, parameters and what else a model reads may have changed since: before it is used again, a
    program is held against torch at two draws of the present, and written anew where it differs.
    A copy, or a file, begins without any.
    """

    def over_draws(
        self,
        name: str,
        function: Callable[..., Sequence[Tensor]],
        draws: Sequence[Tensor],
        expected: Sequence[Tensor],
        num_samples: int,
    ) -> OverDraws | None:
        """:func:`over_draws`, or what it gave before; whether it repays does not hang on that."""
        kept = self.get(name)
        if kept is not None and kept.gives(expected, draws):
            return kept if kept.repays(num_samples) else None
        made = over_draws(function, draws, expected, num_samples)
        if made is not None:
            self[name] = made
        return made

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[type["Programs"], tuple[()]]:
        return type(self), ()


def over_draws(
    function: Callable[..., Sequence[Tensor]],
    draws: Sequence[Tensor],
    expected: Sequence[Tensor],
    num_samples: int,
) -> OverDraws | None:
    """``function`` compiled; None where it cannot be or would not repay it.

    A recording holds what was *recorded*: a number that the function reads out of a draw in a way
    that torch does not see (``numpy``, ``tolist``, how many elements are above it) would stay that
    of the first. vmap refuses such functions: ask it for ``expected``.

    Whether it would follows from the graph and from ``num_samples``, never from a clock, so that
    numbers repeat to their last digit.

    Args:
        function: of a draw in tensors, to a flat sequence of tensors; it draws nothing itself.
        draws: two different draws or more, ``[n, *shape]`` each.
        expected: ``function`` of them as torch has it, ``[n, *shape]`` each.
        num_samples: about how many there will be altogether.
    """
    if find_loop_compiler() is None or any(t.device.type != "cpu" for t in draws):
        return None
    if not all(bool(value.isfinite().all()) for value in expected):
        return None
    example = [t[0] for t in draws]
    try:
        graph = functional_graph(function, example)
        if graph.noise or graph.has_inner_noise:
            return None
        constants, by_torch = graph.constants, SECONDS_PER_ELEMENT * graph.elements
        to_write = seconds_to_write_loops(graph)
        if num_samples * by_torch < 2 * to_write:
            return None
        run = compile_loops(
            _of_steps(graph, len(example)),
            [*constants, *(t.detach().unsqueeze(0) for t in example)],
            num_noise=len(example),
            fixed=range(len(constants)),
        )
    except Exception:  # tracing fails in as many ways as there are models; torch runs it instead
        return None
    made = OverDraws(run, constants, graph.rounding, by_torch, to_write)
    return made if made.gives(expected, draws) else None


def _of_steps(graph: FunctionalGraph, num_arguments: int) -> GraphModule:
    """Inputs: constants, a draw ``[1, …]``; outputs ``[1, …]``: a step of a loop program."""
    steps = Graph()
    constants = [steps.placeholder(f"c{i}") for i in range(len(graph.constants))]
    given = [steps.placeholder(f"x{i}") for i in range(num_arguments)]
    draw = [steps.call_function(aten.select.int, (node, 0, 0)) for node in given]
    inside = graph.module.graph
    inputs = [node for node in inside.nodes if node.op == "placeholder"]
    results = steps.graph_copy(inside, dict(zip(inputs, [*draw, *constants], strict=True)))
    assert isinstance(results, list | tuple)
    steps.output([steps.call_function(aten.unsqueeze.default, (node, 0)) for node in results])
    return GraphModule({}, steps)
