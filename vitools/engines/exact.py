"""The exact posterior of a small problem: sums over discrete latents, quadrature over the rest.

The trapezoid rule on a whitened, unconstrained grid converges exponentially fast for
smooth densities that decay (Trefethen & Weideman 2014), so halving the spacing tells the
error of the coarser grid.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from scipy.optimize import minimize
from torch import Tensor

from vitools.engines.held_params import held_params
from vitools.engines.progress import Progress, ProgressCallback, listener
from vitools.errors import NotSupportedError, NumericalError
from vitools.posterior import Estimate, GridPosterior, Status
from vitools.problem import Problem, check_problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace
from vitools.whole_numbers import check_seed, check_whole

MAX_DIMENSIONS = 4
WORST_ERROR = 1e-3  # of log p(x), in nats, still called exact with that error stated
NEGLIGIBLE = 36.0  # nats below the peak: e^-36 is float64's rounding


def exact(
    problem: Problem,
    *,
    tol: float = 1e-8,
    max_evaluations: int = 300_000,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> GridPosterior:
    """log p(x) and the posterior, by enumeration and quadrature.

    Args:
        tol: target error of log p(x); 1e-3 where the posterior jumps to 0 at an edge, as for data
            from Uniform(0, θ), because the error there only halves with the spacing.
        max_evaluations: refuse problems that would need more density evaluations.

    Raises:
        NotSupportedError: the problem is too large; says how large.

    Example:
        >>> from vitools import Problem, exact
        >>> from vitools.models import coin
        >>> flips = coin.simulate(20)
        >>> error = exact(Problem(coin.model, flips)).log_evidence.value - (
        ...     coin.exact_log_evidence(flips))
        >>> abs(error) < 1e-8
        True
    """
    start = time.perf_counter()
    progress = listener(progress)
    check_seed(seed)
    check_whole("max_evaluations", max_evaluations, 1)
    check_problem(problem, "exact()")
    problem.refuse_unlisted("exact()")
    space = UnconstrainedSpace(problem)
    if space.size > MAX_DIMENSIONS or 33**space.size > max_evaluations:
        raise NotSupportedError(
            f"model '{problem.name}' has {space.size} continuous dimensions; quadrature with 33 "
            f"points each would need about {33.0**space.size:.1g} density evaluations (the limits "
            f"are {MAX_DIMENSIONS} dimensions and {max_evaluations} evaluations). Use nuts() as the "
            "reference."
        )
    held = held_params(problem, "exact")

    def told(nodes: int, log_evidence: float) -> None:
        if progress:
            seconds = time.perf_counter() - start
            progress(Progress("exact", nodes, max_evaluations, log_evidence, seconds))

    grid = _quadrature(space, tol, max_evaluations, seed, told)
    return GridPosterior(
        problem,
        **grid,
        engine="exact",
        status=Status.EXACT,
        detail="; ".join([f"{len(grid['log_masses'])} nodes", *held]),
        seconds=time.perf_counter() - start,
        seed=seed,
    )


def _quadrature(
    space: UnconstrainedSpace,
    tol: float,
    max_evaluations: int,
    seed: int,
    told: Callable[[int, float], None],
) -> dict[str, Any]:
    if space.size == 0:
        log_evidence = float(space.problem.log_joint({}).detach())
        told(1, log_evidence)
        empty = torch.zeros((1, 0), dtype=space.dtype)
        return {
            "nodes": empty,
            "log_masses": torch.zeros(1, dtype=space.dtype),
            "cell": torch.zeros((0, 0), dtype=space.dtype),
            "log_evidence": Estimate(log_evidence),
        }
    centre, scale, ends = _mode(space, seed)
    whitened = torch.linalg.solve_triangular(scale, (ends - centre).mT, upper=False).mT
    low = torch.minimum(whitened.min(0).values, whitened.new_tensor(0.0)) - 7.0
    high = torch.maximum(whitened.max(0).values, whitened.new_tensor(0.0)) + 7.0
    log_density, low, high = _widen(space, centre, scale, low, high, max_evaluations)
    low, high = _narrow(log_density, whitened, low, high)
    points, previous = 17, math.nan
    while True:
        nodes, step = _grid(low, high, points)
        values = log_density(nodes)
        log_cell = float(step.log().sum()) + float(scale.diagonal().log().sum())
        log_evidence = float(values.logsumexp(0)) + log_cell
        told(len(nodes), log_evidence)
        at_edges = _error_at_edges(values, points, space.size)
        error = max(abs(log_evidence - previous), at_edges)
        done = error < (tol if at_edges < tol else max(tol, WORST_ERROR))
        if done or (2 * points - 1) ** space.size > max_evaluations:
            break
        previous, points = log_evidence, 2 * points - 1
    if bool(values.isnan().any()):
        bad = space.to_values(centre + nodes[values.isnan()][0] @ scale.mT)
        words = ", ".join(f"{name} = {value.tolist()}" for name, value in bad.items())
        raise NumericalError(
            f"model '{space.problem.name}': its log density is NaN at {words}, and at "
            f"{int(values.isnan().sum())} of {len(values)} nodes in all. Rewrite the model so that "
            "it is finite or -inf there."
        )
    if not done and not error < WORST_ERROR:
        raise NotSupportedError(
            f"model '{space.problem.name}': {points} points per dimension give log p(x) only to "
            f"{error:.2g}; the next grid would need {(2 * points - 1) ** space.size} density "
            f"evaluations, over the limit of {max_evaluations}. Raise max_evaluations or use nuts()."
        )
    keep = values > values.max() - NEGLIGIBLE
    return {
        "nodes": centre + nodes[keep] @ scale.mT,
        "log_masses": values[keep] - values[keep].logsumexp(0),
        "cell": scale * step,
        "log_evidence": Estimate(log_evidence, error if error > 1e-12 * abs(log_evidence) else 0.0),
    }


def _mode(space: UnconstrainedSpace, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best mode found from several starts, its Laplace scale, and where all starts ended.

    At an edge of the data's support the best point has a slope and any curvature; its scale is that
    of a curvature of the same size.
    """
    ends, heights = [], []
    for i in range(6):
        end, height = _climb(space, space.initial_point(seed + i).double())
        if math.isfinite(height):
            ends.append(end)
            heights.append(height)
    if not ends:
        raise NumericalError(
            f"model '{space.problem.name}': no mode of finite density found from 6 starts."
        )
    centre = ends[max(range(len(ends)), key=heights.__getitem__)]
    hessian = torch.autograd.functional.hessian(space.log_density_at, centre)
    eigenvalues, vectors = torch.linalg.eigh((hessian + hessian.mT) / 2)
    covariance = vectors @ torch.diag(1 / eigenvalues.abs().clamp(min=1e-4)) @ vectors.mT
    return centre, torch.linalg.cholesky(covariance), torch.stack(ends)


