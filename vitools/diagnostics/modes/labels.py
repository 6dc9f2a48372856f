"""Labels of a mixture that the model does not tell apart, found from its density.

Where components may change places, each mode has a copy for every order of them. A model says so with
``invariants``; of a mixture that has none, the axes along which labels run are looked for: dimensions
of one size K of its continuous latents, in plates or of events. A set of axes is *exchangeable* where
the same permutation along all of them leaves log p(x, θ) as it is, discrete latents summed out, at
draws of the prior. A swap and a cycle make all permutations, so two are tried; a set that holds
another exchangeable set needs no telling.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations

import torch
from torch import Tensor

from vitools.diagnostics.modes.scan import Mode
from vitools.diagnostics.reference.moments import quantities
from vitools.problem import Problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

MOST_AXES = 7
"""Of one size; all of their sets are tried."""

MOST_LABELS = 100
TRIED = 3  # draws of the prior
ROUNDING = 1e3
"""Roundings of the log joint, relative to its size, by which a permutation may change it."""

ALIKE, CONSTANT = 1.0, 1e-6
"""Standard deviations between two copies of one mode, and of what does not vary. They need not look
alike to the last digit: coordinates of a simplex treat its entries differently, and so the maximum of
the density of the coordinates moves with the labels, by a fraction of the posterior's widths."""

Values = Mapping[str, Tensor]


@dataclass(frozen=True)
class Exchange:
    """Axes along which the same labels run.

    Attributes:
        axes: ``(site, dim)``, counted from the right.
        size: K.
    """

    axes: tuple[tuple[str, int], ...]
    size: int

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(site for site, _ in self.axes))

    def permuted(self, values: Values, order: Tensor) -> dict[str, Tensor]:
        """``{site: [*S, *shape]}`` with label k where ``order[k]`` was."""
        found = dict(values)
        for site, dim in self.axes:
            found[site] = found[site].index_select(dim, order.to(found[site].device))
        return found

    def features(self, values: Values) -> Tensor:
        """What tells labels apart at one point ``{site: [*shape]}``: ``[K, F]``."""
        columns = []
        for site in self.sites:
            dims = [dim for name, dim in self.axes if name == site]
            value = values[site].double().cpu()
            if len(dims) > 1:  # from each label to itself
                value = value.diagonal(0, *dims[:2])
                dims = [-1]
            columns.append(value.movedim(dims[0], 0).reshape(self.size, -1))
        return torch.cat(columns, -1)


def exchanges(problem: Problem) -> tuple[Exchange, ...]:
    """The smallest exchangeable sets of axes of a mixture; none where the model has invariants."""
    mixes = any("Mixture" in site.distribution for site in problem.observed.values())
    if not (problem.discrete or mixes) or problem.invariants is not None:
        return ()
    axes: dict[int, list[tuple[str, int]]] = {}
    for name, site in problem.continuous.items():
        for dim, size in enumerate(site.shape):
            if 1 < size <= MOST_LABELS:
                axes.setdefault(size, []).append((name, dim - len(site.shape)))
    if not axes:
        return ()
    drawn, found = problem.starting_draws(TRIED), list[Exchange]()
    draws = {name: drawn[name] for name in problem.drawn}
    for size, of_size in axes.items():
        if len(of_size) <= MOST_AXES:
            found += _exchangeable(problem, size, of_size, draws)
    return tuple(found)


def _exchangeable(
    problem: Problem, size: int, axes: Sequence[tuple[str, int]], draws: Values
) -> list[Exchange]:
    """All smallest sets, by one call of the density for all sets and permutations."""
    sets = [
        Exchange(chosen, size)
        for chosen in chain.from_iterable(
            combinations(axes, count) for count in range(1, len(axes) + 1)
        )
    ]
    every = torch.arange(size)
    swap = torch.cat([every[:2].flip(0), every[2:]])
    orders = [swap] if size == 2 else [swap, every.roll(1)]
    tried = [draws, *(one.permuted(draws, order) for one in sets for order in orders)]
    with torch.no_grad():
        heights = problem.log_joint({k: torch.cat([t[k] for t in tried]) for k in draws})
    first, *others = heights.reshape(len(tried), -1)
    usable = torch.isfinite(first)
    if not bool(usable.any()):
        return []
    close = ROUNDING * torch.finfo(heights.dtype).eps * (1.0 + first.abs())
    same = [bool(((other - first).abs() <= close)[usable].all()) for other in others]
    kept: list[Exchange] = []
    for i, one in enumerate(sets):
        holds = all(same[i * len(orders) : (i + 1) * len(orders)])
        if holds and not any(set(known.axes) <= set(one.axes) for known in kept):
            kept.append(one)
    return kept


