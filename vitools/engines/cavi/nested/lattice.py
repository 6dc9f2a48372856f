"""Nested factors on a lattice: q(θ) q(rest | θ) for latents whose terms have no rule of their own, or too many.

A covariance matrix of group effects, its scales and correlations, a length-scale: θ is one point u of ℝ^P,
and once it has a value the rest of the model has rules. The space is cut into equal boxes, "cells", about the
maximum of

    F(u) = log p(θ(u)) + log |∂θ/∂u| + L(u),      L(u) the bound of the rest at θ(u),

as many in each direction as it takes for F to fall by :data:`DROPS` nats. In cell k q(u) is log-quadratic in each
coordinate, with the differences of F between neighbours, and q(rest) is the optimal factor given the cell,

    log q_k(rest) = E_{q_k(u)} log p(x, rest, θ(u)) + const,

the expectation over 2^P equally likely points with the mean and the variance of q_k(u) in each coordinate. Cells
do not overlap, so log p(x) ≥ log Σ_k exp ELBO_k, the weights are ∝ exp ELBO_k, and the answer is a mixture.
What is lost is how the rest follows θ within a cell. Boxes are as wide as the posterior given the other
coordinates for P ≤ 3, twice as wide for six.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.calculus.model import State
from vitools.engines.cavi.nested.given import FINE, ROUGH, Fitted, RestOfModel
from vitools.engines.progress import Listener, Progress
from vitools.errors import NumericalError
from vitools.posterior import History, Status
from vitools.problem.coordinates.boxes import Panels

DROPS = (7.5, 7.5, 7.5, 8.0, 8.5, 9.0)
"""Nats below the maximum down to which there are cells, for P = 1, 2, …: χ²_3 exceeds 15 in two of a thousand."""
WIDTHS = (0.5, 0.75, 1.0, 1.5, 1.75, 2.0)
"""Of a cell in units of a coordinate's posterior sd given the others, for P = 1, 2, …"""
MOST_CELLS = 2000
FIRST_STEP = 0.3
MOST_ROUNDS = 60
SETTLED = 1e-2
"""Nats that a step towards the maximum still promises when it is as good as reached."""
FAR = 3.0
"""The most that a coordinate moves in a step."""
Key = tuple[int, ...]


@dataclass(frozen=True)
class LatticeCell:
    """A box, what was found in it, and the number of its panel."""

    key: Key
    fitted: Fitted
    bound: float
    panel: int


