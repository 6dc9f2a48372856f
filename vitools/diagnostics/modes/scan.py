"""A scan for modes: many dispersed starts, climbed together, told apart, and weighed.

Weights see a fit's own draws only. This looks elsewhere: starts are draws of the prior, as they are
and at three and ten times their distance from the middle, and their mirror images; all climb log f(u)
= log p(x, T(u)) + log |∂T/∂u| in one batch; ends that have arrived, with a barrier between them, are modes
(:mod:`~vitools.diagnostics.modes.peaks`); and each is weighed by Laplace's approximation,

    w ∝ f(û) |H|^{-1/2},   H = -∇² log f(û),

shared among those found. A share is an estimate (modes need not be Gaussian); a mode is a fact.
Densities that climb for ever, as where a scale shrinks to 0, have no modes to find there.

References:
    Tierney, Kadane, *Accurate approximations for posterior moments and marginal densities*, Journal of
    the American Statistical Association 81, 1986.
    Nocedal, Wright, *Numerical Optimization*, 2006.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.diagnostics.modes.climb import climb
from vitools.diagnostics.modes.peaks import Peak, told_apart
from vitools.errors import NotSupportedError
from vitools.problem import Problem, check_problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace
from vitools.whole_numbers import check_seed, check_whole

MAX_DIMENSIONS = 1000
TEMPERATURES = (1.0, 3.0, 10.0)
MAX_STEPS = 100
FIRST_STEPS = (10.0, 1.0)  # by turns: a long one leaps over a narrow mode, a short one is slow
FARTHEST = 1e4  # of u: beyond it a density is climbing for ever


@dataclass(frozen=True)
class Mode:
    """A local maximum of the density of the unconstrained latents.

    Attributes:
        values: where it is, ``{site: [*shape]}``.
        log_mass: log of the integral around it by Laplace's approximation.
        share: of the masses of all modes found.
        starts: how many starts ended there.
        point, precision: u ``[P]`` and H ``[P, P]``, float64.
    """

    values: dict[str, Tensor]
    log_mass: float
    share: float
    starts: int
    point: Tensor
    precision: Tensor

    def squared_distance(self, points: Tensor) -> Tensor:
        """Of ``[n, P]`` from the mode in its own widths, ``[n]``.

        Args:
            points: in the coordinates of :attr:`point`.
        """
        away = points.double() - self.point
        return ((away @ self.precision) * away).sum(-1)


def find_modes(problem: Problem, *, num_starts: int = 16, seed: int = 0) -> list[Mode]:
    """The modes that dispersed starts lead to, of largest mass first; empty where none is a peak.

    Args:
        num_starts: draws of the prior; each is tried at three distances and mirrored.

    Raises:
        NotSupportedError: no continuous latents, or more than a thousand unconstrained numbers.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> from vitools import Problem
        >>> def square(y):
        ...     t = pyro.sample("t", dist.Normal(torch.zeros_like(y), 2.0))
        ...     pyro.sample("y", dist.Normal(t**2, 1.0), obs=y)
        >>> found = find_modes(Problem(square, torch.tensor(4.0).double()))
        >>> [(round(abs(float(mode.values["t"])), 2), round(mode.share, 2)) for mode in found]
        [(1.97, 0.5), (1.97, 0.5)]
    """
    check_problem(problem, "find_modes()")
    check_whole("num_starts", num_starts, 1)
    check_seed(seed)
    problem.refuse_unlisted("find_modes()")
    if not problem.continuous:
        raise NotSupportedError(
            f"model '{problem.name}' has only discrete latents, and find_modes() climbs over "
            "continuous ones. Use exact(problem)."
        )
    space = UnconstrainedSpace(problem)
    if space.size > MAX_DIMENSIONS:
        raise NotSupportedError(
            f"model '{problem.name}' has {space.size} unconstrained numbers; find_modes() computes "
            f"dense Hessians and takes at most {MAX_DIMENSIONS}. Start fits from several seeds instead."
        )
    starts = _starts(space, num_starts, seed)
    density = space.density(space.initial_point(seed), most_points(num_starts))
    tol = 10 * torch.finfo(space.dtype).eps ** 0.5
    first = starts.new_tensor(FIRST_STEPS).repeat(len(starts))[: len(starts), None]
    ends, heights, slopes = climb(density.defined_gradients, starts, MAX_STEPS, tol, first)
    flat = 1e3 * tol * (1.0 + heights.abs())
    hopeful = torch.isfinite(heights) & (slopes < flat) & (ends.abs().amax(-1) < FARTHEST)
    order = heights[hopeful].argsort(descending=True)
    return _weighed(
        space, told_apart(space, density, ends[hopeful][order], heights[hopeful][order])
    )


def most_points(num_starts: int) -> int:
    """Points at which a scan may want the density."""
    return 2 * len(TEMPERATURES) * num_starts * MAX_STEPS


def _starts(space: UnconstrainedSpace, num_starts: int, seed: int) -> Tensor:
    """``[6 num_starts, P]``, those of finite density left to the climb to tell."""
    draws = space.from_values(space.problem.starting_draws(num_starts, seed)).detach()
    draws = draws[torch.isfinite(draws).all(-1)]
    middle = draws.median(0).values
    away = torch.cat([draws - middle, middle - draws])
    return torch.cat([middle + scale * away for scale in TEMPERATURES])


def _weighed(space: UnconstrainedSpace, found: list[Peak]) -> list[Mode]:
    if not found:
        return []
    log_masses = [
        peak.height
        + 0.5 * space.size * math.log(2 * math.pi)
        - 0.5 * float(torch.linalg.slogdet(peak.precision).logabsdet)
        for peak in found
    ]
    shares = torch.softmax(torch.tensor(log_masses, dtype=torch.float64), 0).tolist()
    modes = [
        Mode(
            space.to_values(peak.point),
            mass,
            share,
            peak.starts,
            peak.point.double().cpu(),
            peak.precision,
        )
        for peak, mass, share in zip(found, log_masses, shares, strict=True)
    ]
    return sorted(modes, key=lambda mode: -mode.share)
