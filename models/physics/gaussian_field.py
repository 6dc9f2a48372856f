r"""A Gaussian field on the sites of a lattice, measured at points: exact, one measurement after the other.

    φ ~ Normal(m, C),        y = xᵀφ + σ ε,        ε ~ Normal(0, 1)

x picks a site (or weighs several). What is known after y is a Gaussian field again,

    C⁻¹ ← C⁻¹ + x xᵀ / σ²,     that is     C ← C - C x (C x)ᵀ / (σ² + xᵀ C x)
    m ← m + C x (y - xᵀ m) / (σ² + xᵀ C x)

a change of rank one that takes N² operations, in any order with the same end. How much y tells does not
depend on what it is: ½ log(1 + xᵀ C x / σ²) nats, so that points may be chosen before anything is seen.

Priors of lattices are best told by precisions, which are local. Of roughness κ∫(∂φ)² they are κ times the
graph's Laplacian, of κ∫(∂²φ)² its square, and a mass μ² (one over the square of a length) makes them proper:
``roughness`` builds them in any number of dimensions.

Reference: C. Rasmussen, C. Williams, "Gaussian processes for machine learning", 2006, chapter 2;
H. Rue, L. Held, "Gaussian Markov random fields", 2005.
"""

import math
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.models import Example
from vitools.models.columns import as_column

SHAPE = (12, 12)
LENGTH = 3.0
NOISE = 0.2


