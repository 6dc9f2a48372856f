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
from vitools.information.matrices import FisherInformation
from vitools.posterior import Estimate, GaussianPosterior

PROBES = 4000
ALIKE = 1e-7


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
    if slopes.dtype != covariance.dtype or not covariance.is_floating_point():
        raise OptionError(
            "covariance, slopes: expected one floating type for both, got "
            f"{covariance.dtype} and {slopes.dtype}."
        )
    spread = _spread(noise, covariance)
    if spread.shape not in ((), (len(slopes),)):
        raise OptionError(
            f"noise: expected a number or one for each of {len(slopes)} candidates, got shape "
            f"{list(spread.shape)}."
        )
    variance = ((slopes @ covariance) * slopes).sum(-1)
    if not bool((variance >= 0).all()):
        raise DataError("covariance: expected a positive definite matrix, got one that is not.")
    return 0.5 * torch.log1p(variance / spread**2)


def measured(covariance: Tensor, slope: Tensor, noise: float) -> Tensor:
    """C after a measurement along ``slope`` ``[P]``: (C⁻¹ + g gᵀ / σ²)⁻¹, whatever its outcome.

    Args:
        covariance: C, before the measurement, ``[P, P]``.
        slope: g, by which the outcome depends on the unknowns.
        noise: σ, the standard deviation of the outcome.
    """
    size = covariance.shape[-1] if isinstance(covariance, Tensor) and covariance.dim() else 0
    if not isinstance(covariance, Tensor) or covariance.shape != (size, size) or not size:
        raise OptionError("covariance: expected a square matrix [P, P].")
    if not isinstance(slope, Tensor) or slope.shape != (size,) or slope.dtype != covariance.dtype:
        got = (
            f"{slope.dtype} {list(slope.shape)}"
            if isinstance(slope, Tensor)
            else type(slope).__name__
        )
        raise OptionError(
            f"slope: expected a tensor of shape [{size}] and type {covariance.dtype}, got {got}."
        )
    spread = _spread(noise, covariance)
    if spread.dim():
        raise OptionError(f"noise: expected one number, got shape {list(spread.shape)}.")
    along = covariance @ slope
    return covariance - torch.outer(along, along) / (spread**2 + slope @ along)


def _spread(noise: object, like: Tensor) -> Tensor:
    try:
        spread = torch.as_tensor(noise, dtype=like.dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(
            f"noise: expected a standard deviation above 0, got {noise!r}."
        ) from error
    if not bool((spread > 0).all()):
        raise OptionError(f"noise: expected a standard deviation above 0, got {noise!r}.")
    return spread


def by_laplace(candidate: Candidate, num_samples: int, seed: int) -> Estimate:
    """½ log det C_tt / det (C⁻¹ + F)⁻¹_tt in unconstrained coordinates, of targets t.

    Exact where belief and noise are normal and F is the same everywhere, as for linear models; elsewhere it
    bounds neither side and its error is not known, which an infinite standard error says.
    """
    space = candidate.space
    mean, covariance, is_normal = _normal_belief(candidate, seed)
    own = [
        i
        for name, part in space.slices.items()
        if name in candidate.targets
        for i in range(part.start, part.stop)
    ]

    def gain_at(place: Tensor) -> tuple[float, float]:
        information = _information(candidate, place, num_samples, seed)

        def gain(matrix: Tensor) -> Tensor:
            unit = torch.eye(space.size, dtype=torch.float64)
            # (C⁻¹ + F)⁻¹ = C (1 + F C)⁻¹
            after = covariance @ torch.linalg.inv(unit + matrix @ covariance)
            before = torch.linalg.slogdet(covariance[own][:, own]).logabsdet
            return 0.5 * (before - torch.linalg.slogdet(after[own][:, own]).logabsdet)

        value, error = information.function(gain)
        return float(value), 0.0 if information.is_exact else float(error)

    value, error = gain_at(mean)
    kinds = {site.distribution for site in candidate.problem.observed.values()}
    if is_normal and kinds <= {"Normal", "MultivariateNormal"} and not candidate.problem.discrete:
        elsewhere, _ = gain_at(mean + covariance.diagonal().sqrt())
        if math.isclose(value, elsewhere, rel_tol=ALIKE, abs_tol=ALIKE):
            return Estimate(value, error)
    return Estimate(value, math.inf)


def _information(
    candidate: Candidate, place: Tensor, num_samples: int, seed: int
) -> FisherInformation:
    """F in unconstrained coordinates."""
    space = candidate.space
    values = space.to_values(place.to(space.dtype))
    found = fisher_information(
        candidate.problem, values, num_samples=max(num_samples, 100), seed=seed
    )

    def to_theta(vector: Tensor) -> Tensor:
        parts = space.to_values(vector)
        return torch.cat([parts[name].reshape(-1).double() for name in candidate.problem.drawn])

    slope = jacobian(to_theta, place)
    parts = None if found.parts is None else slope.mT @ found.parts @ slope
    error = slope.abs().mT @ found.standard_error @ slope.abs()
    return FisherInformation(slope.mT @ found.matrix @ slope, error, parts=parts, point=found.point)


def _normal_belief(candidate: Candidate, seed: int) -> tuple[Tensor, Tensor, bool]:
    """Mean and covariance of the belief, and whether it is normal.

    Of a Gaussian fit its own; of priors the curvature where they are on average, which is all there is
    of a normal prior; of others those of draws.
    """
    space, fit = candidate.space, candidate.fit
    if isinstance(fit, GaussianPosterior) and candidate.is_the_fits:
        root = fit.scale_tril.double()
        return fit.location.double(), root @ root.mT, True
    drawn = space.from_values(candidate.draws(PROBES, 16 * seed)).double()
    mean = drawn.mean(0)
    if fit is None:
        precision, elsewhere = (
            -torch.autograd.functional.hessian(candidate.log_prior_at, place)
            for place in (mean, mean + drawn.std(0))
        )
        root, failed = torch.linalg.cholesky_ex(precision)
        if not int(failed) and bool(root.isfinite().all()):
            is_normal = torch.allclose(precision, elsewhere, rtol=ALIKE, atol=ALIKE)
            return mean, torch.cholesky_inverse(root), is_normal
    return mean, drawn.mT.cov().reshape(space.size, space.size), False
