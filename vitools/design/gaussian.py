"""Closed forms: what a measurement tells where beliefs are normal and outcomes linear, and Laplace's use of them.

    field          ½ log(1 + C_xx / σ²)                   at a point x of a field with covariance C
    linear model   ½ log det(1 + X C Xᵀ / σ²)              outcomes X w + noise
    network        ½ log(1 + gᵀ C g / σ²),  g = ∂f/∂w      (MacKay, "Information-based objective functions
                                                           for active data selection", 1992)
    any            ½ log det(1 + C F),  F Fisher's         of the outcome at the belief's mean

The first two do not depend on results that came before, for C does not; the others do, by where g or F are
taken.
"""

import math

import torch
from torch import Tensor

from vitools.design.experiment import Candidate
from vitools.errors import DataError, OptionError
from vitools.information.derivatives import jacobian
from vitools.information.fisher import fisher_information
from vitools.posterior import Estimate, GaussianPosterior

PROBES = 4000


def gaussian_gains(covariance: Tensor, slopes: Tensor, noise: float | Tensor) -> Tensor:
    """½ log(1 + gᵀ C g / σ²) of each candidate, ``[C]``.

    Args:
        covariance: C, ``[P, P]``, of weights or of a field at its points.
        slopes: g, ``[C, P]``: rows of a design matrix, gradients of a network, unit vectors for
            points of a field.
        noise: σ, a number or ``[C]``.

    Example:
        >>> covariance = torch.tensor([[1.0, 0.5], [0.5, 3.0]])
        >>> gaussian_gains(covariance, torch.eye(2), 1.0)  # ½ log 2, ½ log 4
        tensor([0.3466, 0.6931])
    """
    size = covariance.shape[-1] if isinstance(covariance, Tensor) and covariance.dim() else 0
    if not isinstance(covariance, Tensor) or covariance.shape != (size, size) or not size:
        raise OptionError("covariance: expected a square matrix [P, P].")
    if not isinstance(slopes, Tensor) or slopes.dim() != 2 or slopes.shape[1] != size:
        got = list(slopes.shape) if isinstance(slopes, Tensor) else type(slopes).__name__
        raise OptionError(f"slopes: expected a tensor of shape [C, {size}], got {got}.")
    spread = torch.as_tensor(noise, dtype=covariance.dtype)
    if not bool((spread > 0).all()) or spread.dim() > 1:
        raise OptionError(f"noise: expected a standard deviation above 0, got {noise!r}.")
    variance = ((slopes @ covariance) * slopes).sum(-1)
    if not bool((variance >= 0).all()):
        raise DataError("covariance: expected a positive definite matrix, got one that is not.")
    return 0.5 * torch.log1p(variance / spread**2)


def measured(covariance: Tensor, slope: Tensor, noise: float) -> Tensor:
    """C after a measurement along ``slope`` ``[P]``: (C⁻¹ + g gᵀ / σ²)⁻¹, whatever its outcome."""
    along = covariance @ slope
    return covariance - torch.outer(along, along) / (noise**2 + slope @ along)


def by_laplace(candidate: Candidate, num_samples: int, seed: int) -> Estimate:
    """½ log det C_tt / det (C⁻¹ + F)⁻¹_tt in unconstrained coordinates, of targets t.

    Exact for linear models with normal noise; elsewhere an approximation that bounds neither side, whose
    error is not known: what is stated is that of F and C alone.
    """
    space = candidate.space
    mean, covariance, uncertain = _normal_belief(candidate, seed)
    values = space.to_values(mean.to(space.dtype))
    found = fisher_information(
        candidate.problem, values, num_samples=max(num_samples, 100), seed=seed
    )

    def to_theta(vector: Tensor) -> Tensor:
        parts = space.to_values(vector)
        return torch.cat([parts[name].reshape(-1).double() for name in candidate.problem.drawn])

    slope = jacobian(to_theta, mean)
    own = [
        i
        for name, part in space.slices.items()
        if name in candidate.targets
        for i in range(part.start, part.stop)
    ]

    def gain(matrix: Tensor) -> Tensor:
        information = slope.mT @ matrix @ slope
        unit = torch.eye(space.size, dtype=torch.float64)
        # (C⁻¹ + F)⁻¹ = C (1 + F C)⁻¹
        after = covariance @ torch.linalg.inv(unit + information @ covariance)
        before = torch.linalg.slogdet(covariance[own][:, own]).logabsdet
        return 0.5 * (before - torch.linalg.slogdet(after[own][:, own]).logabsdet)

    value, error = found.function(gain)
    own_error = 0.0 if found.is_exact else float(error)
    return Estimate(float(value), math.hypot(own_error, uncertain))


def _normal_belief(candidate: Candidate, seed: int) -> tuple[Tensor, Tensor, float]:
    """Mean and covariance of the belief, and the error of the gain that draws bring with them.

    Of a Gaussian fit its own; of priors the curvature where they are on average, which is all there is
    of a normal prior; of others those of draws.
    """
    space, fit = candidate.space, candidate.fit
    if isinstance(fit, GaussianPosterior) and set(candidate.names) == set(fit.problem.drawn):
        root = fit.scale_tril.double()
        return fit.location.double(), root @ root.mT, 0.0
    drawn = space.from_values(candidate.draws(PROBES, 16 * seed)).double()
    mean = drawn.mean(0)
    if fit is None:
        precision = -torch.autograd.functional.hessian(candidate.log_prior_at, mean)
        root, failed = torch.linalg.cholesky_ex(precision)
        if not int(failed) and bool(root.isfinite().all()):
            return mean, torch.cholesky_inverse(root), 0.0
    covariance = drawn.mT.cov().reshape(space.size, space.size)
    return mean, covariance, 0.5 * math.sqrt(2 * len(mean) / PROBES)
