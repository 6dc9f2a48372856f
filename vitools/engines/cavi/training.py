"""Parameters of the model, trained through the bound of coordinate ascent.

L(ψ) = max_q ELBO(q, ψ) is a deterministic function of the parameters ψ, and by the envelope theorem its
gradient is that of the ELBO at the optimal q. L-BFGS climbs it; each value of ψ costs the sweeps from
the q of the last one to its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyro
import torch
from scipy.optimize import minimize
from torch import Tensor

from vitools.calculus import ConjugateModel
from vitools.calculus.model import State
from vitools.calculus.values.reading import Reader, Reading
from vitools.engines.cavi.coordinate_ascent import CaviRun, CoordinateAscent, Schedule
from vitools.engines.progress import Listener, Progress
from vitools.errors import NumericalError
from vitools.isolation import ParamState, snapshot
from vitools.posterior import History, Status

MOST_STEPS = 500  # of L-BFGS
GAIN = 1e-10  # relative, of a step below which the parameters are at rest

Solve = Callable[[ConjugateModel], tuple[State, float]]
"""Coordinate ascent from where the model is: the state it reached, and its bound."""


def free_parameters() -> dict[str, Tensor]:
    """The unconstrained parameters of the store in use that may be trained."""
    named = pyro.get_param_store().named_parameters()
    return {name: value for name, value in named if value.requires_grad}


def at_reading(
    model: ConjugateModel, reading: Reading, make: Callable[[Reading], ConjugateModel]
) -> ConjugateModel:
    """The model at another reading, its factors where they were."""
    if model.take(reading):
        return model
    other = make(reading)
    for node in other.predictors:
        node.start()
    for block, before in zip(other.blocks, model.blocks, strict=True):
        block.restore(before.natural)
    for node in other.predictors:
        node.update(other.messages(node))
    return other


class Training:
    """Parameters on the way to the maximum of the bound, inside the store that holds them.

    Args:
        model: at the parameters' first values, its factors at their optimum there.
        make: a model anew from a reading.
        solve: brings the factors to their optimum.
    """

    def __init__(
        self,
        reader: Reader,
        model: ConjugateModel,
        make: Callable[[Reading], ConjugateModel],
        solve: Solve,
        history: History,
    ):
        self.reader, self.model, self._make, self._solve = reader, model, make, solve
        self.parameters = free_parameters()
        self.rows = list(zip(history.elbo, history.seconds, strict=True))
        self.best = (history.elbo[-1], model.state(), model, self._held())

    def run(self, began: float, progress: Listener | None) -> Status:
        """Climb; the best found is in :attr:`best`, and in the store."""

        def follow(intermediate_result: object) -> None:
            seconds = time.perf_counter() - began
            self.rows.append((self.best[0], seconds))
            if progress:
                progress(Progress("cavi", len(self.rows), MOST_STEPS, self.best[0], seconds))

        status = Status.CONVERGED
        try:
            found = minimize(
                self._loss,
                self._vector(),
                jac=True,
                method="L-BFGS-B",
                callback=follow,
                options={"maxiter": MOST_STEPS, "ftol": GAIN, "gtol": 1e-7, "maxls": 40},
            )
            if found.nit >= MOST_STEPS:
                status = Status.STOPPED_AT_LIMIT
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
        _, state, self.model, params = self.best
        store = pyro.get_param_store()
        for name, value in params["params"].items():
            if name in self.parameters:
                store._params[name].data.copy_(value.data)
        self.model.load(state)
        return status

    # ---- the objective -------------------------------------------------------------------------

    def _loss(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """-L(ψ) and its gradient."""
        self._put(vector)
        try:
            reading = self.reader({})
            model = at_reading(self.model, reading, self._make)
            state, bound = self._solve(model)
        except NumericalError:  # a step too far: no density there
            return math.inf, np.zeros_like(vector)
        if not math.isfinite(bound):
            return math.inf, np.zeros_like(vector)
        model.load(state)
        self.model = model
        slopes = torch.autograd.grad(
            model.bound_of_values(), list(self.parameters.values()), allow_unused=True
        )
        if bound > self.best[0]:
            self.best = (bound, state, model, self._held())
        parts = [
            torch.zeros_like(p) if slope is None else slope
            for p, slope in zip(self.parameters.values(), slopes, strict=True)
        ]
        return -bound, -torch.cat([p.double().reshape(-1) for p in parts]).numpy()

    def _held(self) -> ParamState:
        return snapshot(pyro.get_param_store().get_state())

    def _vector(self) -> np.ndarray:
        values = [p.detach().double().reshape(-1) for p in self.parameters.values()]
        return torch.cat(values).numpy()

    @torch.no_grad()
    def _put(self, vector: np.ndarray) -> None:
        whole = torch.as_tensor(vector)
        sizes = [p.numel() for p in self.parameters.values()]
        for p, part in zip(self.parameters.values(), whole.split(sizes), strict=True):
            p.copy_(part.reshape(p.shape))


def trained(
    reader: Reader,
    model: ConjugateModel,
    make: Callable[[Reading], ConjugateModel],
    best: CaviRun,
    schedule: Schedule,
    began: float,
    progress: Listener | None,
) -> tuple[CaviRun, ConjugateModel]:
    """The model's parameters, and the factors with them, at the maximum of the bound."""
    following = replace(schedule, warmup_sweeps=0)

    def solve(model: ConjugateModel) -> tuple[State, float]:
        ascent = CoordinateAscent(model, [0], following, lambda seed: None)
        status = ascent.run(None, began)
        if status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        (run,) = ascent.runs(status)
        return run.state, run.bound

    training = Training(reader, model, make, solve, best.history)
    status = training.run(began, progress)
    _, state, model, _ = training.best
    ended = best.status if status is Status.CONVERGED else status
    return CaviRun(state, ended, History.of_rows(training.rows)), model
