"""Deterministic variational inference: the bound on fixed draws, minimised to the last digit.

A mean field u = m + σ∘z in unconstrained space, η = (m, log σ), and fixed z₁ … z_M:

    L(η) = -1/M Σ_k log p(x, θ(m + σ∘z_k)) |∂θ/∂u| - Σ log σ

is an ordinary function. A second-order method finds its minimum η̂, and its Hessian H gives more
(Giordano, Ingram & Broderick 2024, "Black box variational inference with a deterministic
objective: faster, more accurate, and even more black box", JMLR 25):

- linear-response covariances J H⁻¹ Jᵀ, J = ∂m/∂η: how far the means move when the density is
  tilted. They see correlations that the mean field itself does not;
- the Monte Carlo error of η̂, that of another choice of draws: H⁻¹ Ŝ H⁻¹ / M, with Ŝ the sample
  covariance of the draws' gradients.

Draws come in pairs z, -z, which are the independent units of Ŝ. Odd moments then vanish exactly,
so that a Gaussian posterior has its exact mean and linear-response covariance at any M.
"""

import math
import time
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from vitools.engines.edges import refuse_beyond_edges
from vitools.engines.held_params import held_params
from vitools.engines.progress import Listener, Progress, ProgressCallback, listener
from vitools.engines.smooth import dense_hessian, smooth_space
from vitools.errors import NumericalError, OptionError
from vitools.posterior.gaussian import GaussianPosterior
from vitools.posterior.results import History, Status
from vitools.problem import Problem
from vitools.whole_numbers import check_seed, check_whole

COVARIANCES = ("mean_field", "linear_response")
FIRST_SCALE = 0.1
STEPS = 100  # gradients, and products with the Hessian, on the way to the optimum
ERROR_LIMIT = 0.5  # Monte Carlo sd of a mean, in posterior sds, above which M doubles


