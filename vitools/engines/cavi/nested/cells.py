"""Nested factors: q(θ) q(rest | θ) for a few scalars θ, by cells of their values.

The space of θ is cut into boxes ("cells"); in each, coordinate ascent fits a factorised posterior of
its own with every q(θ_i) held to the box. Cells do not overlap, so for any factors

    log p(y) = log Σ_k p(y, θ in cell k) ≥ log Σ_k exp ELBO_k,

and the best mixture of these posteriors has weights ∝ exp ELBO_k: the bound is a bound at any number
of cells. A cell is cut where q(θ_i) has its median, and both halves begin at what the whole had
found, so a cut never lowers the bound; as cells narrow it rises to that of the best q(θ) q(rest | θ),

    q(θ) ∝ p(θ) exp L(θ),    L(θ) the bound of the rest at θ.

What dependence within a cell still costs falls as the square of its width: half the width, a quarter
of the loss. So each cut foretells what the next ones will gain; the cells that promise most are
cut next, until what all of them promise is below a hundredth of a nat.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vitools.calculus import ConjugateModel
from vitools.calculus.blocks.free_form import FreeFormBlock
from vitools.calculus.model import State
from vitools.engines.cavi.coordinate_ascent import CaviRun, CoordinateAscent, Schedule
from vitools.engines.loop import iterate
from vitools.engines.progress import Listener
from vitools.posterior import History, Status

PROMISE = 0.01
"""Nats that further cuts may still promise together when cutting ends."""

MOST_CELLS = 1000
MOST_ROUNDS = 100

UNKNOWN = 50.0
"""Nats promised by a cut that nothing is known of: more than any that was seen."""

LEFT_WITHIN, LEFT_IN_TAIL = 0.3, 0.8
"""What a cut in two promises of the next one: a quarter in narrow cells, all of it in a tail that
falls exponentially, whose farther half is as wide as the whole."""

REST = 4 / 3
"""All the cuts to come, 1 + 1/4 + 1/16 + …, as a multiple of the next."""

WORTH = 0.1
"""A cell is cut in a round that promises this part of the most that any does."""

INNER_TOLERANCE = 1e-4
"""Nats to which the fit of a cell is run."""


@dataclass(frozen=True)
class Cell:
    """A box of values of the nested sites, the state of q in it, and what cutting it promises."""

    box: dict[str, tuple[float, float]]
    state: State
    bound: float
    status: Status
    promise: dict[str, float]


@dataclass(frozen=True)
class Cells:
    """All cells, and bound and seconds up to here; replaced as a whole, so that Ctrl-C finds a whole."""

    cells: tuple[Cell, ...]
    rows: tuple[tuple[float, float], ...]

    @property
    def bounds(self) -> Tensor:
        return torch.tensor([cell.bound for cell in self.cells], dtype=torch.float64)

    @property
    def bound(self) -> float:
        """log Σ_k exp ELBO_k."""
        return float(self.bounds.logsumexp(0))

    def gains(self) -> list[dict[str, float]]:
        """What cutting each cell at each site promises to the bound, in nats."""
        shares = self.bounds.softmax(0).tolist()
        return [
            {site: math.log1p(share * math.expm1(more)) for site, more in cell.promise.items()}
            for cell, share in zip(self.cells, shares, strict=True)
        ]

    def remaining(self) -> float:
        """What all further cuts promise."""
        return REST * sum(gain for gains in self.gains() for gain in gains.values())


class NestedAscent:
    """Cuts the cells of nested sites until no cut promises much.

    Args:
        model: with a block for each nested site that can be cut.
        names: of the nested sites.
        whole: the run without cells, where the first cut begins.
    """

    def __init__(
        self, model: ConjugateModel, names: Sequence[str], whole: CaviRun, schedule: Schedule
    ):
        self.model, self.names = model, tuple(names)
        scale = INNER_TOLERANCE / max(1.0, abs(whole.bound))
        self.schedule = replace(schedule, tol=max(schedule.tol, min(1e-5, scale)), warmup_sweeps=0)
        box = dict.fromkeys(self.names, (-math.inf, math.inf))
        promise = dict.fromkeys(self.names, UNKNOWN)
        first = Cell(box, whole.state, whole.bound, whole.status, promise)
        rows = zip(whole.history.elbo, whole.history.seconds, strict=True)
        self.reached = Cells((first,), tuple(rows))

    def run(self, progress: Listener | None, began: float) -> Status:
        def keep(bounds: Sequence[float], seconds: float) -> Status | None:
            if self.reached.remaining() <= PROMISE:
                return Status.CONVERGED
            return Status.STOPPED_AT_LIMIT if len(self.reached.cells) >= MOST_CELLS else None

        self._began = began
        status = iterate(
            self._round, keep, max_steps=MOST_ROUNDS, engine="cavi", progress=progress, began=began
        )
        unfinished = any(c.status is Status.STOPPED_AT_LIMIT for c in self.reached.cells)
        return Status.STOPPED_AT_LIMIT if status is Status.CONVERGED and unfinished else status

    @property
    def history(self) -> History:
        """Bounds of the sweeps before the first cut, then one after each round of cuts."""
        return History.of_rows(self.reached.rows)

    def in_words(self) -> str:
        names, count = ", ".join(self.names), len(self.reached.cells)
        words = f"the others given {names} in {count} cells of its values"
        left = self.reached.remaining()
        return words if left <= PROMISE else f"{words}, more of which promise {left:.2g} nats"

    def enter(self, cell: Cell) -> None:
        """Set the model to what was found in a cell."""
        self.model.load(cell.state)

    def _round(self, done: int) -> list[float]:
        """Cut the cells that promise most where their medians lie."""
        at = self.reached
        choices = [max(gains.items(), key=lambda pair: pair[1]) for gains in at.gains()]
        least = WORTH * max(gain for _, gain in choices)
        least = max(least, PROMISE / (2 * REST * len(choices)))
        kept: list[Cell] = []
        parents: list[tuple[Cell, str]] = []
        for cell, (site, gain) in zip(at.cells, choices, strict=True):
            if gain < least or len(at.cells) + len(parents) >= MOST_CELLS:
                kept.append(cell)
            else:
                parents.append((cell, site))
        fitted = self._fitted(self._halves(parents))
        for (cell, site), low, high in zip(parents, fitted[::2], fitted[1::2], strict=True):
            both = torch.tensor([low.bound, high.bound], dtype=torch.float64).logsumexp(0)
            gain = max(float(both) - cell.bound, 0.0)
            for half in (low, high):
                left = LEFT_IN_TAIL if any(map(math.isinf, half.box[site])) else LEFT_WITHIN
                kept.append(replace(half, promise={**cell.promise, site: left * gain}))
        cells = Cells(tuple(kept), at.rows)
        row = (cells.bound, time.perf_counter() - self._began)
        self.reached = replace(cells, rows=(*at.rows, row))
        return [cells.bound]

    def _halves(self, parents: Sequence[tuple[Cell, str]]) -> list[Cell]:
        """Both halves of each cell, cut at the median of a site."""
        medians: dict[int, float] = {}
        for site in {site for _, site in parents}:
            block, of_site = (
                self._block(site),
                [i for i, (_, name) in enumerate(parents) if name == site],
            )
            number = self.model.blocks.index(block)
            states = [parents[i][0].state[number]["natural"] for i in of_site]
            natural = tuple(torch.stack(parts) for parts in zip(*states, strict=True))
            half = torch.tensor(0.5, dtype=torch.float64)
            found = block.family.to_distribution(natural).icdf(half)
            medians |= zip(of_site, found.flatten().tolist(), strict=True)
        halves = []
        for i, (cell, site) in enumerate(parents):
            (low, high), middle = cell.box[site], medians[i]
            sides = ((low, middle), (middle, high))
            halves += [replace(cell, box={**cell.box, site: side}) for side in sides]
        return halves

    def _fitted(self, cells: Sequence[Cell]) -> list[Cell]:
        """Coordinate ascent within each cell, from the state that it came with."""

        def initialise(number: int) -> None:
            self.model.load(cells[number].state)
            for site, ends in cells[number].box.items():
                self._block(site).cut(*ends)
            if self.model.predictors:  # whose first sweep is held to the bound it begins with
                for site in self.names:
                    self.model.update(self._block(site))

        runs: list[CaviRun] = []
        while len(runs) < len(cells):
            rest = list(range(len(runs), len(cells)))
            ascent = CoordinateAscent(self.model, rest, self.schedule, initialise)
            status = ascent.run(None, self._began)
            if status is Status.INTERRUPTED:
                raise KeyboardInterrupt
            runs += ascent.runs(status)
        return [
            replace(cell, state=run.state, bound=run.bound, status=run.status)
            for cell, run in zip(cells, runs, strict=True)
        ]

    def _block(self, name: str) -> FreeFormBlock:
        block = self.model.block_of[name]
        assert isinstance(block, FreeFormBlock), name
        return block


def takes_cells(model: ConjugateModel, names: Sequence[str]) -> bool:
    """Whether each site has a one-dimensional integral, whose range can be cut."""
    return all(isinstance(model.block_of[name], FreeFormBlock) for name in names)