class Lattice:
    """Finds the maximum of F and the cells about it.

    Args:
        rest: with 2^P values a cell.
        start: where to begin, ``[S, P]``: the best of these.
    """

    def __init__(self, rest: RestOfModel, start: Tensor, began: float, progress: Listener | None):
        self.rest, self.space, self.size = rest, rest.space, rest.space.size
        rest.began = self._began = began
        self._progress, self._start = progress, start
        self._told, self.drop = 0, DROPS[self.size - 1]
        signs = itertools.product((-1.0, 1.0), repeat=self.size)
        self._signs = torch.tensor(list(signs), dtype=torch.float64)
        self.cells: list[LatticeCell] = []
        self.panels: Panels | None = None
        self.error, self._seconds = 0.0, 0.0
        self.is_whole = True

    def run(self) -> Status:
        """All cells; INTERRUPTED is raised as KeyboardInterrupt, for there is no fit before the end."""
        middle, scale, state = self._climb()
        self._fill(middle, scale, state)
        unfinished = any(c.fitted.status is Status.STOPPED_AT_LIMIT for c in self.cells)
        return Status.CONVERGED if self.is_whole and not unfinished else Status.STOPPED_AT_LIMIT

    @property
    def bound(self) -> float:
        """log Σ_k exp ELBO_k."""
        return float(self.bounds.logsumexp(0))

    @property
    def bounds(self) -> Tensor:
        return torch.tensor([cell.bound for cell in self.cells], dtype=torch.float64)

    @property
    def history(self) -> History:
        """The bound; there is none before all cells are."""
        return History.of_rows([(self.bound, self._seconds)])

    def in_words(self) -> str:
        names = ", ".join(self.space.names)
        words = f"the others given {names} in {len(self.cells)} cells of a lattice of their values"
        return (
            words
            if self.is_whole
            else f"{words}, which are not all: F has not fallen by {self.drop:g} nats"
        )

    # ---- F -------------------------------------------------------------------------------------

    def _at(self, points: Tensor, starts: Sequence[State | None]) -> tuple[Tensor, list[State]]:
        """F at points ``[C, P]`` and the factors there, ``-inf`` where there are none."""
        nodes = points.unsqueeze(1).expand(-1, self.rest.count, -1)
        fitted = self.rest.fit(nodes, starts)
        bounds = torch.tensor([one.bound for one in fitted], dtype=torch.float64)
        return bounds + self.space.log_jacobian(points), [one.state[:-1] for one in fitted]

    def _climb(self) -> tuple[Tensor, Tensor, State]:
        """The maximum of F, the sds of each coordinate given the others, and the factors there.

        Newton's steps, of second differences; where F is not concave an eigenvalue counts by its size.
        """
        values, states = self._at(self._start, [None] * len(self._start))
        best = int(values.nan_to_num(-math.inf).argmax())
        here, value, state = self._start[best], float(values[best]), states[best]
        if not math.isfinite(value):
            raise NumericalError(
                f"nested: no value of {', '.join(self.space.names)} was found at which the model has a density "
                "and the rest a fit. Give start= values of theirs, or leave nested out."
            )
        self.rest.to(ROUGH, value)
        step = torch.full((self.size,), FIRST_STEP, dtype=torch.float64)
        for _ in range(MOST_ROUNDS):
            self._tell(value)
            offsets, pairs = _stencil(self.size)
            around, found = self._at(here + offsets * step, [state] * len(offsets))
            slope, curvature = _derivatives(value, around, self.size, pairs)
            sizes, axes = torch.linalg.eigh(curvature)  # in units of the steps
            along = axes.mT @ slope
            damped = -sizes.abs().clamp(min=1e-3 * float(sizes.abs().max().clamp(min=1e-12)))
            move = axes @ (-along / damped)
            promise = float(0.5 * (along**2 / -damped).sum())
            own = (-curvature.diagonal()).clamp(min=1e-12).rsqrt() * step
            concave = bool((sizes < 0).all())
            step_next = torch.where(
                (-curvature.diagonal()) > 0, (0.7 * own).clamp(0.1 * step, 3 * step), 2 * step
            ).clamp(1e-6, FAR)
            if concave and promise < SETTLED and bool((own / step < 4).all()):
                return here, own, state
            move = move * step
            move = move * min(1.0, FAR / float(move.abs().max().clamp(min=1e-300)))
            lengths = torch.tensor([2.0, 1.0, 0.5, 0.2, 0.05], dtype=torch.float64)
            tried, states = self._at(here + lengths.unsqueeze(-1) * move, [state] * len(lengths))
            values = torch.cat([tried, around]).nan_to_num(-math.inf)
            best = int(values.argmax())
            if float(values[best]) > value:
                places = torch.cat([here + lengths.unsqueeze(-1) * move, here + offsets * step])
                here, value, state = places[best], float(values[best]), [*states, *found][best]
            step = step_next
        raise NumericalError(
            f"nested: the bound given {', '.join(self.space.names)} has no maximum that {MOST_ROUNDS} steps reach: "
            f"it still rises at {self._spelled(here)}. The posterior may be improper; give proper priors."
        )

    def _spelled(self, point: Tensor) -> str:
        return ", ".join(f"{n} = {v.tolist()}" for n, v in self.space.values(point).items())

    # ---- cells ---------------------------------------------------------------------------------

    def _fill(self, middle: Tensor, scale: Tensor, state: State) -> None:
        """Cells outwards from the middle, then the fit in each."""
        widths = scale * WIDTHS[self.size - 1]
        origin: Key = (0,) * self.size
        values: dict[Key, float] = {}
        states: dict[Key, State] = {}
        wave: dict[Key, State] = {origin: state}
        while wave:
            keys = list(wave)
            points = middle + torch.tensor(keys, dtype=torch.float64) * widths
            found, fitted = self._at(points, [wave[key] for key in keys])
            values |= dict(zip(keys, found.tolist(), strict=True))
            states |= dict(zip(keys, fitted, strict=True))
            top = max(values.values())
            self._tell(top)
            inside = [key for key, value in values.items() if value > top - self.drop]
            if len(inside) >= MOST_CELLS:
                self.is_whole = False
                break
            wave = {
                other: states[key]
                for key in inside
                for other in _neighbours(key)
                if other not in values
            }
        inside = sorted(inside, key=lambda key: -values[key])[:MOST_CELLS]
        if not self.is_whole:  # neighbours tell the slopes
            inside = [key for key in inside if all(other in values for other in _neighbours(key))]
        self.panels = _panels(inside, values, middle, widths)
        mean, sd, entropy = self.panels.moments()
        nodes = mean.unsqueeze(1) + self._signs * sd.unsqueeze(1)
        self.rest.to(FINE, top)
        fitted_cells = self.rest.fit(nodes, [states[key] for key in inside])
        jacobian = self.space.log_jacobian(nodes).mean(1)
        more = (entropy + jacobian).tolist()
        self.cells = [
            LatticeCell(key, one, one.bound + extra, number)
            for number, (key, one, extra) in enumerate(zip(inside, fitted_cells, more, strict=True))
        ]
        self._seconds = time.perf_counter() - self._began
        self._tell(self.bound)
        heaviest = int(self.bounds.argmax())
        star = torch.cat([torch.eye(self.size), -torch.eye(self.size)]).double() * self.size**0.5
        other = mean[heaviest] + star * sd[heaviest]
        at_star = self.rest.bound_at(fitted_cells[heaviest].state, other)
        at_star += float(self.space.log_jacobian(other).mean() + entropy[heaviest])
        self.error = abs(at_star - self.cells[heaviest].bound)

    def _tell(self, value: float) -> None:
        self._told += 1
        if self._progress:
            seconds = time.perf_counter() - self._began
            self._progress(Progress("cavi", self._told, 2 * MOST_ROUNDS, value, seconds))