@dataclass(frozen=True)
class GaussianField:
    """What is known of a field: ``mean`` [N] and ``covariance`` [N, N].

    >>> field = GaussianField(torch.zeros(2), torch.eye(2)).measure(0, 1.0, noise=1.0)
    >>> field.mean, field.sd
    (tensor([0.5000, 0.0000]), tensor([0.7071, 1.0000]))
    """

    mean: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        size = self.mean.numel()
        if self.mean.dim() != 1 or self.covariance.shape != (size, size):
            raise OptionError(
                f"GaussianField: expected a mean [N] and a covariance [N, N], got "
                f"{list(self.mean.shape)} and {list(self.covariance.shape)}."
            )

    @classmethod
    def from_precision(cls, precision: Tensor, mean: Tensor | None = None) -> "GaussianField":
        """The field of precision C⁻¹ [N, N]; an improper one (a roughness without mass) is refused."""
        lower, failed = torch.linalg.cholesky_ex(precision)
        least = torch.diagonal(lower).min() if not failed else precision.new_zeros(())
        # a Laplacian's level has no precision at all; rounding leaves √ε of it
        if failed or least < 1e-7 * torch.diagonal(lower).max():
            raise OptionError(
                "precision: expected a positive definite matrix, got one that leaves a level (or slope) "
                "undetermined. Add a mass: roughness(shape, …, mass=1 / length)."
            )
        covariance = torch.cholesky_inverse(lower)
        return cls(torch.zeros_like(covariance[0]) if mean is None else mean, covariance)

    @property
    def sd(self) -> Tensor:
        """Standard deviation at each site, [N]."""
        return self.covariance.diagonal().sqrt()

    def measure(self, at: int | Tensor, value: float, noise: float) -> "GaussianField":
        """The field once ``value`` has been read at a site (or as weighted sum ``at`` [N] of all)."""
        towards, seen, variance = self._reading(at, noise)
        return GaussianField(
            self.mean + towards * (value - seen) / variance,
            self.covariance - torch.outer(towards, towards) / variance,
        )

    def measure_all(self, at: Tensor, values: Tensor, noise: float) -> "GaussianField":
        """The field after measurements at sites ``at`` [M], one after the other."""
        field = self
        for site, value in zip(at.tolist(), values.tolist(), strict=True):
            field = field.measure(site, value, noise)
        return field

    def log_prob(self, at: int | Tensor, value: float, noise: float) -> float:
        """log p(value) of the next measurement, what was seen before given."""
        _, seen, variance = self._reading(at, noise)
        return float(
            -0.5 * ((value - seen) ** 2 / variance + math.log(2 * math.pi) + variance.log())
        )

    def information(self, at: int | Tensor, noise: float) -> float:
        """½ log(1 + xᵀ C x / σ²) nats: what a measurement will tell, whatever it gives."""
        _, _, variance = self._reading(at, noise)
        return float(0.5 * (variance / noise**2).log())

    def _reading(self, at: int | Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
        """C x, xᵀm and the variance of the next reading."""
        if not noise > 0:
            raise OptionError(f"noise: expected a positive number, got {noise}.")
        size = len(self.mean)
        if isinstance(at, Tensor) and at.dim() == 1:
            if len(at) != size:
                raise OptionError(f"at: expected {size} weights, one for each site, got {len(at)}.")
            towards = self.covariance @ at.to(self.mean)
            return towards, at.to(self.mean) @ self.mean, at.to(self.mean) @ towards + noise**2
        site = int(at)
        if not 0 <= site < size:
            raise OptionError(f"at: expected a site from 0 to {size - 1}, got {site}.")
        return self.covariance[site], self.mean[site], self.covariance[site, site] + noise**2


def laplacian(shape: tuple[int, ...], spacing: float = 1.0) -> Tensor:
    """-∂² of a lattice with free ends, [N, N]: of each site, the sum of differences to its neighbours.

    φᵀ L φ · spacing^dims is ∫(∂φ)². Sites are counted as in ``field.reshape(shape)``.
    """
    check_lattice(shape, spacing)
    total = torch.zeros(math.prod(shape), math.prod(shape), dtype=torch.float64)
    for axis, count in enumerate(shape):
        steps = torch.eye(count, dtype=torch.float64).diff(dim=0) / spacing
        line = steps.T @ steps
        before = torch.eye(math.prod(shape[:axis]), dtype=torch.float64)
        after = torch.eye(math.prod(shape[axis + 1 :]), dtype=torch.float64)
        total += torch.kron(torch.kron(before, line), after)
    return total


def roughness(
    shape: tuple[int, ...],
    stiffness: float,
    *,
    order: int = 1,
    mass: float = 0.0,
    spacing: float = 1.0,
) -> Tensor:
    """Precision [N, N] of p(φ) ∝ exp(-½ κ ∫ φ (μ² - ∂²)^order φ): ``order`` 1 or 2.

    Without ``mass`` the level is free, which a first measurement settles. With mass μ the correlation falls
    off within 1/μ; order 2 in two dimensions is the Matérn field of smoothness 1 (Whittle 1954). At its
    ends the lattice is flat, ∂φ = 0; for the natural ends of splines see ``line_field``.
    """
    check_roughness(stiffness, order, mass)
    operator = laplacian(shape, spacing) + mass**2 * torch.eye(
        math.prod(shape), dtype=torch.float64
    )
    volume = stiffness * spacing ** len(shape)
    return volume * (operator if order == 1 else operator @ operator)


def check_lattice(shape: tuple[int, ...], spacing: float) -> None:
    """Refuse what is no lattice."""
    if not shape or any(not isinstance(n, int) or n < 2 for n in shape):
        raise OptionError(f"shape: expected whole numbers from 2 for each direction, got {shape}.")
    if not spacing > 0:
        raise OptionError(f"spacing: expected a positive number, got {spacing}.")


def check_roughness(stiffness: float, order: int, mass: float) -> None:
    """Refuse what is no roughness."""
    if order not in (1, 2):
        raise OptionError(f"order: expected 1, ∫(∂φ)², or 2, ∫(∂²φ)², got {order!r}.")
    if not stiffness > 0 or not mass >= 0:
        raise OptionError(
            f"expected a positive stiffness and a mass of at least 0, got {stiffness} and {mass}."
        )


def model(precision: Tensor, at: Tensor, value: Tensor, noise: float = NOISE) -> None:
    """Sites: ``field`` [N]; ``value`` in plate *measurements*.

    Args:
        precision: C⁻¹ of the field before any measurement, [N, N].
        at: the site of each measurement, [M].
        value: what was read, [M].
        noise: σ.
    """
    value = as_column("value", value)
    size = precision.shape[-1]
    if (
        at.dtype.is_floating_point
        or at.shape != value.shape
        or bool((at < 0).any() | (at >= size).any())
    ):
        raise DataError(
            f"at: expected the site, 0 to {size - 1}, of each of {len(value)} measurements, got "
            f"{at.dtype} {list(at.shape)}."
        )
    zero = precision.new_zeros(size)
    field = pyro.sample("field", dist.MultivariateNormal(zero, precision_matrix=precision))
    with pyro.plate("measurements", len(value)):
        pyro.sample("value", dist.Normal(field[at], noise), obs=value)


def strength_model(shape_of_field: Tensor, at: Tensor, value: Tensor) -> None:
    """The same with both scales unknown: ``stiffness`` multiplies the precision, ``noise`` is σ.

    Sites: ``stiffness``, ``noise`` [], ``field`` [N], ``value``. Given the two all is normal; ``cavi`` nests
    them (``nested=["stiffness", "noise"]``), because they and the field tell of each other.
    """
    value = as_column("value", value)
    spread = value.std()
    stiffness = pyro.sample("stiffness", dist.Gamma(value.new_tensor(0.5), value.new_tensor(0.5)))
    noise = pyro.sample("noise", dist.HalfCauchy(spread))
    zero = shape_of_field.new_zeros(shape_of_field.shape[-1])
    field = pyro.sample(
        "field",
        dist.MultivariateNormal(zero, precision_matrix=stiffness[..., None, None] * shape_of_field),
    )
    with pyro.plate("measurements", len(value)):
        pyro.sample("value", dist.Normal(field[at], noise), obs=value)


@dataclass(frozen=True)
class Measured:
    """A simulated field [N], the sites that were measured [M] and what was read there [M]."""

    field: Tensor
    at: Tensor
    value: Tensor


def simulate(
    precision: Tensor, num_measurements: int, noise: float = NOISE, seed: int = 0
) -> Measured:
    """A field drawn from its prior, read at different sites drawn at random."""
    size = precision.shape[-1]
    if not 1 <= num_measurements <= size:
        raise OptionError(f"num_measurements: expected 1 to {size}, got {num_measurements}.")
    generator = torch.Generator().manual_seed(seed)
    lower = torch.linalg.cholesky(precision)
    draw = torch.randn(size, 1, generator=generator, dtype=precision.dtype)
    field = torch.linalg.solve_triangular(lower.mT, draw, upper=True)[:, 0]
    at = torch.randperm(size, generator=generator)[:num_measurements]
    errors = torch.randn(num_measurements, generator=generator, dtype=precision.dtype)
    return Measured(field, at, field[at] + noise * errors)


def example_precision() -> Tensor:
    """A smooth field on a lattice of 12 × 12 sites, correlated over 3 of them, of sd near 1."""
    unscaled = roughness(SHAPE, 1.0, order=2, mass=1 / LENGTH)
    return unscaled * torch.linalg.inv(unscaled).diagonal().mean()


def example(seed: int) -> Example:
    """Thirty measurements of a smooth field in two dimensions."""
    precision = example_precision()
    data = simulate(precision, 30, seed=seed)
    return Example(
        model,
        (precision, data.at, data.value),
        "30 measurements on a lattice of 12 × 12 (simulated)",
        pictures=pictures,
    )


def pictures(posterior: Any) -> dict[str, Any]:
    """Mean and standard deviation of the field over its lattice."""
    from vitools.models.physics.pictures import plot_lattice

    at = posterior.problem.arguments["at"]
    mean, sd = posterior.mean()["field"], posterior.sd()["field"]
    size = len(mean)
    shape = SHAPE if size == math.prod(SHAPE) else (1, size)
    return {"field": plot_lattice(mean, sd, at, shape)}
