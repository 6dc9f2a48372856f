"""Turns the steps of a running ascent into machine code, at a step fixed beforehand."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from vitools.engines.ascent import BLOCK, Ascent
from vitools.engines.compiled import Compile, Plan, plan, refuse_other_numbers
from vitools.engines.functional import FunctionalGraph
from vitools.engines.inductor import CompilingBeside, compile_graph
from vitools.errors import VitoolsWarning
from vitools.program import first_words


class Compiling:
    """Called before each block; compiles beside the run from half way to the switch.

    Attributes:
        how: how the steps were run, in words.
        note: how they run now, in one.
    """

    def __init__(
        self,
        option: Compile,
        ascent: Ascent,
        max_steps: int,
        draw: Callable[[], list[Tensor]],
        subject: str,
    ) -> None:
        graph = ascent.gradient if isinstance(ascent.gradient, FunctionalGraph) else None
        self.ascent, self.draw, self.subject = ascent, draw, subject
        self.plan = plan(option, graph, ascent.unroll, max_steps, BLOCK)
        self.how = self.plan.reason
        self.note = "" if graph is None else "recorded"
        self.helper: CompilingBeside | None = None

    def __call__(self, done: int) -> None:
        """To be called before the block of steps that follows the ``done`` first."""
        switch = self.plan.switch_at
        if switch is None or self.ascent.compiled is not None:
            return
        if done >= switch:
            self._switch(done)
        elif self.helper is None and done >= switch // 2:
            self.helper = CompilingBeside(*self.ascent.program(self.draw()))

    def _switch(self, done: int) -> None:
        try:
            module, inputs = self.ascent.program(self.draw())
            ready = compile_graph(module, inputs) if self.helper is None else self.helper.finish()
            with torch.no_grad():
                refuse_other_numbers(module(*inputs), ready(*inputs))
            self.ascent.compiled = ready
        except Exception as reason:  # the compiler's failures share no type
            self.how = f"not compiled: {first_words(reason)}"
            self.plan = Plan(None, self.how)
            warnings.warn(
                f"{self.subject} could not be compiled and goes on uncompiled: "
                f"{first_words(reason)}",
                VitoolsWarning,
                stacklevel=6,
            )
            return
        self.how = f"compiled from step {done}" if done else "compiled"
        self.note = "compiled"

    def close(self) -> None:
        """Ends a helper that is still compiling."""
        if self.helper is not None:
            self.helper.cancel()