class _LeftTheFiniteError(Exception):
    """The density is 0 or NaN where L-BFGS stepped."""


def _climb(space: UnconstrainedSpace, start: Tensor) -> tuple[Tensor, float]:
    """The best point on the way up, and its log density.

    L-BFGS leaves the finite densities where it steps over an edge; the simplex of Nelder and Mead,
    which needs no slope, then goes on from the best point.
    """
    best, highest = start, -math.inf
    point = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([point], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Any:
        nonlocal best, highest
        optimiser.zero_grad()
        loss = -space.log_density_at(point)
        height = -float(loss.detach())
        if not math.isfinite(height):
            raise _LeftTheFiniteError
        if height > highest:
            best, highest = point.detach().clone(), height
        loss.backward()
        return loss

    try:
        optimiser.step(closure)
        end = point.detach()
        return end, float(space.log_density_at(end).detach())
    except _LeftTheFiniteError:
        pass

    def depth(vector: Any) -> float:
        with torch.no_grad():
            height = float(space.log_density_at(torch.as_tensor(vector)))
        return -height if math.isfinite(height) else math.inf

    found = minimize(
        depth, best.numpy(), method="Nelder-Mead", options={"maxfev": 200 * space.size}
    )
    return torch.as_tensor(found.x), -float(found.fun)


def _widen(
    space: UnconstrainedSpace,
    centre: Tensor,
    scale: Tensor,
    low: Tensor,
    high: Tensor,
    max_evaluations: int,
) -> tuple[Any, Tensor, Tensor]:
    """Stretch the box until the density on every face is negligible beside the peak."""

    def log_density(nodes: Tensor) -> Tensor:
        with torch.no_grad():
            return space.log_density(centre + nodes @ scale.mT).double()

    for _ in range(40):
        nodes, _ = _grid(low, high, 9)
        values = log_density(nodes).nan_to_num(nan=-math.inf).reshape((9,) * space.size)
        peak = values.max()
        stretched = False
        for d in range(space.size):
            width = high[d] - low[d]
            if values.select(d, 0).max() > peak - NEGLIGIBLE:
                low, stretched = low.index_add(0, torch.tensor([d]), -0.3 * width[None]), True
            if values.select(d, 8).max() > peak - NEGLIGIBLE:
                high, stretched = high.index_add(0, torch.tensor([d]), 0.3 * width[None]), True
        if not stretched:
            return log_density, low, high
    raise NotSupportedError(
        f"model '{space.problem.name}': its tails are too heavy for quadrature (the density is not "
        "negligible at the edge of any reasonable box). Use nuts()."
    )


def _narrow(
    log_density: Callable[[Tensor], Tensor], kept: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Shrink the box to where the density counts, if that is much smaller, as at an edge.

    Args:
        kept: ``[n, P]``, points that stay inside.
    """
    for _ in range(40):
        nodes, step = _grid(low, high, 17)
        values = log_density(nodes).nan_to_num(nan=-math.inf)
        counts = torch.cat([nodes[values > values.max() - NEGLIGIBLE], kept])
        lower = torch.maximum(low, counts.min(0).values - step)
        upper = torch.minimum(high, counts.max(0).values + step)
        is_smaller = upper - lower < 0.5 * (high - low)
        if not bool(is_smaller.any()):
            break
        low, high = torch.where(is_smaller, lower, low), torch.where(is_smaller, upper, high)
    return low, high


def _error_at_edges(values: Tensor, points: int, dims: int) -> float:
    """By how much log ∫ p may be wrong because p jumps to 0: half of the cells at an edge or less.

    Two grids may agree there by chance, because where the edge lies within its cell is not seen.
    """
    grid = values.reshape((points,) * dims)
    is_out, at_edge = grid == -math.inf, torch.zeros_like(grid, dtype=torch.bool)
    for d in range(dims):
        first, last = is_out.narrow(d, 0, points - 1), is_out.narrow(d, 1, points - 1)
        at_edge.narrow(d, 0, points - 1).logical_or_(last)
        at_edge.narrow(d, 1, points - 1).logical_or_(first)
    share = grid[at_edge & ~is_out].logsumexp(0) - values.logsumexp(0)
    return 0.5 * float(share.exp())


def _grid(low: Tensor, high: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """All nodes ``[points^P, P]`` of a regular grid and its spacing ``[P]``."""
    axes = [
        torch.linspace(float(a), float(b), points, dtype=low.dtype)
        for a, b in zip(low, high, strict=True)
    ]
    mesh = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    return mesh, (high - low) / (points - 1)
