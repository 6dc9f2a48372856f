"""A function of one draw as machine code that takes any number of draws in one call."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule

from vitools.graphs.compiled import seconds_to_write_loops
from vitools.graphs.functional import FunctionalGraph, aten, functional_graph, refuse_other_numbers
from vitools.graphs.loops import compile_loops, find_loop_compiler

SECONDS_PER_ELEMENT = 1e-9  # of a result computed by torch, many draws at a time

OverDraws = Callable[..., list[Tensor]]
"""From ``[n, *shape]`` of every argument to ``[n, *shape]`` of every result."""


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
        return None  # infinities and NaN prove nothing
    example = [t[0] for t in draws]
    try:
        graph = functional_graph(function, example)
        if graph.noise or graph.has_inner_noise:
            return None
        by_torch = num_samples * SECONDS_PER_ELEMENT * graph.elements
        if by_torch < 2 * seconds_to_write_loops(graph):
            return None
        run = compile_loops(
            _of_steps(graph, len(example)),
            [*graph.constants, *(t.detach().unsqueeze(0) for t in example)],
            num_noise=len(example),
            fixed=range(len(graph.constants)),
        )
    except Exception:  # tracing fails in as many ways as there are models; torch runs it instead
        return None
    constants = graph.constants

    def call(*draws: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return run(*constants, *(t.detach() for t in draws))

    try:
        plain = [value.detach() for value in expected]
        refuse_other_numbers(plain, call(*draws), rounding=graph.rounding)
    except ValueError:
        return None
    return call


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
