"""Turns the steps of a running ascent into machine code, at a step fixed beforehand."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from vitools.engines.svi.optimisers.ascent import BLOCK, GradientAscent
from vitools.errors import VitoolsWarning, callers_level, first_words
from vitools.graphs.compiled import Compile, CompilePlan, plan
from vitools.graphs.functional import FunctionalGraph, refuse_other_numbers
from vitools.graphs.inductor import CompilingBeside, compile_graph
from vitools.graphs.loops import NotInLoops, compile_loops
from vitools.isolation import seeded


class Compiling:
    """Called before each block; compiles beside the run from half way to the switch.

    Attributes:
        how: how the steps were run, in words.
        note: how they run now, in one.
    """

    def __init__(
        self,
        option: Compile,
        ascent: GradientAscent,
        max_steps: int,
        draw: Callable[[], list[Tensor]],
        subject: str,
    ) -> None:
        graph = ascent.gradient if isinstance(ascent.gradient, FunctionalGraph) else None
        self.ascent, self.draw, self.subject = ascent, draw, subject
        self.decide = partial(plan, option, graph, ascent.unroll, max_steps, BLOCK)
        self.plan = self.decide()
        self.how = self.plan.reason
        self.note = "" if graph is None else "recorded"
        self.helper: CompilingBeside | None = None

    def __call__(self, done: int) -> None:
        """To be called before the block of steps that follows the ``done`` first."""
        if self.plan.by_loops and self.ascent.compiled is None:
            self._write_loops(done)
        switch = self.plan.switch_at
        if switch is None or self.ascent.compiled is not None:
            return
        if done >= switch:
            self._switch(done)
        elif self.helper is None and done >= switch // 2:
            self.helper = CompilingBeside(*self.ascent.program(self.draw()))

    def _write_loops(self, done: int) -> None:
        try:
            noise = self.draw()
            module, inputs, num_state = self.ascent.one_step(noise)
            noise = noise if num_state else []
            end = len(inputs) - len(noise)
            constants = range(end - len(self.ascent.constants), end)
            ready = compile_loops(module, inputs, num_state, len(noise), constants)
            with torch.no_grad(), seeded(0):  # draws inside the graph must be the same for both
                expected = _walked(module, inputs, num_state, noise)
            with torch.no_grad(), seeded(0):
                got = ready(*inputs[:end], *noise)
                # parameter by parameter: small gradients beside large ones count, too
                allowances = self.ascent.allowances(len(noise[0]) if noise else 1)
                refuse_other_numbers(
                    expected,
                    got,
                    sizes=self.ascent.sizes,
                    allowances=allowances,
                    rounding=self.ascent.rounding,
                )
        except (NotInLoops, OSError):
            self.plan = self.decide(loops=False)
            self.how = self.plan.reason
            return
        except Exception as reason:
            self._give_up(reason)
            return
        self._use(ready, len(noise[0]) if noise else 1, done)

    def _switch(self, done: int) -> None:
        try:
            module, inputs = self.ascent.program(self.draw())
            ready = compile_graph(module, inputs) if self.helper is None else self.helper.finish()
            with torch.no_grad(), seeded(0):  # draws inside the graph must be the same for both
                expected = module(*inputs)
            with torch.no_grad(), seeded(0):
                refuse_other_numbers(expected, ready(*inputs), rounding=self.ascent.rounding)
        except Exception as reason:  # the compiler's failures share no type
            self._give_up(reason)
            return
        self._use(ready, self.ascent.unroll, done)

    def _use(self, ready: Callable[..., Any], steps_a_call: int, done: int) -> None:
        self.ascent.compiled, self.ascent.steps_a_call = ready, steps_a_call
        self.how = f"compiled from step {done}" if done else "compiled"
        self.note = "compiled"

    def _give_up(self, reason: Exception) -> None:
        self.how = f"not compiled: {first_words(reason)}"
        self.plan = CompilePlan(None, self.how)
        warnings.warn(
            f"{self.subject} could not be compiled and goes on uncompiled: {first_words(reason)}",
            VitoolsWarning,
            stacklevel=callers_level(),
        )

    def close(self) -> None:
        """Ends a helper that is still compiling."""
        if self.helper is not None:
            self.helper.cancel()


def _walked(
    module: GraphModule, inputs: Sequence[Tensor], num_state: int, noise: Sequence[Tensor]
) -> list[Tensor]:
    """What ``module`` gives step by step, as the loops give it at once."""
    if not noise:
        return list(module(*inputs))
    state, fixed = inputs[:num_state], inputs[num_state : len(inputs) - len(noise)]
    results = []
    for i in range(len(noise[0])):
        after = module(*state, *fixed, *(draws[i : i + 1] for draws in noise))
        state = after[:num_state]
        results.append(after[num_state:])
    return [*state, *(torch.cat(column) for column in zip(*results, strict=True))]
