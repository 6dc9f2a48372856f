"""The modes of a posterior that the draws of a fit do not visit."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from vitools.diagnostics.modes.scan import Mode, find_modes
from vitools.diagnostics.reference.accuracy import entry_name
from vitools.errors import NotSupportedError, NumericalError
from vitools.posterior import DrawsPosterior, Posterior
from vitools.problem import Problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

MAX_DIMENSIONS = 200
MAX_BYTES = 1_000_000
"""Of one evaluation of the density: a judgement scans no costlier model by itself."""

WORK = 400_000
"""Bytes of the densities of all starts, which are as many as that allows, from 4 to 16."""

LEAST_VISITS = 0.02
"""The share of the draws due to a mode that makes it a visited one."""

TOO_LOW = 3.0
"""Nats by which q may fall short of the posterior at a mode that it knows."""


@dataclass(frozen=True)
class Scan:
    """What a judgement's scan came to.

    Attributes:
        words: in one phrase; why there was none, where there was none.
        modes: all that were found.
        missed: those that the fit's draws do not visit.
    """

    words: str
    modes: tuple[Mode, ...] = ()
    missed: tuple[Mode, ...] = ()

    @property
    def missed_share(self) -> float:
        return sum(mode.share for mode in self.missed)

    @property
    def missed_at(self) -> str:
        """Where the largest missed mode is: its entry that is furthest from the largest other one."""
        mode = self.missed[0]
        others = [other for other in self.modes if other is not mode]
        name, index = max(
            ((k, i) for k, v in mode.values.items() for i in range(v.numel())),
            key=lambda at: max(
                (
                    abs(float((mode.values[at[0]] - other.values[at[0]]).flatten()[at[1]]))
                    for other in others[:1]
                ),
                default=0.0,
            ),
        )
        value = mode.values[name]
        place = torch.unravel_index(torch.tensor(index), value.shape) if value.dim() else ()
        at = entry_name(name, tuple(int(i) for i in place))
        return f"{at} = {float(value.flatten()[index]):.3g}"


# by what all copies of one Problem share, so that a comparison pays once
_kept: WeakKeyDictionary[object, Scan] = WeakKeyDictionary()


def scan_for(posterior: Posterior, values: Mapping[str, Tensor]) -> Scan:
    """Look for modes of a fit's problem, and which of them its draws ``{site: [n, *shape]}`` miss."""
    problem = posterior.problem
    found = _kept.get(problem.mapper)
    if found is None:
        found = _scan(problem)
        if not problem.free_params:  # with those, another fit's density is another
            _kept[problem.mapper] = found
    missed = unvisited(problem, found.modes, values) if found.modes else []
    if missed and not isinstance(posterior, DrawsPosterior):
        missed = _unknown(posterior, missed, values)
    return Scan(found.words, found.modes, tuple(missed))


def _unknown(posterior: Posterior, modes: list[Mode], values: Mapping[str, Tensor]) -> list[Mode]:
    """Modes whose density under q is far too low: the others are no peaks to draws, but known.

    Near the vertices of a simplex, say, a mode of the unconstrained density holds few draws of the
    very posterior.
    """
    problem = posterior.problem
    with torch.no_grad():
        level = (problem.log_joint(values) - posterior.log_prob(values)).double().logsumexp(0)
        level = level - math.log(len(next(iter(values.values()))))
        unknown = []
        for mode in modes:
            at = {name: value.unsqueeze(0) for name, value in mode.values.items()}
            excess = problem.log_joint(at) - posterior.log_prob(at) - level
            if not float(excess) <= TOO_LOW:
                unknown.append(mode)
    return unknown


def _scan(problem: Problem) -> Scan:
    size, cost = sum(s.shape.numel() for s in problem.continuous.values()), problem.mapper
    if not 0 < size <= MAX_DIMENSIONS or cost.bytes_per_draw > MAX_BYTES:
        return Scan("other modes were not looked for: find_modes(problem) does")
    starts = int(min(16, max(4, WORK / max(1, cost.bytes_per_draw))))
    try:
        modes = find_modes(problem, num_starts=starts)
    except (NotSupportedError, NumericalError) as error:
        return Scan(f"other modes could not be looked for ({str(error).rstrip('.')})")
    if not modes:
        return Scan("a scan for modes found no peak")
    return Scan(f"a scan found {len(modes)} mode{'s' * (len(modes) > 1)}", tuple(modes))


def unvisited(
    problem: Problem, modes: tuple[Mode, ...], values: Mapping[str, Tensor]
) -> list[Mode]:
    """The modes that draws do not visit.

    Visited is a mode with a tenth of the draws that its share calls for, within the distance that
    holds 99 % of a Gaussian there. Where the model has invariants, a mode counts as visited with any
    other at which they have the same values.
    """
    points = UnconstrainedSpace(problem).from_values(values).detach().cpu().double()
    reach = _reach(points.shape[1])
    missed: list[Mode] = []
    seen: list[Mode] = []
    for mode in modes:
        near = int((mode.squared_distance(points) < reach).sum())
        (seen if near > LEAST_VISITS * mode.share * len(points) else missed).append(mode)
    return [mode for mode in missed if not any(_alike(problem, mode, other) for other in seen)]


def _reach(size: int) -> float:
    """The 99 % quantile of χ² with ``size`` degrees of freedom (Wilson and Hilferty)."""
    part = 2 / (9 * size)
    return size * (1 - part + 2.326 * math.sqrt(part)) ** 3


def _alike(problem: Problem, one: Mode, other: Mode) -> bool:
    if problem.invariants is None:
        return False
    first, second = (
        problem.invariants({k: v.unsqueeze(0) for k, v in mode.values.items()})
        for mode in (one, other)
    )
    return all(torch.allclose(first[k], second[k], rtol=1e-2, atol=1e-3) for k in first)
