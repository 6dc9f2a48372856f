"""Ascent by any optimiser of torch's: gradients from the graph, the step as the optimiser makes it."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.nn import Parameter

from vitools.engines.svi.optimisers.ascent import GradientAscent
from vitools.engines.svi.optimisers.gradient import Gradient
from vitools.graphs.functional import FunctionalGraph

OptimizerFactory = Callable[[Iterable[Parameter]], torch.optim.Optimizer]


class OptimizerAscent(GradientAscent):
    """The parameters themselves, changed in place step by step."""

    def __init__(
        self,
        parameters: Sequence[Parameter],
        gradient: Gradient,
        clip_norm: float | None,
        make: OptimizerFactory,
    ) -> None:
        super().__init__(parameters, gradient, clip_norm)
        self.optimizer = make(self.parameters)
        self.values = list(self.parameters)
        self.restart_average()

    def scale_rate(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] *= factor

    def place(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, values, strict=True):
                parameter.copy_(value)

    def advance(self, noise: Sequence[Tensor], count: int) -> list[float]:
        losses: list[float] = []
        self.lost = None
        for i in range(count):
            with torch.no_grad():
                loss, *slopes = self._loss_and_gradient([draws[i] for draws in noise])
            losses.append(float(loss))
            if not math.isfinite(losses[-1]):
                self.lost = [p.detach().clone() for p in self.parameters]
                return losses
            for parameter, slope in zip(self.parameters, slopes, strict=True):
                parameter.grad = slope
            if self.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
            self.optimizer.step()
            self.totals = list(
                torch._foreach_add(self.totals, [p.detach() for p in self.parameters])
            )
            self.averaged += 1
        if not all(bool(torch.isfinite(p).all()) for p in self.parameters):
            self.lost = [p.detach().clone() for p in self.parameters]
        self.mark()
        return losses

    def _loss_and_gradient(self, noise: Sequence[Tensor]) -> Sequence[Tensor]:
        if self.compiled is None:
            return self.gradient(self.parameters, noise)
        values = [p.detach() for p in self.parameters]
        return self.compiled(*values, *self.constants, *noise)

    def program(self, noise: Sequence[Tensor]) -> tuple[GraphModule, list[Tensor]]:
        assert isinstance(self.gradient, FunctionalGraph)
        values = [p.detach() for p in self.parameters]
        inputs = [*values, *self.constants, *(draws[0] for draws in noise)]
        return self.gradient.module, inputs

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, numbers = self._average_state()
        tensors |= {f"parameter.{i}": p.detach().clone() for i, p in enumerate(self.parameters)}
        kept = self.optimizer.state_dict()
        scalars = {}
        for index, slots in kept["state"].items():
            for name, value in slots.items():
                key = f"slot.{index}.{name}"
                if isinstance(value, Tensor):
                    tensors[key] = value.clone()
                else:
                    scalars[key] = value
        return tensors, numbers | {"scalars": scalars, "groups": kept["param_groups"]}

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        self._restore_average(tensors, numbers)
        self.place([tensors[f"parameter.{i}"] for i in range(len(self.parameters))])
        slots: dict[int, dict[str, Any]] = {}
        for key, value in (tensors | numbers["scalars"]).items():
            if key.startswith("slot."):
                _, index, name = key.split(".", 2)
                slots.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({"state": slots, "param_groups": numbers["groups"]})
