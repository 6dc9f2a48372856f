"""Coordinate ascent from several starts at once: warm-up, sweeps, acceleration, guard, stop.

Every run takes the steps it would take alone: what differs between runs (a jump kept or not, inner
sweeps, convergence) is a mask over them, and a run that is finished leaves the batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from vitools.calculus import ConjugateModel
from vitools.calculus.model import State
from vitools.calculus.recession import check_held
from vitools.calculus.start.initialise import initialise as start_model
from vitools.engines.cavi.batch import each, one, room, select, some, together
from vitools.engines.cavi.moves import Moves
from vitools.engines.cavi.squarem import extrapolate
from vitools.engines.loop import iterate
from vitools.engines.progress import Listener
from vitools.errors import NumericalError
from vitools.posterior import History, Status

# A bound that falls by less than this part of all that it adds up has only been rounded.
ROUNDING = 4096 * torch.finfo(torch.float64).eps
# A fall by more nats than this is told, rounding or not: such a bound is of no use.
COARSE = 0.01
SHORTEST_LIMIT, LONGEST_STEP = 4.0, 1e4
# Inner blocks have settled when their members moved by this much, as a root mean square.
SETTLED = 0.1
MOST_INNER_SWEEPS = 10
MOST_HALVINGS = 30
# A warm-up is over when another fresh start of the inner blocks gains less than this part.
WARM = 1e-3
MOST_WARMUP_SWEEPS = 50
# After so many sweeps it is first asked whether anything holds sites with flat priors.
FIRST_LOOK = 32


@dataclass(frozen=True)
class Schedule:
    """What :func:`vitools.cavi` was asked for; ``None`` leaves it to the run."""

    tol: float
    max_sweeps: int
    accelerate: bool
    inner_sweeps: int | None
    warmup_sweeps: int | None


@dataclass(frozen=True)
class CaviRun:
    """One start and where it led."""

    state: State
    status: Status
    history: History

    @property
    def bound(self) -> float:
        return self.history.elbo[-1]


@dataclass(frozen=True)
class Reached:
    """Where all runs are after ``rows`` sweeps: replaced as a whole, so that Ctrl-C finds a whole."""

    active: tuple[int, ...]
    state: State
    bound: Tensor  # [R]
    limit: Tensor  # [R], of the next jump
    warming: Tensor  # [R]
    finished: dict[int, State]
    rows: int


class CoordinateAscent:
    """As many of the starts as go well together.

    Args:
        seeds: of the starts that are still to be run.
        initialise: sets the model to the start of a seed; by default the model's own.
        moves: of the model; by default those of one process.
    """

    def __init__(
        self,
        model: ConjugateModel,
        seeds: Sequence[int],
        schedule: Schedule,
        initialise: Callable[[int], object] | None = None,
        moves: Moves | None = None,
    ):
        self.model, self.schedule = model, schedule
        self.moves = moves or Moves(model, settled=schedule.inner_sweeps is None)
        initialise = initialise or partial(start_model, model)
        initialise(seeds[0])
        starts = [model.state()]
        most = room(starts[0]) if all(b.runs_together for b in model.parts) else 1
        for seed in seeds[1:most]:
            initialise(seed)
            starts.append(model.state())
        self.count = len(starts)
        self.is_cut_short = False  # by the limit on sweeps: a run without it goes another way
        warms_up = bool(self.moves.inner) and schedule.warmup_sweeps != 0
        self.rows: list[tuple[float, dict[int, float]]] = []
        state = together(starts)
        self.reached = Reached(
            active=tuple(range(self.count)),
            state=state,
            bound=self._first_bound(state),
            limit=torch.full((self.count,), SHORTEST_LIMIT, dtype=torch.float64),
            warming=torch.full((self.count,), warms_up),
            finished={},
            rows=0,
        )

    def _first_bound(self, state: State) -> Tensor:
        """What the first sweep is held to: nothing but under curved functions, where it may overshoot."""
        if self.model.predictors:
            return each(self.count, self.moves.bound, state)
        return torch.full((self.count,), -torch.inf, dtype=torch.float64)

    def run(
        self,
        progress: Listener | None,
        began: float,
        after: Callable[[int], None] | None = None,
    ) -> Status:
        """Sweeps until all runs rest.

        Args:
            after: called with the number of sweeps after each.
        """
        self._began = began
        if self.reached.rows and not self.reached.active:
            return Status.CONVERGED
        return iterate(
            self._advance,
            lambda bounds, seconds: None if self.reached.active else Status.CONVERGED,
            max_steps=self.schedule.max_sweeps,
            engine="cavi",
            done=self.reached.rows,
            progress=progress,
            began=began,
            after=after,
        )

    def runs(self, status: Status) -> list[CaviRun]:
        """All runs that made a sweep; those that were not finished have the given status."""
        at = self.reached
        if not at.rows:
            return []
        found = []
        for number in range(self.count):
            rows = [(bounds[number], s) for s, bounds in self.rows[: at.rows] if number in bounds]
            history = History.of_rows(rows)
            if number in at.finished:
                found.append(CaviRun(at.finished[number], Status.CONVERGED, history))
            else:
                state = one(at.state, at.active.index(number), len(at.active))
                found.append(CaviRun(state, status, history))
        return found

    # ---- steps -----------------------------------------------------------------------------

    def _advance(self, done: int) -> list[float]:
        before = self.reached
        del self.rows[before.rows :]
        if bool(before.warming.any()):
            self.reached = self._warm_up(before)
            return self._best_bounds(before)
        can_jump = self.schedule.accelerate and bool(self.moves.leaping)
        self.is_cut_short = can_jump and done > 0 and self.schedule.max_sweeps - done < 3
        if can_jump and done and not self.is_cut_short:
            after = self._cycle(before)
        else:
            state, bound = self._sweep(before.state, before.bound)
            after = self._recorded(replace(before, state=state, bound=bound))
        self.reached = self._without_finished(before, after)
        self._check_held(before)
        return self._best_bounds(before)

    def _check_held(self, before: Reached) -> None:
        """A climb without end is told early: at a number of sweeps, then at twice as many, and so on."""
        at = self.reached
        doublings = math.log2(at.rows / FIRST_LOOK)
        if (
            at.active
            and doublings >= 0
            and math.log2(max(before.rows, 1) / FIRST_LOOK) < int(doublings)
        ):
            self.model.load(one(at.state, 0, len(at.active)))
            check_held(self.model)

    def _best_bounds(self, before: Reached) -> list[float]:
        return [max(bounds.values()) for _, bounds in self.rows[before.rows :]]

    def _recorded(self, at: Reached, only: Tensor | None = None) -> Reached:
        """Write down a sweep of all active runs, or of those in the mask."""
        taking = [True] * len(at.active) if only is None else only.tolist()
        bounds = zip(at.active, at.bound.tolist(), taking, strict=True)
        seconds = time.perf_counter() - self._began
        self.rows.append((seconds, {number: bound for number, bound, taken in bounds if taken}))
        return replace(at, rows=at.rows + 1)

    def _warm_up(self, at: Reached) -> Reached:
        """A sweep in which the inner blocks start afresh; runs that are warm wait for the others.

        Early globals would else tie the inner blocks down. The bound may fall.
        """
        count, wanted = len(at.active), self.schedule.warmup_sweeps
        fresh = each(count, self.moves.restart_inner, at.state)
        state, bound = each(count, self.moves.sweep, self._settle(fresh, count))
        state = select(at.warming, state, at.state)
        bound = torch.where(at.warming, bound, at.bound)
        moved = replace(at, state=state, bound=bound)
        after = self._recorded(moved, at.warming)
        if wanted is None:
            warm = (bound - at.bound <= WARM * bound.abs()) | (after.rows >= MOST_WARMUP_SWEEPS)
        else:
            warm = torch.full_like(at.warming, after.rows >= wanted)
        return replace(after, warming=at.warming & ~warm)

    def _settle(self, state: State, count: int) -> State:
        """Inner sweeps, until the inner blocks of a run stop moving or as often as asked."""
        if not self.model.inner:
            return state
        asked = self.schedule.inner_sweeps
        unsettled = torch.ones(count, dtype=torch.bool)
        for _ in range((MOST_INNER_SWEEPS if asked is None else asked) - 1):
            moved = each(count, self.moves.inner_sweep, state)
            if asked is None:
                change = each(count, self.moves.inner_change, moved, state)
                moved = select(unsettled, moved, state)
                unsettled = unsettled & (change > SETTLED)
            state = moved
            if not bool(unsettled.any()):
                break
        return state

    def _sweep(self, state: State, before: Tensor) -> tuple[State, Tensor]:
        """One plain sweep; the bound must not fall."""
        count = len(before)
        after, bound = each(count, self.moves.sweep, self._settle(state, count))
        fallen = ~(bound >= before)
        if bool(fallen.any()):
            size = each(count, self.moves.size, after)
            fallen = ~(bound >= before - _rounding(size))
        if bool(fallen.any()) and self.model.predictors:
            after, bound = self._shortened(state, before, after, bound, fallen)
            size = each(count, self.moves.size, after)
            fallen = ~(bound >= before - _rounding(size))
        if bool(fallen.any()):
            run = int(fallen.nonzero()[0])
            raise NumericalError(self._explain_fall(one(state, run, count), float(before[run])))
        return after, bound

    def _shortened(
        self, state: State, before: Tensor, after: State, bound: Tensor, fallen: Tensor
    ) -> tuple[State, Tensor]:
        """Sweeps with steps under curved functions halved until the bound of no run falls."""
        count, step = len(before), 1.0
        ends, bounds = [one(after, i, count) for i in range(count)], bound.tolist()
        left = fallen.nonzero().flatten()
        for _ in range(MOST_HALVINGS):
            step /= 2
            mask = torch.zeros(count, dtype=torch.bool).index_fill(0, left, True)
            from_here, number = some(state, mask, count), len(left)
            sweep = partial(self.moves.sweep, step=step)
            tried, found = each(number, sweep, self._settle(from_here, number))
            allowed = before[left] - _rounding(each(number, self.moves.size, tried))
            for i, run in enumerate(left.tolist()):
                ends[run], bounds[run] = one(tried, i, number), float(found[i])
            left = left[~(found >= allowed)]
            if not len(left):
                break
        return together(ends), torch.tensor(bounds, dtype=torch.float64)

    def _cycle(self, at: Reached) -> Reached:
        """Two plain sweeps, a jump, and a sweep from there, kept where the bound did not fall."""
        count = len(at.active)
        first, bound = self._sweep(at.state, at.bound)
        after = self._recorded(replace(at, bound=bound))
        second, bound = self._sweep(first, bound)
        after = self._recorded(replace(after, bound=bound))
        jumped, length = each(count, self._jump, at.state, first, second, at.limit)
        third, reached = each(count, self.moves.sweep, self._settle(jumped, count))
        kept = reached >= bound  # not where it is nan: the jump has left the family
        longer = torch.where(length == at.limit, 4 * at.limit, at.limit).clamp(max=LONGEST_STEP)
        shorter = (at.limit / 2).clamp(min=SHORTEST_LIMIT)
        return self._recorded(
            replace(
                after,
                state=select(kept, third, second),
                bound=torch.where(kept, reached, bound),
                limit=torch.where(kept, longer, shorter),
            )
        )

    def _jump(
        self, first: State, second: State, third: State, limit: Tensor
    ) -> tuple[State, Tensor]:
        here = self.moves.coordinates
        point, length = extrapolate(
            here(first), here(second), here(third), limit, self.moves.length
        )
        return self.moves.moved_to(third, point), length

    # ---- the end ----------------------------------------------------------------------------

    def _without_finished(self, before: Reached, after: Reached) -> Reached:
        """The runs whose bound and factors came to rest leave the batch."""
        count, tol = len(after.active), self.schedule.tol
        still = (after.bound - before.bound).abs() <= tol * after.bound.abs()
        if not bool(still.any()):
            return after
        change = each(count, self.moves.largest_change, after.state, before.state)
        resting = still & (change <= tol**0.75)
        if not bool(resting.any()):
            return after
        ends = {
            after.active[i]: one(after.state, i, count)
            for i in resting.nonzero().flatten().tolist()
        }
        going = ~resting
        return replace(
            after,
            active=tuple(number for number in after.active if number not in ends),
            state=some(after.state, going, count) if bool(going.any()) else [],
            bound=after.bound[going],
            limit=after.limit[going],
            warming=after.warming[going],
            finished={**after.finished, **ends},
        )

    def _explain_fall(self, state: State, before: float) -> str:
        """Sweep again with the bound taken after every update, to name the site that lowers it."""
        self.model.load(state)
        culprit, value = "an update", before
        for block in [*self.model.inner, *self.model.order]:
            self.model.update(block)
            now = self.model.elbo()
            if not now >= value - float(_rounding(self.model.size())):
                culprit = f"the update of {block.title!r}"
                if value - now < ROUNDING * float(self.model.size()):
                    return self._lost_digits(block.title)
                break
            value = now
        return (
            f"sweep {self.reached.rows + 1}: the bound fell from {before:.10g} to "
            f"{self.model.elbo():.10g} through {culprit}, which such updates cannot do; "
            "the data or the prior may be too badly scaled for float64, otherwise please report "
            "this model"
        )

    def _lost_digits(self, title: str) -> str:
        return (
            f"sweep {self.reached.rows + 1}: the terms that the update of {title!r} weighs are so large "
            f"({float(self.model.size()):.1g} nats in all) that their differences are lost to float64's "
            "rounding: data lie too far, for their spread, from the locations that they are held "
            "against. Take what is common off the data, give the locations priors near them, or use "
            "nuts()"
        )


def _rounding(size: Tensor) -> Tensor:
    """By how much a bound may fall that adds up so much."""
    return (ROUNDING * size).clamp(max=COARSE)