def _neighbours(key: Key) -> list[Key]:
    return [(*key[:i], key[i] + way, *key[i + 1 :]) for i in range(len(key)) for way in (-1, 1)]


def _panels(
    keys: Sequence[Key], values: dict[Key, float], middle: Tensor, widths: Tensor
) -> Panels:
    """Log-quadratic densities of F's differences."""
    here = torch.tensor([values[key] for key in keys], dtype=torch.float64)
    beside = torch.tensor(
        [[values[other] for other in _neighbours(key)] for key in keys], dtype=torch.float64
    ).reshape(len(keys), -1, 2)
    low, high = beside[..., 0], beside[..., 1]
    at = here.unsqueeze(-1)
    low, high = (torch.where(x.isfinite(), x, at - DROPS[-1]) for x in (low, high))
    slopes = (high - low) / (2 * widths)
    curvatures = (high + low - 2 * at) / widths**2
    centres = middle + torch.tensor(keys, dtype=torch.float64) * widths
    return Panels(centres, widths, slopes, curvatures)


def _stencil(size: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """±e_i, then e_i + e_j and -(e_i + e_j)."""
    eye = torch.eye(size, dtype=torch.float64)
    pairs = list(itertools.combinations(range(size), 2))
    mixed = [eye[i] + eye[j] for i, j in pairs]
    rows = [row for one in (*eye, *mixed) for row in (one, -one)]
    return torch.stack(rows), pairs


def _derivatives(
    value: float, around: Tensor, size: int, pairs: Sequence[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """Gradient and Hessian of F by differences, in units of the steps."""
    around = torch.where(around.isfinite(), around, torch.full_like(around, value - 1e3))
    both = around.reshape(-1, 2)
    slope = (both[:size, 0] - both[:size, 1]) / 2
    second = both.sum(1) - 2 * value
    hessian = torch.diag(second[:size])
    for (i, j), along in zip(pairs, second[size:], strict=True):
        hessian[i, j] = hessian[j, i] = (along - second[i] - second[j]) / 2
    return slope, hessian
