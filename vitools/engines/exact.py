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
        tol: target error of log p(x).
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
    points, previous = 17, math.nan
    while True:
        nodes, step = _grid(low, high, points)
        values = log_density(nodes)
        log_cell = float(step.log().sum()) + float(scale.diagonal().log().sum())
        log_evidence = float(values.logsumexp(0)) + log_cell
        told(len(nodes), log_evidence)
        error = abs(log_evidence - previous)
        done = error < tol
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
    """The best mode found from several starts, its Laplace scale, and where all starts ended."""

    def negative(vector: Tensor) -> Tensor:
        return -space.log_density_at(vector)

    ends, heights = [], []
    for i in range(6):
        point = space.initial_point(seed + i).double().requires_grad_()
        optimiser = torch.optim.LBFGS([point], max_iter=200, line_search_fn="strong_wolfe")

        def closure(point: Tensor = point, optimiser: Any = optimiser) -> Any:
            optimiser.zero_grad()
            loss = negative(point)
            loss.backward()
            return loss

        optimiser.step(closure)
        end = point.detach()
        height = negative(end).detach()  # parameters of the model take part in gradients
        if bool(torch.isfinite(height)):
            ends.append(end)
            heights.append(float(height))
    if not ends:
        raise NumericalError(
            f"model '{space.problem.name}': no mode of finite density found from 6 starts."
        )
    centre = ends[min(range(len(ends)), key=heights.__getitem__)]
    hessian = torch.autograd.functional.hessian(negative, centre)
    eigenvalues, vectors = torch.linalg.eigh((hessian + hessian.mT) / 2)
    covariance = vectors @ torch.diag(1 / eigenvalues.clamp(min=1e-4)) @ vectors.mT
    return centre, torch.linalg.cholesky(covariance), torch.stack(ends)


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


def _grid(low: Tensor, high: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """All nodes ``[points^P, P]`` of a regular grid and its spacing ``[P]``."""
    axes = [
        torch.linspace(float(a), float(b), points, dtype=low.dtype)
        for a, b in zip(low, high, strict=True)
    ]
    mesh = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    return mesh, (high - low) / (points - 1)
