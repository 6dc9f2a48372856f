"""Parameters of the model, trained through the bound of coordinate ascent.

L(ψ) = max_q ELBO(q, ψ) is a deterministic function of the parameters ψ, and by the envelope theorem its
gradient is that of the ELBO at the optimal q. L-BFGS climbs it; each value of ψ costs the sweeps from
the q of the last one to its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

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
from vitools.errors import NotConjugateError, NumericalError
from vitools.isolation import ParamState, snapshot
from vitools.posterior import History, Status
from vitools.problem.sites import listed

MOST_STEPS = 500  # of L-BFGS
GAIN = 1e-10  # relative, of a step below which the parameters are at rest
SHORTER, MOST_RETURNS = 0.1, 12
"""Where a step ended at no density, the first step of the next run, and how many runs there are at most."""
SMALL, PULL = 1e-3, 1e-2
"""A parameter is not at rest where growing by its own size would gain, at the slope there, so many nats of each."""

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


@dataclass
class Best:
    """The highest bound so far, where it is, and its slopes there; none before it was looked at."""

    bound: float
    state: State
    model: ConjugateModel
    params: ParamState
    slopes: list[Tensor] | None = None


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
        self.best = Best(history.elbo[-1], model.state(), model, self._held())
        self.outside = False

    def run(self, began: float, progress: Listener | None) -> Status:
        """Climb; the best found is in :attr:`best`, and in the store."""

        def follow(intermediate_result: object) -> None:
            seconds = time.perf_counter() - began
            self.rows.append((self.best.bound, seconds))
            if progress:
                progress(Progress("cavi", len(self.rows), MOST_STEPS, self.best.bound, seconds))

        status = Status.CONVERGED
        try:
            if self._climb(follow) >= MOST_STEPS:
                status = Status.STOPPED_AT_LIMIT
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
        self.model = self.best.model
        store = pyro.get_param_store()
        for name, value in self.best.params["params"].items():
            if name in self.parameters:
                store._params[name].data.copy_(value.data)
        self.model.load(self.best.state)
        return status

    def _climb(self, follow: Callable[[object], None]) -> int:
        """The steps of L-BFGS to where the parameters are at rest; NumericalError where they are not.

        A scale that is no positive number has no density. Where L-BFGS has met such values it is begun again
        at the best that it found, by a shorter first step if that was where it began.
        """
        steps, step, left = 0, 1.0, False
        for _ in range(MOST_RETURNS):
            origin, before = self._best_vector(), self.best.bound
            self.outside = False
            found = minimize(
                partial(self._scaled_loss, origin, step),
                np.zeros_like(origin),
                jac=True,
                method="L-BFGS-B",
                callback=follow,
                options={"maxiter": MOST_STEPS, "ftol": GAIN, "gtol": 1e-7 * step, "maxls": 40},
            )
            steps += found.nit
            left = left or self.outside
            gains = self.best.bound - before > GAIN * abs(before)
            if not left or steps >= MOST_STEPS or not (gains or self.outside):
                break
            step = step if gains else step * SHORTER
        if left:
            self._check_rest()
        return steps

    def _check_rest(self) -> None:
        """NumericalError where parameters are held by no density beyond them rather than by a maximum."""
        held = []
        for name, slope in zip(self.parameters, self.best.slopes or [], strict=True):
            size = self.best.params["params"][name].detach().abs().double()
            pull = slope.double().abs() * size.clamp(min=SMALL)
            if float(pull.max()) > PULL * (1 + abs(self.best.bound)):
                held.append(name)
        if held:
            raise NumericalError(
                f"parameters {listed([repr(name) for name in held])}: the bound still rises where the model has no "
                "density beyond (a scale below 0, a probability above 1), so that no maximum is found. Declare "
                "what values they have: pyro.param(name, start, constraint=constraints.positive)."
            )

    # ---- the objective -------------------------------------------------------------------------

    def _scaled_loss(
        self, origin: np.ndarray, step: float, moved: np.ndarray
    ) -> tuple[float, np.ndarray]:
        loss, gradient = self._loss(origin + step * moved)
        return loss, step * gradient

    def _loss(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """-L(ψ) and its gradient."""
        self._put(vector)
        try:
            reading = self.reader({})
            if reading.outside:
                return self._nowhere(vector)
            model = at_reading(self.model, reading, self._make)
            state, bound = self._solve(model)
        except (NumericalError, NotConjugateError):  # the terms have no value there
            return self._nowhere(vector)
        if not math.isfinite(bound):
            return self._nowhere(vector)
        model.load(state)
        slopes = self._slopes(model)
        if not all(bool(slope.isfinite().all()) for slope in slopes):
            return self._nowhere(vector)
        self.model = model
        if bound > self.best.bound or self.best.slopes is None:
            self.best = Best(bound, state, model, self._held(), slopes)
        return -bound, -_flat(slopes)

    def _nowhere(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """What is said of parameters at which there is no density: a loss by which a line search turns back.

        It is as far above the lowest as the slopes there would have it below.
        """
        self.outside = True
        rise = np.abs(_flat(self.best.slopes or []) @ (vector - self._best_vector()))
        return float(rise) - self.best.bound, np.zeros_like(vector)

    def _slopes(self, model: ConjugateModel) -> list[Tensor]:
        """The gradient of the bound with respect to each parameter."""
        found = torch.autograd.grad(
            model.bound_of_values(), list(self.parameters.values()), allow_unused=True
        )
        return [
            torch.zeros_like(p) if slope is None else slope
            for p, slope in zip(self.parameters.values(), found, strict=True)
        ]

    def _held(self) -> ParamState:
        return snapshot(pyro.get_param_store().get_state())

    def _best_vector(self) -> np.ndarray:
        held = self.best.params["params"]
        return _flat([held[name].detach() for name in self.parameters])

    @torch.no_grad()
    def _put(self, vector: np.ndarray) -> None:
        whole = torch.as_tensor(vector)
        sizes = [p.numel() for p in self.parameters.values()]
        for p, part in zip(self.parameters.values(), whole.split(sizes), strict=True):
            p.copy_(part.reshape(p.shape))


def _flat(parts: Sequence[Tensor]) -> np.ndarray:
    return torch.cat([part.double().reshape(-1) for part in parts]).numpy()


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
    state, model = training.best.state, training.best.model
    ended = best.status if status is Status.CONVERGED else status
    return CaviRun(state, ended, History.of_rows(training.rows)), model
