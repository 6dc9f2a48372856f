"""When to compile, and compiled functions for whoever evaluates one density very often."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import GraphModule

from vitools.errors import OptionError, VitoolsWarning, callers_level, first_words
from vitools.graphs.functional import (
    FunctionalGraph,
    functional_graph,
    notice,
    refuse_other_numbers,
)
from vitools.graphs.inductor import compile_graph, find_compiler
from vitools.graphs.loops import NotInLoops, compile_loops, find_loop_compiler

Compile = bool | Literal["auto"]

SECONDS_PER_NODE = 2.5e-6  # of an uncompiled graph: the cost of calling one operation
SECONDS_PER_ELEMENT = 1e-9  # and of one number in its result
SECONDS_TO_COMPILE = 4.0
SECONDS_TO_COMPILE_NODE = 5e-3
SECONDS_TO_WRITE_LOOPS = 0.5
SECONDS_TO_WRITE_NODE = 3e-3
SECONDS_TO_WRITE_PAIR = 1e-6  # of nodes: 30 s for 4000 of them


@dataclass(frozen=True)
class CompilePlan:
    """From which step on a run is compiled; ``None`` for never, and why.

    Attributes:
        by_loops: whether by :mod:`vitools.graphs.loops`.
    """

    switch_at: int | None
    reason: str = ""
    by_loops: bool = False


def plan(
    option: Compile,
    graph: FunctionalGraph | None,
    unroll: int,
    max_steps: int,
    block: int,
    *,
    loops: bool = True,
) -> CompilePlan:
    """Decide from the graph alone, never from a clock, so that a seed repeats its numbers.

    Loops cost a second or two, and are written before the first step where running uncompiled to
    the limit would cost twice that. For torch's compiler (other devices and number types)
    ``"auto"`` switches at the step where running uncompiled has cost about as much as compiling
    does: at worst the run takes twice what the better choice would have taken.
    """
    if option not in (True, False, "auto"):
        raise OptionError(f"compile: expected True, False or 'auto', got {option!r}.")
    if option is False:
        return CompilePlan(None, "uncompiled as asked")
    if graph is None:
        return CompilePlan(None, "not recorded, so not compiled")
    if find_compiler() is None:
        return CompilePlan(None, "no C++ compiler found, uncompiled")
    step = SECONDS_PER_NODE * graph.num_nodes + SECONDS_PER_ELEMENT * graph.elements
    not_repaid = CompilePlan(None, f"uncompiled: {max_steps} steps would not repay compiling")
    on_cpu = all(constant.device.type == "cpu" for constant in graph.constants)
    if loops and on_cpu and find_loop_compiler():
        repaid = option is True or max_steps * step >= 2 * seconds_to_write_loops(graph)
        return CompilePlan(0, by_loops=True) if repaid else not_repaid
    if option is True:
        return CompilePlan(0)
    compiling = SECONDS_TO_COMPILE + SECONDS_TO_COMPILE_NODE * graph.num_nodes * unroll
    switch = math.ceil(compiling / step / block) * block
    if 3 * switch > 2 * max_steps:
        return not_repaid
    return CompilePlan(switch, f"uncompiled: ended before step {switch}, from which compiling pays")


def seconds_to_write_loops(graph: FunctionalGraph) -> float:
    """About how long :mod:`vitools.graphs.loops` takes for a graph that it has not seen before."""
    n = graph.num_nodes
    return SECONDS_TO_WRITE_LOOPS + SECONDS_TO_WRITE_NODE * n + SECONDS_TO_WRITE_PAIR * n**2


def machine_code(
    module: GraphModule, example: Sequence[Tensor], fixed: Sequence[int]
) -> Callable[..., Any]:
    """``module`` compiled as loops where it can be, else by torch's compiler."""
    try:
        return compile_loops(module, example, fixed=fixed)
    except (NotInLoops, OSError):
        return compile_graph(module, example)


def compiled(
    function: Callable[..., Sequence[Tensor]],
    example: Sequence[Tensor],
    subject: str,
    *,
    option: Compile = True,
    calls: int = 0,
    tried: Sequence[Tensor] = (),
) -> Callable[..., Sequence[Tensor]]:
    """``function`` of tensors like ``example``, recorded and compiled; or as it is, with a notice.

    For a log density and its gradient that will be evaluated many thousand times. The function
    returns a list or tuple of tensors, follows the same path on every call, and draws nothing.

    Args:
        subject: names the function in the notice given when it cannot be compiled.
        option: ``"auto"`` compiles where ``calls`` evaluations would repay it, ``False`` never.
        tried: other arguments, at which the recording is held against the function, too: numbers
            that it reads out of its arguments behind torch's back stay those of the example.
    """
    try:
        graph = functional_graph(function, example)
        if graph.noise or graph.has_inner_noise:
            raise ValueError("it draws random numbers")
    except Exception as reason:  # tracing fails in as many ways as there are models
        notice(subject, reason)
        return function
    run: Callable[..., Any] = graph.module
    if plan(option, graph, 1, calls, 1).switch_at is not None:
        try:
            inputs = [*example, *graph.constants]
            run = machine_code(graph.module, inputs, range(len(example), len(inputs)))
        except Exception as reason:  # the compiler's own failures share no type either
            warnings.warn(
                f"{subject} could not be compiled and runs uncompiled: {first_words(reason)}",
                VitoolsWarning,
                stacklevel=callers_level(),
            )
    constants = graph.constants

    def call(*inputs: Tensor) -> Any:
        with torch.no_grad():
            return run(*(x.contiguous() for x in inputs), *constants)

    try:
        for given in (example, tried) if tried else (example,):
            expected = [value.detach() for value in function(*given)]
            refuse_other_numbers(expected, call(*given), rounding=graph.rounding)
    except ValueError as reason:
        notice(subject, reason)
        return function
    return call
