"""Coordinate ascent on minibatches of a plate: natural-gradient steps, then exact passes.

The optimal factor of a latent outside the plate has natural parameters η₀ + Σ_rows message. A minibatch of
B of N rows gives an unbiased estimate of them, η̂ = η₀ + N/B Σ_batch message, once the factors of its own
rows are at their optimum; and

    η ← (1 - ρ_t) η + ρ_t η̂,        ρ_t = (t + τ)^-κ

is a stochastic natural-gradient step (Hoffman, Blei, Wang and Paisley 2013, "Stochastic variational
inference"). Passes of such steps go on while the bound of a pass rises. Passes over all rows
follow, in which nothing is left to chance: the mean of η̂ over the batches of a pass is the exact η*, the
mean of their bounds the exact bound. Each goes a step η + ρ (η* - η) of the natural gradient, ρ halved
where the bound would fall, and the run ends when it rests, by the rule of every other run.

With rows held out there are no such passes: after each pass of steps on the others the bound is that of the rows
held out, each counting N / S, and the run ends when it no longer rises. One pass over all rows then says the bound.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from vitools.calculus import ConjugateModel
from vitools.engines.cavi.coordinate_ascent import (
    LONGEST_STEP,
    SHORTEST_LIMIT,
    CoordinateAscent,
    Schedule,
)
from vitools.engines.cavi.kept import flattened, unflattened
from vitools.engines.cavi.minibatches.factors import factors_of_all_rows
from vitools.engines.cavi.minibatches.rows import RowBatches
from vitools.engines.cavi.minibatches.steps import (
    FINELY,
    NEARLY,
    SETTLED,
    Naturals,
    added,
    between,
    bound_and_step,
    bound_and_targets,
    bound_of,
    enter,
    naturals,
    outside,
    refuse_unfit,
)
from vitools.engines.cavi.squarem import extrapolate
from vitools.engines.checkpoint import Checkpoint
from vitools.engines.loop import iterate
from vitools.engines.progress import Listener
from vitools.errors import NumericalError
from vitools.families import Family
from vitools.isolation import released
from vitools.posterior import FactorisedPosterior, History, Status

T = TypeVar("T")

DELAY, FORGETTING = 1.0, 0.7
"""τ and κ."""
ROUGH = 1e-3
"""Relative, to which the first batch is fitted alone."""
FIRST_SWEEPS, OF_LATENT_ROWS = 30, 3
"""Most sweeps of that; of rows with latents few, whose clusters, fitted to their end, would hold later ones to them."""
FLAT = 1e-3
"""Relative rise of a pass's bound below which exact passes begin."""
MOST_STOCHASTIC = 10
STILL = 1e-4
"""Relative rise of the bound of rows held out, in a pass, below which a run by these is at its end."""
NUMBERS = ("steps", "rise", "rate", "limit", "rows", "exact_passes")
"""Of what is kept of a run."""
SHORTEST = 2.0**-20
ROUNDING = 1e-12


@dataclass(frozen=True)
class Exact:
    """What a pass over all rows found: the bound at its factors, and where their optimum is."""

    bound: float
    target: Naturals


@dataclass(frozen=True)
class Passed:
    """Where a run is after ``len(rows)`` passes: replaced as a whole, so that Ctrl-C finds a whole."""

    natural: Naturals
    steps: int = 0
    rise: float = math.inf  # of the bound of the last pass of steps, relative
    rate: float = 1.0
    exact: Exact | None = None
    trail: tuple[Naturals, ...] = ()  # where the plain steps before began, at most two
    limit: float = SHORTEST_LIMIT  # of the next jump
    rows: tuple[tuple[float, float], ...] = ()
    exact_passes: int = 0


