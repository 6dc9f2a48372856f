"""Coordinate ascent with some sites on values: draws of a guide that follows the same bound.

    L(q, φ) = E_{w ~ q_φ} [ E_q log p(x, θ, w) - log q_φ(w) ] + H(q)

With draws w_m in place of w the factors of the rest are coordinate ascent on the average of the terms,
and by the envelope theorem ∇_φ L is the gradient of the average, through the draws, at those factors.
The optimum over *fixed* draws is no bound, and with a full covariance it has none; so every step takes
fresh ones: ValueAdam on φ, and on the model's own parameters, and a stochastic natural-gradient step
on the rest (Hoffman et al. 2013). In the end the rest is brought to its optimum for many draws, and what is
reported is the bound of others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor

from vitools.calculus import ConjugateModel
from vitools.calculus.algebra.atoms import is_open
from vitools.calculus.values.reading import Reader, Reading
from vitools.engines.cavi.coordinate_ascent import CoordinateAscent, Schedule
from vitools.engines.cavi.outcome import factors as factors_of
from vitools.engines.cavi.training import at_reading, free_parameters
from vitools.engines.cavi.values.guides import ValueGuide, joint_draws
from vitools.engines.loop import iterate
from vitools.engines.progress import Listener
from vitools.errors import NumericalError
from vitools.isolation import seeded, snapshot
from vitools.posterior import Estimate, FactorisedPosterior, History, ProductPosterior, Status
from vitools.posterior.product import part_of
from vitools.problem import Problem
from vitools.problem.sites import listed

DRAWS = 12  # of a step
ROUND = 40  # steps whose bounds are compared with those of the round before
ROUGH = 1e-5  # relative, to which the rest is brought to its optimum before the first step
SETTLING = 20  # steps after which the rest moves by less and less
FORGETTING = 0.6  # power of the number of steps by which it does
FIRST, FINEST = 2.0, 1 / 16  # of a guide's learning rate: where steps begin, where the run ends
MOST_NUMBERS = 2**25  # of constants at the draws for which the rest is brought to its optimum
LAST_DRAWS, BATCHES = 1000, 40
BETAS, EPSILON = (0.9, 0.97), 1e-12


@dataclass(frozen=True)
class Parameter:
    """A leaf tensor, and the length of its first steps."""

    value: Tensor
    rate: Tensor


class ValueAdam:
    """Kingma and Ba (2015), each number of the parameters in steps of its own length."""

    def __init__(self, parameters: Sequence[Parameter]):
        self.parameters = list(parameters)
        self.first = [torch.zeros_like(p.value) for p in parameters]
        self.second = [torch.zeros_like(p.value) for p in parameters]
        self.steps = 0

    @torch.no_grad()
    def ascend(self, slopes: Sequence[Tensor | None], factor: float) -> None:
        self.steps += 1
        corrections = [1 - beta**self.steps for beta in BETAS]
        for i, (p, slope) in enumerate(zip(self.parameters, slopes, strict=True)):
            if slope is None:
                continue
            self.first[i].lerp_(slope, 1 - BETAS[0])
            self.second[i].lerp_(slope.square(), 1 - BETAS[1])
            size = (self.second[i] / corrections[1]).sqrt() + EPSILON
            p.value.add_(factor * p.rate * self.first[i] / corrections[0] / size)


class ValuesAscent:
    """A run with sites on values, inside the store that holds the model's parameters.

    Args:
        make: a model of the rest from a reading.
        initialise: sets its factors to their start.
        trains: whether the model's own parameters follow the gradient too.
    """

    def __init__(
        self,
        reader: Reader,
        guides: Sequence[ValueGuide],
        make: Callable[[Reading], ConjugateModel],
        initialise: Callable[[ConjugateModel], object],
        schedule: Schedule,
        *,
        trains: bool = True,
    ):
        self.reader, self.guides, self._make, self.schedule = reader, list(guides), make, schedule
        values, _ = joint_draws(self.guides, DRAWS)
        reading = reader(values)
        constants = (c.tensor for term in reading.stated.terms for c in term.constants)
        self._numbers = sum(tensor.numel() for tensor in constants if is_open(tensor)) // DRAWS
        self.model = make(reading)
        initialise(self.model)
        self._solve(tol=ROUGH)
        self.trains = trains
        self.adam = ValueAdam(self._parameters())
        self.rows: list[tuple[float, float]] = []
        self.factor = FIRST
        self.best_round = -math.inf
        self._totals: list[Tensor] = []
        self._forget()
        self.kept = self._snapshot()

    def _parameters(self) -> list[Parameter]:
        found = []
        for guide in self.guides:
            units = guide.units()
            for name, value in guide.parameters.items():
                unit = units.get(name, torch.ones(())).to(value).expand(value.shape)
                found.append(Parameter(value, guide.rate * unit))
        rate = min(guide.rate for guide in self.guides)
        of_model = free_parameters().values() if self.trains else ()
        return found + [Parameter(p, torch.full_like(p, rate)) for p in of_model]

    # ---- steps -----------------------------------------------------------------------------------

    def run(self, began: float, progress: Listener | None) -> Status:
        self._began = began
        return iterate(
            self._advance,
            self._keep,
            max_steps=self.schedule.max_sweeps,
            engine="cavi",
            progress=progress,
            began=began,
        )

    def _advance(self, done: int) -> list[float]:
        values, log_q = joint_draws(self.guides, DRAWS)
        model = at_reading(self.model, self.reader(values), self._make)
        with torch.enable_grad():
            bound = model.bound_of_values() - log_q.mean()
            leaves = [p.value for p in self.adam.parameters]
            slopes = torch.autograd.grad(bound, leaves, allow_unused=True)
        value = float(bound.detach())
        if not math.isfinite(value):
            raise NumericalError(
                f"step {done + 1}: the bound is {value} at draws of "
                f"{' and '.join(guide.title for guide in self.guides)}; the model may overflow there. "
                "Give the sites another guide, one with a smaller init_scale for instance, or tighter priors."
            )
        # after the bound and its gradient, which are unbiased for what has not seen these draws
        model.sweep(1.0 if done < SETTLING else (SETTLING / done) ** FORGETTING, every=True)
        self.model = model
        self.adam.ascend(slopes, self.factor)
        for total, p in zip(self._totals, self.adam.parameters, strict=True):
            total += p.value.detach()
        self._counted += 1
        return [value]

    def _keep(self, bounds: Sequence[float], seconds: float) -> Status | None:
        self.rows += [(bound, seconds) for bound in bounds]
        self.kept = self._snapshot()
        if len(self.rows) % ROUND:
            return None
        recent = torch.tensor([bound for bound, _ in self.rows[-ROUND:]], dtype=torch.float64)
        mean, error = float(recent.mean()), float(recent.std()) / math.sqrt(ROUND)
        if mean > self.best_round + error:
            self.best_round = mean
        else:
            self.factor /= 2
        if self.factor < FINEST:
            return Status.CONVERGED
        self.adam = ValueAdam(
            self._parameters()
        )  # steps in today's units; gradients of old are no guide
        self._forget()
        return None

    def _forget(self) -> None:
        """Begin to average iterates anew."""
        self._totals = [torch.zeros_like(p.value) for p in self.adam.parameters]
        self._counted = 0

    def _snapshot(self) -> list[Tensor]:
        return [p.value.detach().clone() for p in self.adam.parameters]

    # ---- the end ---------------------------------------------------------------------------------

    @torch.no_grad()
    def finish(self, status: Status) -> Estimate:
        """The guide at the mean of its last iterates, the rest at its optimum, and their bound."""
        ended = status is Status.CONVERGED and self._counted
        for p, kept, total in zip(self.adam.parameters, self.kept, self._totals, strict=True):
            p.value.copy_(total / self._counted if ended else kept)
        values, _ = joint_draws(self.guides, self._last_draws())
        self.model = at_reading(self.model, self.reader(_held(values)), self._make)
        self._solve(self.schedule.tol)
        natural = self.model.state()
        bounds = []
        for _ in range(BATCHES):
            values, log_q = joint_draws(self.guides, LAST_DRAWS // BATCHES)
            model = at_reading(self.model, self.reader(_held(values)), self._make)
            bounds.append(model.bound() - log_q.mean().detach())
        if model is self.model:
            model.load(natural)
        return Estimate.of_mean(torch.stack(bounds))

    def _solve(self, tol: float) -> None:
        """The rest at its optimum for the draws at hand."""
        schedule = Schedule(tol, self.schedule.max_sweeps, self.schedule.accelerate, None, 0)
        ascent = CoordinateAscent(self.model, [0], schedule, lambda seed: None)
        runs = ascent.runs(ascent.run(None, time.perf_counter()))
        if runs:
            self.model.load(runs[0].state)

    def _last_draws(self) -> int:
        """As many as there is room for."""
        return max(DRAWS, min(LAST_DRAWS, MOST_NUMBERS // max(1, self._numbers)))

    @property
    def history(self) -> History:
        return History.of_rows(self.rows)


def _begun(
    initialise: Callable[[ConjugateModel, int], object], seed: int, model: ConjugateModel
) -> None:
    initialise(model, seed)


def fit_on_values(
    problem: Problem,
    guides: Mapping[tuple[str, ...], Any],
    seeds: Sequence[int],
    make: Callable[[Reading], ConjugateModel],
    initialise: Callable[[ConjugateModel, int], object],
    schedule: Schedule,
    began: float,
    progress: Listener | None,
    held: Sequence[str],
    trains: bool,
) -> ProductPosterior:
    """The best of the runs from these seeds, inside the store that holds the model's parameters.

    Args:
        held: what ``detail`` says of parameters that are not trained.
    """
    fits: list[ProductPosterior] = []
    for seed in seeds:
        with seeded(seed):
            made = [ValueGuide(problem, sites, guide, seed) for sites, guide in guides.items()]
            reader = Reader(problem.model, problem.args, problem.kwargs)
            begin = partial(_begun, initialise, seed)
            ascent = ValuesAscent(reader, made, make, begin, schedule, trains=trains)
            status = ascent.run(began, progress)
            if not ascent.rows:
                if fits:
                    break
                raise KeyboardInterrupt  # not one step was finished: there is no fit to keep
            bound = ascent.finish(status)
        trained = listed(problem.free_params) if trains else ""
        words = [
            f"{len(ascent.rows)} steps, values of {' and '.join(g.title for g in made)}",
            f"the bound is that of {LAST_DRAWS} fresh draws of them",
            *held,
            *([f"parameters of the model trained through the bound: {trained}"] if trained else []),
        ]
        fitted = (
            problem.with_params(snapshot(pyro.get_param_store().get_state()))
            if trained
            else problem
        )
        common: dict[str, Any] = {
            "engine": "cavi",
            "status": status,
            "detail": "; ".join(words),
            "history": ascent.history,
            "seconds": time.perf_counter() - began,
            "seed": seed,
        }
        rest = [name for name in problem.latents if not any(name in sites for sites in guides)]
        factorised = FactorisedPosterior(
            part_of(fitted, rest), factors_of(ascent.model), bound.value, **common
        )
        parts = [*(guide.posterior(fitted, **common) for guide in made), factorised]
        fits.append(ProductPosterior(fitted, parts, bound.value, bound.standard_error, **common))
        if status is Status.INTERRUPTED:
            break
    return max(fits, key=lambda fit: fit.bound)


def _held(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Draws whose gradient nobody asks for; the constants that follow from them still move."""
    return {name: value.detach().requires_grad_() for name, value in values.items()}
