"""The modes of a posterior that the draws of a fit do not visit."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vitools.diagnostics.modes.known import is_known
from vitools.diagnostics.modes.labels import (
    AlikeInvariants,
    Copies,
    Exchange,
    Relabelled,
    exchanges,
)
from vitools.diagnostics.modes.scan import Mode, find_modes, most_points
from vitools.diagnostics.reference.accuracy import entry_name, varying_scale
from vitools.diagnostics.reference.moments import quantities
from vitools.errors import NotSupportedError, NumericalError
from vitools.posterior import Posterior
from vitools.problem import Problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

MAX_DIMENSIONS = 200
MAX_BYTES = 1_000_000
"""Of one evaluation of the density: a judgement scans no costlier model by itself."""

WORK = 1_600_000
"""Bytes of the densities of all starts, which are as many as that allows."""

FEWEST, MOST = 4, 64
"""Starts; each is tried at three distances and mirrored."""

KEPT = "scan for modes"
"""Where a problem keeps its scan, so that a comparison pays once."""

LEAST_VISITS = 0.02
"""The share of the draws due to a mode that makes it a visited one."""

NEGLIGIBLE = 1e-3
"""The share of a mode below which nobody misses it, unless it lies far away."""

WORTH_SAYING = 0.5
"""The share of the mass below which it is said how little the modes hold."""

WIDENS = 0.1
"""By what share of itself a mode has to increase a variance to be missed all the same."""


@dataclass(frozen=True)
class Scan:
    """What a judgement's scan came to.

    Attributes:
        words: in one phrase; why there was none, where there was none.
        modes: all that were found.
        missed: those that the fit does not know.
        exchanges: labels that the density does not tell apart, where there are several modes.
        sd_ratio: the least of the fit's sds over those of the fit with the missed modes put in, by
            how far away they are; and ``sd_ratio_at`` its entry.
    """

    words: str
    modes: tuple[Mode, ...] = ()
    missed: tuple[Mode, ...] = ()
    sd_ratio: float = 1.0
    sd_ratio_at: str = ""
    exchanges: tuple[Exchange, ...] = ()

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


def scan_for(
    posterior: Posterior, values: Mapping[str, Tensor], log_evidence: float = -math.inf
) -> Scan:
    """Look for modes of a fit's problem, and which of them its draws miss.

    Args:
        values: the draws, ``{site: [n, *shape]}``.
        log_evidence: no more than log p(x). Shares are of all that is known to be there: of the masses of
            the modes found, or of this where it is more. (Where a posterior is no bell around its modes,
            as a funnel far above its own, these hold next to nothing.)
    """
    problem = posterior.problem
    found: Scan | None = problem.kept.get(KEPT)
    if found is None:
        found = _scan(problem)
        if not problem.free_params:  # with those, another fit's density is another
            problem.kept[KEPT] = found
    if not found.modes:
        return found
    modes, words = list(found.modes), found.words
    copies = _copies(problem, values, found.exchanges)
    if copies is not None:
        modes = copies.of_one(modes)
        if len(modes) < len(found.modes):
            words += f", {len(modes)} but for {copies.words}"
    modes, held = _of_evidence(modes, log_evidence)
    if held < WORTH_SAYING:
        words += f", with {held:.1g} of the mass"
    widening = Widening(problem, values)
    missed = unvisited(problem, modes, values, widening)
    if missed:
        known = is_known(posterior, values, copies, most_points(_num_starts(problem)))
        missed = [mode for mode in missed if not known(mode)]
    far = widening.sd_ratio(missed)
    return Scan(words, tuple(modes), tuple(missed), *far, found.exchanges)


def _of_evidence(modes: Sequence[Mode], log_evidence: float) -> tuple[list[Mode], float]:
    """The modes with their shares of what is known to be there, and the sum of these."""
    masses = torch.tensor([mode.log_mass for mode in modes], dtype=torch.float64)
    shares = (masses - max(float(masses.logsumexp(0)), log_evidence)).exp()
    shared = zip(modes, shares.tolist(), strict=True)
    return [replace(mode, share=share) for mode, share in shared], float(shares.sum())


def _copies(
    problem: Problem, values: Mapping[str, Tensor], found: tuple[Exchange, ...]
) -> Copies | None:
    """How modes may differ by labels: by the model's own word, else by its density."""
    if problem.invariants is not None:
        return AlikeInvariants(problem, values)
    return Relabelled(problem, found) if found else None