class MinibatchAscent:
    """A run on the rows of one plate, a batch at a time.

    Args:
        seeds: of the starts; the one that fits the first batch best goes on.
        initialise: sets the model of a batch to the start of a seed.
    """

    def __init__(
        self,
        batches: RowBatches,
        schedule: Schedule,
        seeds: Sequence[int],
        initialise: Callable[[ConjugateModel, int], object],
    ):
        self.batches, self.schedule, self.seed = batches, schedule, seeds[0]
        natural = self._first(seeds, initialise)
        self.reached = Passed(natural)

    # ---- the start -------------------------------------------------------------------------

    def _first(
        self, seeds: Sequence[int], initialise: Callable[[ConjugateModel, int], object]
    ) -> Naturals:
        """A rough fit of the first batch, which counts for all rows."""
        rows = next(self.batches.shuffled(self._generator(0)))
        model = self.batches.model(rows)
        self.points = self._shared(model)
        if self.points.keys() != model.points.keys():
            model = self.batches.model(rows, self.points)
        refuse_unfit(model, self.batches.problem.name, self.batches.plate, "batch_rows")
        self.batches.try_rows(rows, model)
        self.families: dict[str, Family] = {b.title: b.member_family for b in outside(model)}
        most = OF_LATENT_ROWS if model.weights else FIRST_SWEEPS
        schedule = Schedule(ROUGH, most, False, None, 0)
        found: list[tuple[float, Naturals]] = []
        for seed in seeds:

            def begin(_: int, seed: int = seed) -> None:
                initialise(model, seed)

            ascent = CoordinateAscent(model, [seed], schedule, begin)
            (run,) = ascent.runs(ascent.run(None, time.perf_counter()))
            model.load(run.state)
            found.append((run.bound, naturals(model)))
        return max(found, key=lambda pair: pair[0])[1]

    def _shared(self, model: ConjugateModel) -> dict[str, Tensor]:
        """Reference points of what all rows share."""
        inside = {
            name
            for name, site in model.latents.items()
            if any(plate.name == self.batches.plate for plate in site.plates.values())
        }
        return {name: at for name, at in model.points.items() if name not in inside}

    def _generator(self, number: int) -> torch.Generator:
        """Of the order of rows in a pass, so that a pass is the same whatever came before."""
        return torch.Generator().manual_seed(1_000_003 * self.seed + number)

    # ---- passes ----------------------------------------------------------------------------

    def run(self, progress: Listener | None, began: float, file: Checkpoint | None) -> Status:
        """Passes until the run rests, kept in a file after each where one is wanted."""

        def after(done: int) -> None:
            if file is not None and file.is_due:
                self._write(file, None)

        status = iterate(
            self._advance,
            self._keep,
            max_steps=self.schedule.max_sweeps,
            engine="cavi",
            done=len(self.reached.rows),
            progress=progress,
            began=began,
            after=after,
        )
        if file is not None and self.reached.rows:
            self._write(file, status)
        return status

    def _write(self, file: Checkpoint, status: Status | None) -> None:
        at = self.reached
        tensors = flattened(at.natural, "natural")
        for i, natural in enumerate(at.trail):
            tensors |= flattened(natural, f"trail{i}")
        if at.exact is not None:
            tensors |= flattened(at.exact.target, "target")
        numbers = {
            "ended": status is Status.CONVERGED,
            "bound": None if at.exact is None else at.exact.bound,
            "trail": len(at.trail),
            **{name: getattr(at, name) for name in NUMBERS},
        }
        file.write(tensors, numbers)

    def take_up(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> Status | None:
        """Put the run where it was; its status where it was at its end."""
        read = partial(unflattened, tensors, titles=list(self.families))
        exact = None
        if numbers["bound"] is not None:
            exact = Exact(numbers["bound"], read(prefix="target"))
        self.reached = Passed(
            natural=read(prefix="natural"),
            exact=exact,
            trail=tuple(read(prefix=f"trail{i}") for i in range(numbers["trail"])),
            **{name: numbers[name] for name in NUMBERS},
        )
        rows = tuple((bound, seconds) for bound, seconds in self.reached.rows)
        self.reached = replace(self.reached, rows=rows)
        return Status.CONVERGED if numbers["ended"] else None

    def _advance(self, done: int) -> list[float]:
        """One pass over all rows."""
        at = self.reached
        if len(self.batches.held_out):
            self._next, self._rests = self._held_to_others(at)
            return [self._mean]
        steady = at.rise <= FLAT or done >= MOST_STOCHASTIC
        if at.exact is None and not steady:
            self._next, self._rests = self._stepped(at), False
        elif at.exact is None:
            exact = self._exact(at.natural)
            self._next, self._rests = replace(at, exact=exact, exact_passes=1), False
        else:
            self._next, self._rests = self._climbed(at, at.exact)
        return [self._bound(self._next)]

    def _bound(self, at: Passed) -> float:
        return self._mean if at.exact is None else at.exact.bound

    def _keep(self, bounds: Sequence[float], seconds: float) -> Status | None:
        self.reached = replace(self._next, rows=(*self.reached.rows, (bounds[0], seconds)))
        return Status.CONVERGED if self._rests else None

    def _stepped(self, at: Passed) -> Passed:
        """A natural-gradient step on each batch; its bound is the mean of theirs before the step."""
        natural, steps, total = at.natural, at.steps, 0.0
        for rows in self.batches.shuffled(self._generator(1 + len(at.rows))):
            steps += 1
            rate = (steps + DELAY) ** -FORGETTING
            bound, natural = self._visit(rows, partial(bound_and_step, rate=rate), natural, NEARLY)
            total += bound * len(rows) / self.batches.total
            if not math.isfinite(total):
                raise NumericalError(
                    f"before step {steps} the bound is {total}: a factor is no density. Give its site a "
                    "proper prior, or take larger batches."
                )
        before = at.rows[-1][0] if at.rows else -math.inf
        self._mean = total
        return replace(at, natural=natural, steps=steps, rise=(total - before) / abs(total))

    def _held_to_others(self, at: Passed) -> tuple[Passed, bool]:
        """A pass of steps, and whether it gained nothing for the rows held out."""
        reached = self._stepped(at)
        self._mean = self._visit(self.batches.held_out, bound_of, reached.natural, FINELY)
        before = at.rows[-1][0] if at.rows else -math.inf
        rise = (self._mean - before) / abs(self._mean)
        return replace(reached, rise=rise), rise <= STILL

    def _exact(self, natural: Naturals, settled: float = SETTLED) -> Exact:
        """The bound at these factors and where the optimum of each is, from all rows."""
        bound, target = 0.0, None
        for rows in self.batches.in_order():
            share = len(rows) / self.batches.total
            own, part = self._visit(rows, partial(bound_and_targets, share=share), natural, settled)
            bound += own * share
            target = part if target is None else added(target, part)
        assert target is not None
        return Exact(bound, target)

    def _climbed(self, at: Passed, before: Exact) -> tuple[Passed, bool]:
        """A step of the natural gradient of all rows, or a jump; and whether the run is at rest."""
        if len(at.trail) == 2 and self.schedule.accelerate:
            return self._jumped(at, before), False
        rate, passes = at.rate, at.exact_passes
        while True:
            natural = between(at.natural, before.target, rate)
            after = self._exact(natural)
            passes += 1
            if after.bound >= before.bound - ROUNDING * abs(before.bound):
                break
            rate /= 2
            if rate < SHORTEST:
                raise NumericalError(
                    f"after {passes} exact passes no step raises the bound from {before.bound:.10g}; the "
                    "data or the prior may be too badly scaled for float64, otherwise please report "
                    "this model."
                )
        tol = self.schedule.tol
        still = abs(after.bound - before.bound) <= tol * abs(after.bound)
        rests = still and self._change(at.natural, natural) <= rate * tol**0.75
        reached = replace(
            at,
            natural=natural,
            rate=min(1.0, 2 * rate),
            exact=after,
            exact_passes=passes,
            trail=(*at.trail, at.natural) if rate == at.rate == 1.0 else (),
        )
        return reached, rests

    def _jumped(self, at: Passed, before: Exact) -> Passed:
        """From two plain steps where more of them lead (SQUAREM), kept where the bound does not fall."""
        here = [self._coordinates(natural) for natural in (*at.trail, at.natural)]
        limit = torch.tensor(at.limit, dtype=torch.float64)
        point, length = extrapolate(here[0], here[1], here[2], limit)
        natural = self._from_coordinates(point)
        after = self._exact(natural)
        kept = after.bound >= before.bound  # not where it is nan: the jump has left the family
        longest = min(LONGEST_STEP, 4 * at.limit) if float(length) == at.limit else at.limit
        reached = replace(
            at,
            trail=(),
            exact_passes=at.exact_passes + 1,
            limit=longest if kept else max(SHORTEST_LIMIT, at.limit / 2),
        )
        return replace(reached, natural=natural, exact=after) if kept else reached

    def _coordinates(self, natural: Naturals) -> list[Tensor]:
        """What is extrapolated."""
        return [x for k, family in self.families.items() for x in family.coordinates(natural[k])]

    def _from_coordinates(self, point: Sequence[Tensor]) -> Naturals:
        rest = iter(point)
        return {
            title: family.from_coordinates(tuple(next(rest) for _ in self.reached.natural[title]))
            for title, family in self.families.items()
        }

    def _visit(
        self,
        rows: Tensor,
        read: Callable[[ConjugateModel], T],
        natural: Naturals,
        settled: float = SETTLED,
    ) -> T:
        """What is read off the model of some rows at these factors; the model is gone afterwards."""

        def visited() -> T:
            model = self.batches.model(rows, self.points)
            enter(model, natural, settled)
            return read(model)

        with released():
            return visited()

    def _change(self, first: Naturals, second: Naturals) -> float:
        """√ of the largest symmetrised divergence of a factor."""
        found = [
            family.symmetrised_kl(first[title], second[title]).max()
            for title, family in self.families.items()
        ]
        return float(torch.stack(found).max().sqrt())

    # ---- the end ---------------------------------------------------------------------------

    def posterior(self, **common: Any) -> FactorisedPosterior:
        """The factors reached, those of single rows for all rows, and the bound there."""
        at = self.reached
        settled = SETTLED if at.exact else FINELY
        exact = at.exact or self._exact(at.natural, settled)
        visit = partial(self._visit, natural=at.natural, settled=settled)
        return FactorisedPosterior(
            self.batches.problem,
            factors_of_all_rows(self.batches, visit),
            exact.bound,
            engine="cavi",
            detail=self._words(),
            seed=self.seed,
            history=History.of_rows(list(at.rows)),
            **common,
        )

    def _words(self) -> str:
        at = self.reached
        stochastic = round(at.steps / self.batches.count)
        steps = (
            f"{stochastic} passes of steps on {self.batches.count} batches of {self.batches.size} rows "
            f"of '{self.batches.plate}'"
        )
        held_out = len(self.batches.held_out)
        if not held_out:
            return f"{steps}, {at.exact_passes} over all rows"
        return f"{steps}, the bound of {held_out} rows held out risen by {max(at.rise, 0.0):.1g} of itself in the last"
