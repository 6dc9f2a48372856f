"""Laplace's approximation: a Gaussian at the mode, as wide as the curvature there.

With u = T⁻¹(θ) on the whole real line and f(u) = log p(x, T(u)) + log |∂T/∂u|,

    û = argmax f,   H = -∇² f(û),   q(u) = N(û, H⁻¹),   log p(x) ≈ f(û) + P/2 log 2π - ½ log det H

(Laplace 1774; MacKay 2003, "Information theory, inference, and learning algorithms", ch. 27). Exact
where the posterior is Gaussian in u; elsewhere the quickest picture of it, and a start for others.
It knows one mode, and nothing of the tails: compare() says how far it can be trusted.
"""

import math
import time
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.distributions import constraints

from vitools.engines.edges import refuse_beyond_edges
from vitools.engines.held_params import held_params
from vitools.engines.progress import Listener, Progress, ProgressCallback, listener
from vitools.engines.smooth import dense_hessian, smooth_space
from vitools.errors import NumericalError
from vitools.posterior.gaussian import GaussianPosterior
from vitools.posterior.results import Status
from vitools.problem import Problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace
from vitools.supports import base_support
from vitools.whole_numbers import check_seed, check_whole

STEPS = 100  # gradients, and products with the Hessian, on the way to the mode
GAIN_LIMIT = 1e-3  # nats that Newton's next step would gain at the end
FARTHEST = 40.0  # of the logarithm or logit of a bounded site, beyond which it is at its bound


def laplace(
    problem: Problem,
    *,
    max_steps: int = 500,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> GaussianPosterior:
    """Fit a Gaussian in unconstrained space by mode and curvature, discrete latents summed out.

    The mode is sought by a trust-region Newton method from a draw of the prior; ``detail`` gives
    Laplace's estimate of the log evidence.

    Args:
        max_steps: of Newton's method.

    Raises:
        NumericalError: there is no peak where it ended: the density climbs without end, as where
            a scale can shrink to 0, or is flat along some direction.

    Example:
        >>> import torch
        >>> from vitools.engines.laplace import laplace
        >>> from vitools import Problem
        >>> from vitools.models import coin
        >>> laplace(Problem(coin.model, torch.tensor([1.0, 1.0, 0.0]))).detail
        "3 Newton steps; log evidence -2.54 by Laplace's formula"
    """
    progress = listener(progress)
    check_whole("max_steps", max_steps, 1)
    check_seed(seed)
    began = time.perf_counter()
    surface = _Surface(smooth_space(problem, "laplace"), seed, progress, began)
    status = surface.climb(max_steps)
    if not surface.steps and status is Status.INTERRUPTED:
        raise KeyboardInterrupt  # not one step was done: there is no fit to keep
    mode, size = surface.point.double().cpu().numpy(), surface.space.size
    lowest, slope = surface.value_and_slope(mode)
    root, failed = torch.linalg.cholesky_ex(dense_hessian(surface.times_hessian, mode))
    if int(failed) or surface.is_at_a_bound:
        if status is Status.INTERRUPTED:
            raise KeyboardInterrupt  # before there was a peak
        raise surface.has_no_peak()
    gradient = torch.as_tensor(slope).unsqueeze(-1)
    to_gain = 0.5 * float((gradient * torch.cholesky_solve(gradient, root)).sum())
    if status is Status.CONVERGED and not to_gain < GAIN_LIMIT:
        status = Status.STOPPED_AT_LIMIT
    half_log_det = float(root.diagonal().log().sum())
    evidence = -lowest + 0.5 * size * math.log(2 * math.pi) - half_log_det
    words = f"{surface.steps} Newton steps; log evidence {evidence:.2f} by Laplace's formula"
    fit = GaussianPosterior(
        problem,
        location=surface.point,
        scale_tril=torch.linalg.cholesky(torch.cholesky_inverse(root)).to(surface.point),
        location_error=torch.zeros_like(surface.point),
        engine="laplace",
        status=status,
        detail="; ".join([words, *held_params(problem, "laplace")]),
        seconds=time.perf_counter() - began,
        seed=seed,
    )
    refuse_beyond_edges(fit, "laplace")
    return fit


class _Surface:
    """-f(u), its derivatives, and the best point so far."""

    def __init__(
        self,
        space: UnconstrainedSpace,
        seed: int,
        progress: Listener | None,
        began: float,
    ) -> None:
        self.space, self.progress, self.began = space, progress, began
        self.point, self.steps = space.initial_point(seed), 0
        self.density = space.density(self.point, STEPS + space.size)
        self.bounded = torch.zeros_like(self.point, dtype=torch.bool)
        for name, own in space.slices.items():
            support = base_support(space.problem.latents[name].support)
            self.bounded[own] = support is not constraints.real

    def _tensor(self, vector: np.ndarray) -> Tensor:
        return torch.as_tensor(vector).to(self.point)

    def value_and_slope(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        values, slopes = self.density.gradients(self._tensor(vector).unsqueeze(0))
        number = -float(values)
        # the trust region shrinks away from infinity, but not from NaN
        is_finite = math.isfinite(number) and bool(slopes.isfinite().all())
        return number if is_finite else math.inf, -slopes[0].double().cpu().numpy()

    def times_hessian(self, vector: np.ndarray, direction: np.ndarray) -> np.ndarray:
        at, along = (self._tensor(x).unsqueeze(0) for x in (vector, direction))
        product = self.density.products(at, along)[1][0]
        if not bool(product.isfinite().all()):
            raise self.has_no_peak()
        return -product.double().cpu().numpy()

    @property
    def is_at_a_bound(self) -> bool:
        return bool((self.point[self.bounded].abs() > FARTHEST).any())

    def climb(self, max_steps: int) -> Status:
        """To the mode, by Newton's method."""

        def follow(intermediate_result: Any) -> None:
            self.point, self.steps = self._tensor(intermediate_result.x), self.steps + 1
            if self.progress:
                height, seconds = -float(intermediate_result.fun), time.perf_counter() - self.began
                self.progress(Progress("laplace", self.steps, max_steps, height, seconds))
            if self.is_at_a_bound:
                raise StopIteration

        try:
            minimize(
                self.value_and_slope,
                self.point.double().cpu().numpy(),
                jac=True,
                hessp=self.times_hessian,
                method="trust-ncg",
                callback=follow,
                options={
                    "maxiter": max_steps,
                    "gtol": torch.finfo(self.point.dtype).eps ** (1 / 3),
                },
            )
        except KeyboardInterrupt:
            return Status.INTERRUPTED
        return Status.CONVERGED

    def has_no_peak(self) -> NumericalError:
        farthest = int((self.point.abs() * (1 + 1e6 * self.bounded)).argmax())
        slices = self.space.slices.items()
        (name,) = (site for site, own in slices if own.start <= farthest < own.stop)
        return NumericalError(
            f"model '{self.space.problem.name}': no peak after {self.steps} steps of Newton's "
            "method: the curvature is not positive in every direction, as where the density climbs "
            f"for ever while a scale shrinks to 0 (farthest out: '{name}'). Use svi(), whose "
            "Gaussian has a width from the beginning, or nuts(); or reparameterise."
        )
