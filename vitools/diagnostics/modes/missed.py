"""The modes of a posterior that the draws of a fit do not visit."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import LinAlgError

from vitools.diagnostics.modes.known import Copies, is_known
from vitools.diagnostics.modes.scan import Mode, find_modes
from vitools.diagnostics.reference.accuracy import entry_name
from vitools.errors import ModelError, NotSupportedError, NumericalError
from vitools.posterior import Posterior
from vitools.problem import Problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

MAX_DIMENSIONS = 200
MAX_BYTES = 1_000_000
"""Of one evaluation of the density: a judgement scans no costlier model by itself."""

WORK = 3_200_000
"""Bytes of the densities of all starts, which are as many as that allows."""

FEWEST, MOST = 4, 64
"""Starts; each is tried at three distances and mirrored."""

KEPT = "scan for modes"
"""Where a problem keeps its scan, so that a comparison pays once."""

LEAST_VISITS = 0.02
"""The share of the draws due to a mode that makes it a visited one."""

NEGLIGIBLE = 1e-3
"""The share of a mode below which nobody misses it."""


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


def scan_for(posterior: Posterior, values: Mapping[str, Tensor]) -> Scan:
    """Look for modes of a fit's problem, and which of them its draws ``{site: [n, *shape]}`` miss."""
    problem = posterior.problem
    found: Scan | None = problem.kept.get(KEPT)
    if found is None:
        found = _scan(problem)
        if not problem.free_params:  # with those, another fit's density is another
            problem.kept[KEPT] = found
    if not found.modes:
        return found
    modes = list(found.modes)
    if problem.invariants is not None:
        modes = Copies(problem, values).of_one(modes)
    missed = unvisited(problem, modes, values)
    if missed:
        known = is_known(posterior, values)
        missed = [mode for mode in missed if not known(mode)]
    return Scan(found.words, tuple(modes), tuple(missed))


def _scan(problem: Problem) -> Scan:
    size, cost = sum(s.shape.numel() for s in problem.continuous.values()), problem.mapper
    if not 0 < size <= MAX_DIMENSIONS or cost.bytes_per_draw > MAX_BYTES:
        return Scan("other modes were not looked for: find_modes(problem) does")
    starts = int(min(MOST, max(FEWEST, WORK / max(1, cost.bytes_per_draw))))
    try:
        modes = find_modes(problem, num_starts=starts)
    except (NotSupportedError, NumericalError, ModelError) as error:
        # a model that ran at the fit's own draws can meet a singular matrix where a search goes
        if isinstance(error, ModelError) and not isinstance(error.__cause__, LinAlgError):
            raise
        return Scan(f"other modes could not be looked for ({str(error).rstrip('.')})")
    if not modes:
        return Scan("a scan for modes found no peak")
    return Scan(f"a scan found {len(modes)} mode{'s' * (len(modes) > 1)}", tuple(modes))


def unvisited(problem: Problem, modes: Sequence[Mode], values: Mapping[str, Tensor]) -> list[Mode]:
    """The modes worth a visit that draws do not visit.

    Visited is a mode with a fiftieth of the draws that its share calls for, within the distance that
    holds 99 % of a Gaussian there.
    """
    points = UnconstrainedSpace(problem).from_values(values).detach().cpu().double()
    least, reach = LEAST_VISITS * len(points), _reach(points.shape[1])
    return [
        mode
        for mode in modes
        if mode.share > NEGLIGIBLE
        and int((mode.squared_distance(points) < reach).sum()) <= least * mode.share
    ]


def _reach(size: int) -> float:
    """The 99 % quantile of χ² with ``size`` degrees of freedom (Wilson and Hilferty)."""
    part = 2 / (9 * size)
    return size * (1 - part + 2.326 * math.sqrt(part)) ** 3
