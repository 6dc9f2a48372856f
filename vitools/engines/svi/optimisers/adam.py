"""Adam over one flat vector, and several of its steps with their gradients as one graph.

:class:`~vitools.Adam` has the formulas. All is a pure function of the state, so that a block of steps
is taken whole or not at all.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import Parameter

from vitools.engines.svi.optimisers.adam_settings import Adam
from vitools.engines.svi.optimisers.ascent import BLOCK, GradientAscent
from vitools.engines.svi.optimisers.gradient import Gradient
from vitools.engines.svi.optimisers.schedules import factor_at
from vitools.graphs.functional import FunctionalGraph, aten

LARGEST_GRAPH = 1000  # operations; a larger graph compiles for too long


class AdamState(NamedTuple):
    """The parameters in a row, the moments, the sum of iterates of this stage, the step count."""

    theta: Tensor
    first: Tensor
    second: Tensor
    total: Tensor
    step: Tensor


def adam(state: AdamState, rate: Tensor, gradient: Tensor, settings: Adam) -> AdamState:
    """One step."""
    beta, beta_square = settings.betas
    step = state.step + 1
    first = beta * state.first + (1 - beta) * gradient
    second = beta_square * state.second + (1 - beta_square) * gradient * gradient
    scale = (second * (1 / (1 - beta_square**step))).sqrt() + settings.epsilon
    theta = state.theta - rate / (1 - beta**step) * (first / scale)
    return AdamState(theta, first, second, state.total + theta, step)


def clipped(gradient: Tensor, limit: float) -> Tensor:
    """The gradient, shortened to Euclidean length ``limit`` where it is longer."""
    return gradient * (limit / (gradient.norm() + 1e-12)).clamp(max=1.0)


class AdamAscent(GradientAscent):
    """Adam with all parameters in one vector; pure functions, so that a block is all or nothing.

    Args:
        rate: the step size.
        units: what it is multiplied by for each number of the parameters.
        settings: betas, epsilon and the schedule of the step size.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        gradient: Gradient,
        clip_norm: float | None,
        rate: float,
        units: Tensor | None = None,
        settings: Adam = Adam(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(parameters, gradient, clip_norm)
        self.settings = settings
        theta = torch.cat([p.detach().flatten() for p in self.parameters])
        self.unscheduled_rate = theta.new_tensor(rate)
        if units is not None:
            self.unscheduled_rate = self.unscheduled_rate * units
        self.rate = self.unscheduled_rate  # of the block that is being taken
        zeros = torch.zeros_like(theta)
        self._take(AdamState(theta, zeros, zeros, zeros, theta.new_zeros(())))
        self.restart_average()
        self.place(self.values)

    def _take(self, state: AdamState) -> None:
        self.adam_state = state
        self.values, self.totals = [state.theta], [state.total]

    def restart_average(self) -> None:
        super().restart_average()
        self.adam_state = self.adam_state._replace(total=self.totals[0])

    def scale_rate(self, factor: float) -> None:
        self.unscheduled_rate = self.unscheduled_rate * factor

    def _scheduled_rate(self) -> Tensor:
        """The step size of the block that comes next."""
        schedule = self.settings.schedule
        if schedule is None:
            return self.unscheduled_rate
        return self.unscheduled_rate * factor_at(schedule, int(self.adam_state.step))

    def metric(self, stride: int = 1) -> Tensor:
        """By what a step divides the gradient of every ``stride``-th number of the parameters."""
        square = self.adam_state.second[::stride]
        square = square / (1 - self.settings.betas[1] ** self.adam_state.step)
        rate = self.rate[::stride] if self.rate.ndim else self.rate
        return (square.sqrt() + self.settings.epsilon) / rate

    def place(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, part in zip(self.parameters, self._parts(values[0]), strict=True):
                parameter.copy_(part)

    def _parts(self, theta: Tensor) -> list[Tensor]:
        parts = theta.split(self.sizes)
        return [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)]

    @torch.no_grad()
    def advance(self, noise: Sequence[Tensor], count: int) -> list[float]:
        self.rate = self._scheduled_rate()
        whole = self.compiled is not None and count == BLOCK
        state, result = self._run(noise) if whole else self._walk(noise, count)
        self.lost = None
        if not (all(map(math.isfinite, result)) and _all_finite(state.theta)):
            self.lost = [state.theta]
            return result  # the block is not taken
        self._take(state)
        self.averaged += count
        self.mark()
        return result

    def _run(self, noise: Sequence[Tensor]) -> tuple[AdamState, list[float]]:
        """A block by the compiled program."""
        assert self.compiled is not None
        state, losses = self.adam_state, list[float]()
        for begin in range(0, BLOCK, self.steps_a_call):
            part = [draws[begin : begin + self.steps_a_call] for draws in noise]
            *after, values = self.compiled(*state, self.rate, *self.constants, *part)
            state = AdamState(*after)
            losses += values.tolist()
        if self.steps_a_call < BLOCK:  # the second call of a block writes where the last block lies
            state = AdamState(*(part.clone() for part in state))
        return state, losses

    def _walk(self, noise: Sequence[Tensor], count: int) -> tuple[AdamState, list[float]]:
        """Step by step."""
        state, losses = self.adam_state, []
        for i in range(count):
            loss, gradient = self._gradient(state.theta, [draws[i] for draws in noise])
            state = adam(state, self.rate, gradient, self.settings)
            losses.append(loss)
        return state, torch.stack(losses).tolist() if losses else []

    @torch.no_grad()
    def replay(self, noise: Sequence[Tensor], count: int) -> list[Tensor]:
        """The parameters after ``count`` more steps, which are not taken."""
        return [self._walk(noise, count)[0].theta]

    def _gradient(self, theta: Tensor, noise: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        loss, *parts = self.gradient(self._parts(theta), noise)
        gradient = torch.cat([part.flatten() for part in parts])
        return loss, gradient if self.clip_norm is None else clipped(gradient, self.clip_norm)

    # ---- compiling ---------------------------------------------------------------------

    @property
    def unroll(self) -> int:
        if not isinstance(self.gradient, FunctionalGraph):
            return 1
        nodes = self.gradient.num_nodes
        return next((n for n in (BLOCK, BLOCK // 2) if n * nodes <= LARGEST_GRAPH), 1)

    def allowances(self, steps: int) -> list[float]:
        """Where a gradient is nothing but rounding, Adam takes whole steps along its sign."""
        way = 2 * steps * float(self.rate.max())
        return [way, 0.0, 0.0, steps * way]  # the moments are held to their digits

    def program(self, noise: Sequence[Tensor]) -> tuple[GraphModule, list[Tensor]]:
        return self._steps(noise, self.unroll)

    def one_step(self, noise: Sequence[Tensor]) -> tuple[GraphModule, list[Tensor], int]:
        return *self._steps(noise, 1), len(self.adam_state)

    def _steps(self, noise: Sequence[Tensor], count: int) -> tuple[GraphModule, list[Tensor]]:
        gradient = self.gradient
        assert isinstance(gradient, FunctionalGraph)
        inputs = [*self.adam_state, self.rate, *gradient.constants]
        inputs += [draws[:count] for draws in noise]
        return _unrolled(self, gradient, count), inputs

    # ---- checkpoints -------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, numbers = self._average_state()
        return tensors | self.adam_state._asdict() | {"rate": self.unscheduled_rate}, numbers

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        self._take(AdamState(*(tensors[name] for name in AdamState._fields)))
        self.unscheduled_rate = tensors["rate"]
        self._restore_average(tensors, numbers)
        self.place(self.values)


def _all_finite(vector: Tensor) -> bool:
    return math.isfinite(vector.sum().item()) or bool(torch.isfinite(vector).all())


def _unrolled(ascent: AdamAscent, gradient: FunctionalGraph, unroll: int) -> GraphModule:
    """Inputs: Adam's state, the rate, constants, noise [unroll, …]; outputs: state, losses."""
    theta = ascent.values[0]
    # copies, because the recorder tells its inputs apart by their identity
    like = [t.clone() for t in (*ascent.adam_state, ascent.rate, theta)]
    limit = ascent.clip_norm

    def update(*inputs: Tensor) -> tuple[Tensor, ...]:
        *state, rate, slope = inputs
        slope = slope if limit is None else clipped(slope, limit)
        return tuple(adam(AdamState(*state), rate, slope, ascent.settings))

    step_graph = make_fx(update)(*like).graph
    body_graph = gradient.module.graph
    graph = Graph()
    state = [graph.placeholder(name) for name in AdamState._fields]
    rate = graph.placeholder("rate")
    constants = [graph.placeholder(f"c{i}") for i in range(len(gradient.constants))]
    noise = [graph.placeholder(f"n{i}") for i in range(len(gradient.noise))]
    losses = []
    for i in range(unroll):
        parts, begin = [], 0
        for parameter in ascent.parameters:
            end = begin + parameter.numel()
            part = graph.call_function(aten.slice.Tensor, (state[0], 0, begin, end))
            parts.append(graph.call_function(aten.view.default, (part, list(parameter.shape))))
            begin = end
        draws = [graph.call_function(aten.select.int, (draw, 0, i)) for draw in noise]
        loss, *slopes = _inlined(graph, body_graph, [*parts, *constants, *draws])
        flat = [graph.call_function(aten.reshape.default, (slope, [-1])) for slope in slopes]
        slope = graph.call_function(aten.cat.default, (flat,))
        state = _inlined(graph, step_graph, [*state, rate, slope])
        losses.append(graph.call_function(aten.reshape.default, (loss, [])))
    graph.output((*state, graph.call_function(aten.stack.default, (losses,))))
    graph.eliminate_dead_code()
    return GraphModule({}, graph)


def _inlined(graph: Graph, other: Graph, inputs: Sequence[Node]) -> list[Node]:
    """Copies ``other`` into ``graph``; its outputs there."""
    placeholders = [node for node in other.nodes if node.op == "placeholder"]
    results: Any = graph.graph_copy(other, dict(zip(placeholders, inputs, strict=True)))
    return list(results)