class Copies(ABC):
    """Modes that differ by labels alone; ``words`` names these."""

    words: str

    @abstractmethod
    def has_one(self, mode: Mode, points: Tensor) -> bool:
        """Whether one of ``[n, P]`` is a copy of the mode."""

    def of_one(self, modes: Sequence[Mode]) -> list[Mode]:
        """The largest of each kind, its share that of its own mass among these."""
        kept: list[Mode] = []
        for mode in modes:
            others = [other.point for other in kept]
            if not others or not self.has_one(mode, torch.stack(others)):
                kept.append(mode)
        total = torch.tensor([mode.log_mass for mode in kept], dtype=torch.float64).logsumexp(0)
        return [replace(mode, share=math.exp(mode.log_mass - float(total))) for mode in kept]


class Relabelled(Copies):
    """Copies by labels that the density does not tell apart.

    Args:
        found: what :func:`exchanges` found.
    """

    def __init__(self, problem: Problem, found: Sequence[Exchange]) -> None:
        self.space, self.exchanges = UnconstrainedSpace(problem), found
        sites = dict.fromkeys(site for one in found for site in one.sites)
        self.words = f"the labels of {', '.join(sites)}"

    def has_one(self, mode: Mode, points: Tensor) -> bool:
        width = ALIKE * torch.linalg.inv(mode.precision).diagonal().clamp(min=0.0).sqrt()
        for point in points:
            values: dict[str, Tensor] = self.space.to_values(point.to(self.space.dtype))
            for exchange in self.exchanges:
                own, other = (exchange.features(v) for v in (mode.values, values))
                values = exchange.permuted(values, _matched(own, other))
            away = self.space.from_values(values).double().cpu() - mode.point
            if bool((away.abs() <= width).all()):
                return True
        return False


def _matched(own: Tensor, other: Tensor) -> Tensor:
    """For each row of ``[K, F]`` the row of the other that is nearest, each taken once.

    The nearest pair of all first: copies have pairs that are all but equal, and of rows that cannot
    be told apart either will do.
    """
    scale = own.std(0)
    scale = torch.where(scale > 0, scale, 1.0)
    distance = torch.cdist(own / scale, other / scale)
    order = torch.empty(len(own), dtype=torch.long)
    for _ in range(len(own)):
        row, column = divmod(int(distance.argmin()), len(other))
        order[row] = column
        distance[row], distance[:, column] = torch.inf, torch.inf
    return order


class AlikeInvariants(Copies):
    """Copies by what the model says of itself: their invariants are alike.

    Args:
        problem: with invariants.
        values: draws of a fit, ``{site: [n, *shape]}``, for the widths.
    """

    words = "their labels"

    def __init__(self, problem: Problem, values: Values) -> None:
        self.space = UnconstrainedSpace(problem)
        judged = self._of(values)
        self.width = {name: ALIKE * value.std(0) + CONSTANT for name, value in judged.items()}

    def has_one(self, mode: Mode, points: Tensor) -> bool:
        own = self._of({name: value.unsqueeze(0) for name, value in mode.values.items()})
        others = self._of(self.space.to_values(points.to(self.space.dtype)))
        alike = [
            ((others[name] - own[name]).abs() <= width).flatten(1).all(1)
            for name, width in self.width.items()
        ]
        return bool(torch.stack(alike).all(0).any())

    def _of(self, values: Values) -> dict[str, Tensor]:
        return {k: v.double() for k, v in quantities(self.space.problem, values).items()}