def dadvi(
    problem: Problem,
    *,
    num_samples: int = 30,
    covariance: str = "mean_field",
    max_samples: int = 960,
    max_steps: int = 500,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> GaussianPosterior:
    """Fit a mean-field Gaussian in unconstrained space on fixed draws, discrete latents summed out.

    The number of draws M doubles until the Monte Carlo error of every mean is below half the
    posterior's standard deviation; the error itself is the result's ``location_error``. A
    mean-field spread has a relative error of about 1/√M besides; linear response has not.

    Args:
        num_samples: M to begin with, even.
        covariance: of the result: ``"mean_field"``, independent coordinates whose spread is too
            small where the posterior is correlated, or ``"linear_response"``, a full Gaussian.
        max_samples: M is not doubled beyond this; status STOPPED_AT_LIMIT if it would have to be.
        max_steps: of the trust-region Newton method, for each M.

    Example:
        >>> import torch
        >>> from vitools.engines.dadvi import dadvi
        >>> from vitools import Problem
        >>> from vitools.models import coin
        >>> fit = dadvi(Problem(coin.model, torch.tensor([1.0, 1.0, 0.0])))
        >>> fit.status.label
        'converged'
    """
    progress = listener(progress)
    _check(num_samples, covariance, max_samples, max_steps)
    check_seed(seed)
    began = time.perf_counter()
    run = _Run(problem, num_samples, seed, progress, began)
    status, words = run.fit(max_samples, max_steps)
    if not run.rows and status is Status.INTERRUPTED:
        raise KeyboardInterrupt  # not one step was done: there is no fit to keep
    location, log_scale = run.eta.chunk(2)
    scale_tril = torch.diag(log_scale.exp())
    if covariance == "linear_response":
        if run.response is None:
            raise KeyboardInterrupt  # before there was an optimum to respond
        scale_tril = torch.linalg.cholesky(run.response)
    fit = GaussianPosterior(
        problem,
        location=location,
        scale_tril=scale_tril,
        location_error=run.error,
        engine="dadvi",
        status=status,
        detail="; ".join([words, *held_params(problem, "dadvi")]),
        history=History.of_rows(run.rows),
        seconds=time.perf_counter() - began,
        seed=seed,
    )
    refuse_beyond_edges(fit, "dadvi")
    return fit


def _check(num_samples: int, covariance: str, max_samples: int, max_steps: int) -> None:
    if covariance not in COVARIANCES:
        raise OptionError(f"covariance: expected one of {COVARIANCES}, got {covariance!r}.")
    check_whole("num_samples", num_samples, 4)
    check_whole("max_samples", max_samples, num_samples)
    check_whole("max_steps", max_steps, 1)
    if num_samples % 2:
        raise OptionError(
            f"num_samples: expected an even number, for pairs of draws, got {num_samples}."
        )


class _Run:
    """η, the fixed draws, L and its derivatives."""

    def __init__(
        self,
        problem: Problem,
        num_samples: int,
        seed: int,
        progress: Listener | None,
        began: float,
    ) -> None:
        self.space = space = smooth_space(problem, "dadvi")
        self.progress, self.began = progress, began
        self.rows: list[tuple[float, float]] = []  # the bound and the seconds after each step
        self.generator = torch.Generator().manual_seed(seed)
        start = space.initial_point(seed)
        self.density = space.density(start, num_samples * (STEPS + 2 * space.size))
        self.eta = torch.cat([start, torch.full_like(start, math.log(FIRST_SCALE))])
        self.response: Tensor | None = None
        self.error = torch.full_like(start, math.inf)
        self.noise = self._pairs(num_samples // 2)

    def _pairs(self, count: int) -> Tensor:
        """``count`` draws and their negatives, side by side: ``[2 count, P]``."""
        size = (count, self.space.size)
        noise = torch.randn(size, generator=self.generator, dtype=self.space.dtype)
        return torch.stack([noise, -noise], 1).flatten(0, 1).to(self.space.device)

    # ---- L and its derivatives -----------------------------------------------------------------

    def _gradients(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        """Each draw's part of L and its gradient: ``[M]`` and ``[M, 2P]``."""
        location, log_scale = eta.chunk(2)
        spread = log_scale.exp() * self.noise
        values, slopes = self.density.gradients(location + spread)
        return -values - log_scale.sum(), torch.cat([-slopes, -slopes * spread - 1.0], -1)

    def _value(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        values, slopes = self._gradients(self._tensor(vector))
        value = float(values.double().mean())
        # the trust region shrinks away from infinity, but not from NaN
        return value if math.isfinite(value) else math.inf, slopes.double().mean(0).cpu().numpy()

    def _times_hessian(self, vector: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """With u = m + s z and a direction (a, b): s moves by s b, u by d = a + s z b,

        and the gradient (g, g s z - 1) by (H d, H d s z + g s z b).
        """
        location, log_scale = self._tensor(vector).chunk(2)
        along, widening = self._tensor(direction).chunk(2)
        spread = log_scale.exp() * self.noise
        slopes, products = self.density.products(location + spread, along + spread * widening)
        both = torch.cat([products, (products + slopes * widening) * spread], -1)
        return -both.double().mean(0).cpu().numpy()

    def _tensor(self, vector: np.ndarray) -> Tensor:
        return torch.as_tensor(vector).to(self.eta)

    # ---- minimum, response, error --------------------------------------------------------------

    def fit(self, max_samples: int, max_steps: int) -> tuple[Status, str]:
        """Minimise and double until the error is small; what came of it in words."""
        while True:
            try:
                reached = self._minimise(max_steps)
            except KeyboardInterrupt:
                return Status.INTERRUPTED, f"{len(self.rows)} steps, not at the optimum"
            worst = self._respond()
            draws = len(self.noise)
            if worst < ERROR_LIMIT or 2 * draws > max_samples:
                break
            self.noise = torch.cat([self.noise, self._pairs(draws // 2)])
        good = reached and worst < ERROR_LIMIT
        words = f"{draws} draws, Monte Carlo error of the means at most {worst:.2g} posterior sd"
        return Status.CONVERGED if good else Status.STOPPED_AT_LIMIT, (
            words if reached else f"{words}, Newton's method not at its end"
        )

    def _minimise(self, max_steps: int) -> bool:
        def follow(intermediate_result: Any) -> None:
            self.eta = self._tensor(intermediate_result.x)
            value, seconds = -float(intermediate_result.fun), time.perf_counter() - self.began
            self.rows.append((value, seconds))
            if self.progress:
                self.progress(Progress("dadvi", len(self.rows), max_steps, value, seconds))

        result = minimize(
            self._value,
            self.eta.double().cpu().numpy(),
            jac=True,
            hessp=self._times_hessian,
            method="trust-ncg",
            callback=follow,
            options={"maxiter": max_steps, "gtol": torch.finfo(self.eta.dtype).eps ** (1 / 3)},
        )
        self.eta = self._tensor(result.x)
        return len(self.rows) > 0 and result.nit < max_steps

    def _respond(self) -> float:
        """Linear response and Monte Carlo error at η̂; the worst error in posterior sds."""
        vector, size = self.eta.double().cpu().numpy(), self.space.size
        root, failed = torch.linalg.cholesky_ex(dense_hessian(self._times_hessian, vector))
        if int(failed):
            raise NumericalError(
                f"model '{self.space.problem.name}': dadvi's objective has no minimum where Newton's "
                "method ended (its Hessian is not positive definite). Raise num_samples, which must "
                "exceed twice the number of dimensions where the data do not pin them down; or use "
                "another engine."
            )
        inverse = torch.cholesky_inverse(root)
        pairs = self._gradients(self.eta)[1].double().cpu().unflatten(0, (-1, 2)).mean(1)
        sandwich = inverse @ torch.cov(pairs.mT) @ inverse / len(pairs)
        sd = inverse.diagonal()[:size].sqrt()
        error = sandwich.diagonal()[:size].clamp(min=0).sqrt()
        self.response = inverse[:size, :size].to(self.eta)
        self.error = error.to(self.eta)
        return float((error / sd).max())
