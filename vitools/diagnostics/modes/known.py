"""Which modes of a posterior a fit knows.

A fit need not have draws at a mode to know of it. Draws that climb to it, or lead to it without a
barrier, are in its basin, whatever Laplace's approximation says of its width (the mode of a funnel is
far from all of its mass): what the fit lacks there, its weights can see. A density tells by its height,
too. And where the model has invariants, draws that climb to a mode know all its copies, for no label
matters.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from vitools.diagnostics.modes.climb import climb
from vitools.diagnostics.modes.labels import Copies
from vitools.diagnostics.modes.scan import Mode
from vitools.posterior import DrawsPosterior, Posterior
from vitools.problem import Problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

TOO_LOW = 3.0
"""Nats by which q may fall short of the posterior at a mode that it knows, or by which the density
may dip on the way from a draw to it."""

NEAREST, PLACES = 20, 21
"""The draws whose way to a mode is walked, and the points looked at on each."""

USUAL = 101
"""The draws whose heights are usual."""

CLIMBERS, CLIMB_STEPS = 16, 60
"""Draws that climb to the modes of their own."""


def is_known(
    posterior: Posterior,
    values: Mapping[str, Tensor],
    copies: Copies | None = None,
    num_points: int = 0,
) -> Callable[[Mode], bool]:
    """Whether a fit with draws ``{site: [n, *shape]}`` knows a mode that they do not visit.

    Args:
        copies: how modes may differ by labels.
        num_points: at which the scan for modes has the density, of which this is a part.
    """
    problem = posterior.problem
    draws = UnconstrainedSpace(problem).from_values(values).detach()
    ends = _ends(problem, draws, num_points)
    rules = [_has_a_way(problem, draws, ends)]
    if not isinstance(posterior, DrawsPosterior):
        rules.insert(0, _is_high(posterior, values))
    if copies is not None:
        rules.append(lambda mode: copies.has_one(mode, ends))
    return lambda mode: any(rule(mode) for rule in rules)


def _is_high(posterior: Posterior, values: Mapping[str, Tensor]) -> Callable[[Mode], bool]:
    """Whether log p(x, θ) - log q(θ) at the mode is near log E_q[p(x, θ) / q(θ)], or below.

    Near the vertices of a simplex, say, a mode of the unconstrained density holds few draws of the
    very posterior.
    """
    problem = posterior.problem
    with torch.no_grad():
        level = (problem.log_joint(values) - posterior.log_prob(values)).double().logsumexp(0)
        level = level - math.log(len(next(iter(values.values()))))

    def told(mode: Mode) -> bool:
        at = {name: value.unsqueeze(0) for name, value in mode.values.items()}
        with torch.no_grad():
            excess = problem.log_joint(at) - posterior.log_prob(at) - level
        return bool(excess <= TOO_LOW)  # NaN is no knowledge

    return told


def _has_a_way(problem: Problem, draws: Tensor, ends: Tensor) -> Callable[[Mode], bool]:
    """Whether one of some draws climbs to the mode, or has a straight way there without a barrier.

    A barrier is a dip below the heights that are usual on either side: the median of the draws', and
    the mode's less P/2, a Gaussian's mean. (The nearest draws lie on the slope of a barrier already.)
    """
    space = UnconstrainedSpace(problem)
    with torch.no_grad():
        usual = float(space.log_density(_some(draws, USUAL)).median())

    def told(mode: Mode) -> bool:
        if bool((mode.squared_distance(ends.cpu()) < 1.0).any()):
            return True
        near = mode.squared_distance(draws.cpu()).argsort()[:NEAREST]
        share = torch.linspace(0.0, 1.0, PLACES, dtype=draws.dtype, device=draws.device)
        point, starts = mode.point.to(draws), draws[near.to(draws.device)]
        with torch.no_grad():
            heights = space.log_density(starts + share[:, None, None] * (point - starts))
        level = min(usual, float(heights[-1, 0]) - space.size / 2)
        return bool((heights.amin(0) >= level - TOO_LOW).any())

    return told


def _ends(problem: Problem, draws: Tensor, num_points: int) -> Tensor:
    """Where some of the draws ``[n, P]`` end that climb the density in their own widths."""
    starts = _some(draws, CLIMBERS)
    width = draws.std(0)
    width = torch.where(width > 0, width, 1.0)
    density = UnconstrainedSpace(problem).density(starts[0], num_points + CLIMBERS * CLIMB_STEPS)

    def in_widths(points: Tensor) -> tuple[Tensor, Tensor]:
        heights, slopes = density.defined_gradients(points * width)
        return heights, slopes * width

    tol = 10 * torch.finfo(draws.dtype).eps ** 0.5
    ends, heights, _ = climb(in_widths, starts / width, CLIMB_STEPS, tol, longest=1.0)
    return (ends * width)[torch.isfinite(heights)]


def _some(draws: Tensor, count: int) -> Tensor:
    """So many of ``[n, P]``, of all chains alike."""
    return draws[torch.linspace(0, len(draws) - 1, count).round().long()]
