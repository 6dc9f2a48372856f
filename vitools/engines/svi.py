"""Stochastic variational inference with any Pyro guide."""

import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.nn import Parameter

from vitools.engines.graph import record
from vitools.engines.guide_check import check_start, refuse_mismatch
from vitools.engines.loop import ProgressCallback, iterate
from vitools.engines.objectives import negative_elbo
from vitools.engines.stopping import PlateauRule
from vitools.errors import NumericalError, OptionError
from vitools.isolation import isolated, seeded
from vitools.posterior import GuidePosterior, History, Posterior, Status
from vitools.posterior.guided import build_guide, snapshot
from vitools.problem import Problem
from vitools.sites import is_subsample

OptimizerFactory = Callable[[Iterable[Parameter]], torch.optim.Optimizer]

LEARNING_RATE = 0.05
REDUCTION = 0.2
KEEP_EVERY = 100
NATS_PER_LATENT = 0.01  # a gain not worth waiting for


def svi(
    problem: Problem,
    guide: Any,
    *,
    num_particles: int = 1,
    max_steps: int = 20_000,
    optimizer: OptimizerFactory | None = None,
    start: Posterior | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> GuidePosterior:
    """Maximise E_q[log p(x, θ) - log q(θ)] over the parameters of ``guide`` (and of the model).

    Discrete latents are summed out exactly; draws of the guide are differentiated
    through. The step size falls at each plateau of the bound and the run ends at the
    last (:class:`~vitools.engines.stopping.PlateauRule`); the answer is the average of
    the iterates of the last stage, which removes most of the optimiser's noise.

    As in Pyro, a guide instance or a network in the model is trained in place, and a second
    fit with it goes on from there; a guide class starts afresh.

    Args:
        guide: a Pyro guide, or a guide class to be called with the problem's model.
        num_particles: draws per step.
        max_steps: limit; reaching it gives status STOPPED_AT_LIMIT.
        optimizer: from parameters to a ``torch.optim.Optimizer``; Adam at 0.05 if omitted.
        start: a fit to begin from, for guides that have ``initialise_from`` (those of
            :mod:`vitools.guides` do). Worth it where the posterior has several modes.
        progress: called a few times a second with :class:`~vitools.engines.loop.Progress`.

    Raises:
        NumericalError: the bound left the finite numbers; the error names the site and the
            step, and its ``posterior`` attribute holds the last good state.

    Example:
        >>> import torch
        >>> from vitools import Problem, svi
        >>> from vitools.guides import AutoKumaraswamy
        >>> from vitools.models import coin
        >>> fit = svi(Problem(coin.model, torch.tensor([1.0, 1.0, 0.0])), AutoKumaraswamy)
        >>> fit.status.label
        'converged'
    """
    if num_particles < 1 or max_steps < 1:
        raise OptionError(
            f"expected num_particles ≥ 1 and max_steps ≥ 1, got {num_particles} and {max_steps}."
        )
    began = time.perf_counter()
    guide = build_guide(problem, guide)
    with seeded(seed):
        run = _Run(problem, guide, num_particles, optimizer, start)
        status, history = iterate(
            run.step, run.rule, max_steps=max_steps, engine="svi", progress=progress
        )
        if status is Status.CONVERGED:
            run.use_average()
    return GuidePosterior(
        problem,
        guide,
        snapshot(run.state),
        engine="svi",
        status=status,
        detail=f"{len(history)} steps"
        + ("" if status is Status.CONVERGED else ", the last iterate unaveraged"),
        history=history,
        seconds=time.perf_counter() - began,
        seed=seed,
    )


class _Run:
    """The state of one ascent: parameters, optimiser, recorded gradient, average, last good copy."""

    def __init__(
        self,
        problem: Problem,
        guide: Any,
        num_particles: int,
        optimizer: OptimizerFactory | None,
        start: Posterior | None,
    ) -> None:
        self.problem, self.guide = problem, guide
        with isolated() as self.state:
            refuse_mismatch(problem, guide)
            if start is not None:
                check_start(problem, start)
                if not hasattr(guide, "initialise_from"):
                    raise OptionError(
                        f"guide {type(guide).__name__} cannot start from a fit: it has no "
                        "initialise_from(posterior). Leave start out, or use one of vitools.guides."
                    )
                guide.initialise_from(start)
            objective = negative_elbo(problem, guide, num_particles)
            objective.loss()  # registers every parameter of guide and model
        self.parameters = [
            p for p in dict.fromkeys(self.state["params"].values()) if p.requires_grad
        ]
        if not self.parameters:
            raise OptionError(f"guide {type(guide).__name__} has no parameters to fit.")
        make = optimizer or (lambda parameters: torch.optim.Adam(parameters, lr=LEARNING_RATE))
        self.optimizer = make(self.parameters)
        num_latents = sum(site.shape.numel() for site in problem.continuous.values())
        self.rule = PlateauRule(
            self._reduce_learning_rate,
            self._vector,
            resolution=max(0.2, NATS_PER_LATENT * num_latents),
        )
        self.gradient: Callable[[], tuple[Tensor, ...]] = partial(
            self._loss_and_gradient, objective.loss
        )
        if objective.is_recordable:
            self.gradient = record(self.gradient, (), f"svi of model '{problem.name}'")
        self._restart_average()
        self.good = snapshot(self.state)
        self.good_step = 0

    def _loss_and_gradient(self, negative_bound: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        with isolated(self.state), torch.enable_grad():
            loss = negative_bound()
            gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        return loss.detach(), *(
            torch.zeros_like(p) if g is None else g
            for p, g in zip(self.parameters, gradients, strict=True)
        )

    def step(self, index: int) -> list[float]:
        loss, *gradients = self.gradient()
        value = float(loss)
        if not math.isfinite(value):
            raise self._lost(index)
        if index % KEEP_EVERY == 0:
            self.good, self.good_step = snapshot(self.state), index
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        self.averaged_steps += 1
        torch._foreach_add_(self.sums, [p.detach() for p in self.parameters])
        return [-value]

    def _vector(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.parameters])

    def _reduce_learning_rate(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] *= REDUCTION
        self._restart_average()

    def _restart_average(self) -> None:
        self.sums = [torch.zeros_like(p) for p in self.parameters]
        self.averaged_steps = 0

    def use_average(self) -> None:
        """Put the average of the iterates since the last change of step size in place."""
        with torch.no_grad():
            for parameter, total in zip(self.parameters, self.sums, strict=True):
                parameter.copy_(total / self.averaged_steps)

    def _lost(self, index: int) -> NumericalError:
        error = NumericalError(
            f"step {index}: {self._culprit()}. The last good state (step {self.good_step}) is "
            "kept in this error's .posterior; try a smaller learning rate "
            "(optimizer=lambda p: torch.optim.Adam(p, lr=0.005)) or another guide for the site."
        )
        error.posterior = GuidePosterior(  # type: ignore[attr-defined]
            self.problem,
            self.guide,
            self.good,
            engine="svi",
            status=Status.DIVERGED,
            detail=f"lost at step {index}",
            history=History(),
        )
        return error

    def _culprit(self) -> str:
        """The first non-finite quantity: a parameter, else a site of the guide or model."""
        for name, parameter in self.state["params"].items():
            if not bool(torch.isfinite(parameter).all()):
                return f"parameter '{name}' became {_worst(parameter)}"
        args, kwargs = self.problem.args, self.problem.kwargs
        for _ in range(20):  # the noise that broke the step is gone; a few draws find it again
            with isolated(self.state), torch.no_grad():
                guide_run = poutine.trace(self.guide).get_trace(*args, **kwargs)
                replayed = poutine.replay(self.problem.call, trace=guide_run)
                model_run = poutine.trace(replayed).get_trace()
                guide_run.compute_log_prob()
                model_run.compute_log_prob()
            for who, run in (("guide", guide_run), ("model", model_run)):
                for name, node in run.nodes.items():
                    if node["type"] != "sample" or is_subsample(node):
                        continue
                    for what, tensor in (
                        ("value", node["value"]),
                        ("log density", node["log_prob"]),
                    ):
                        if not bool(torch.isfinite(tensor).all()):
                            return (
                                f"{what} of site '{name}' in the {who} became {_worst(tensor)}"
                                f"{_parameters(node['fn'])}"
                            )
        return "the bound became non-finite, at no single site"


def _worst(tensor: Tensor) -> str:
    bad = tensor[~torch.isfinite(tensor)]
    return str(float(bad.flatten()[0])) if bad.numel() else "finite"


def _parameters(fn: Any) -> str:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    parts = []
    for name in getattr(fn, "arg_constraints", {}):
        value = fn.__dict__.get(name)
        if isinstance(value, Tensor):
            low, high = float(value.min()), float(value.max())
            parts.append(f"{name} {low:.3g}" if low == high else f"{name} {low:.3g} to {high:.3g}")
    return f" ({', '.join(parts)})" if parts else ""