class Widening:
    """What far modes would add to the variances of judged quantities, s Δ² for a share s at Δ.

    One mode in a hundred, a hundred sds away, makes an sd ten times as wide.

    Args:
        values: draws of a fit, ``{site: [n, *shape]}``.
    """

    def __init__(self, problem: Problem, values: Mapping[str, Tensor]) -> None:
        self.problem = problem
        judged = quantities(problem, values)
        self.mean = {name: value.double().mean(0) for name, value in judged.items()}
        self.sd = {
            name: varying_scale(self.mean[name], value.double().std(0))
            for name, value in judged.items()
        }

    def of(self, mode: Mode) -> dict[str, Tensor]:
        """By entry, in variances of the fit; 0 where it has none."""
        at = {name: value.unsqueeze(0) for name, value in mode.values.items()}
        judged = {k: v[0].double() for k, v in quantities(self.problem, at).items()}
        return {
            k: mode.share * ((v - self.mean[k]) / self.sd[k]).square().nan_to_num(nan=0.0)
            for k, v in judged.items()
        }

    def sd_ratio(self, missed: Sequence[Mode]) -> tuple[float, str]:
        """Of the fit's sds over those with some modes put in, at the worst entry."""
        added = [self.of(mode) for mode in missed]
        total = {k: torch.stack([each[k] for each in added]).sum(0) for k in self.mean if added}
        worst = max(total, key=lambda name: float(total[name].max()), default=None)
        if worst is None:
            return 1.0, ""
        index = torch.unravel_index(total[worst].argmax(), total[worst].shape)
        name = entry_name(worst, tuple(int(i) for i in index))
        return (1.0 + float(total[worst].max())) ** -0.5, name


def _scan(problem: Problem) -> Scan:
    size, cost = sum(s.shape.numel() for s in problem.continuous.values()), problem.mapper
    if not 0 < size <= MAX_DIMENSIONS or cost.cost_per_draw > MAX_BYTES:
        return Scan("other modes were not looked for: find_modes(problem) does")
    try:
        modes = find_modes(problem, num_starts=_num_starts(problem))
    except (NotSupportedError, NumericalError) as error:
        return Scan(f"other modes could not be looked for ({str(error).rstrip('.')})")
    if not modes:
        return Scan("a scan for modes found no peak")
    words = f"a scan found {len(modes)} mode{'s' * (len(modes) > 1)}"
    labels = exchanges(problem) if len(modes) > 1 else ()
    return Scan(words, tuple(modes), exchanges=labels)


def _num_starts(problem: Problem) -> int:
    return int(min(MOST, max(FEWEST, WORK / max(1, problem.mapper.cost_per_draw))))


def unvisited(
    problem: Problem, modes: Sequence[Mode], values: Mapping[str, Tensor], widening: Widening
) -> list[Mode]:
    """The modes worth a visit that draws do not visit.

    Visited is a mode with a fiftieth of the draws that its share calls for, within the distance that
    holds 99 % of a Gaussian there.
    """
    points = UnconstrainedSpace(problem).from_values(values).detach().cpu().double()
    least, reach = LEAST_VISITS * len(points), _reach(points.shape[1])
    return [
        mode
        for mode in modes
        if (
            mode.share > NEGLIGIBLE
            or any(float(added.max()) > WIDENS for added in widening.of(mode).values())
        )
        and int((mode.squared_distance(points) < reach).sum()) <= least * mode.share
    ]


def _reach(size: int) -> float:
    """The 99 % quantile of χ² with ``size`` degrees of freedom (Wilson and Hilferty)."""
    part = 2 / (9 * size)
    return size * (1 - part + 2.326 * math.sqrt(part)) ** 3
