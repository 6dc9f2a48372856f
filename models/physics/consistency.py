r"""What many measurements of one number do to what was believed before.

    λ ~ prior,      y_n ~ Normal(λ*, σ²)

**Gaussian.** With the prior Normal(λ₀, s²) the posterior after N is normal, of width and distance

    W_N = (1/s² + N/σ²)^-½,        E λ - λ* = W_N² (λ₀ - λ*) / s²  +  W_N² √N/σ ε

the pull of the prior falls as 1/N, the noise as 1/√N: the prior is forgotten, but where it was wrong by much
it takes N ≈ σ² |λ₀ - λ*| / (s² ε) measurements until what is left of it is below ε.

**Fat tails.** A Cauchy prior of the same scale pulls by its slope, 2(λ₀ - λ*)/((λ₀ - λ*)² + s²) in place of
(λ₀ - λ*)/s²: the more wrong it was, the less it holds. Fat tails of the *noise* (Student-t) take the weight of
single measurements that lie far off, whichever they are.

**A prior that excludes the truth**, Uniform(a, b) with λ* > b, never finds it: the posterior piles up at the
edge, exponential with width σ² / (N (λ* - b)), the sharper the more wrong; only the evidence tells, which falls
by (λ* - b)²/2σ² a measurement against a prior that allows λ*.

References: J. Bernardo, A. Smith, "Bayesian theory", 1994, 5.3; A. Dawid, "Posterior expectations for large
observations", Biometrika 60, 1973.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.errors import OptionError
from vitools.models import Example
from vitools.models.columns import as_column

PRIORS = ("normal", "cauchy", "uniform")


@dataclass(frozen=True)
class Belief:
    """The normal posterior: its mean and width W_N, and what part of the mean's error is the prior's pull."""

    mean: float
    width: float
    pull: float


def normal_belief(y: Tensor, noise: float, center: float, spread: float, truth: float) -> Belief:
    """After measurements [N], in closed form; ``pull`` is W_N² (λ₀ - λ*) / s²."""
    variance = 1 / (1 / spread**2 + len(y) / noise**2)
    mean = variance * (center / spread**2 + float(y.sum()) / noise**2)
    return Belief(mean, math.sqrt(variance), variance * (center - truth) / spread**2)


def error_after(num: int, noise: float, center: float, spread: float, truth: float) -> float:
    """Root mean square of E λ - λ* over data: pull² + W_N⁴ N/σ²."""
    variance = 1 / (1 / spread**2 + num / noise**2)
    pull = variance * (center - truth) / spread**2
    return math.sqrt(pull**2 + variance**2 * num / noise**2)


def measurements_until(
    error: float, noise: float, center: float, spread: float, truth: float
) -> int:
    """The least N from which on the root mean square error stays below ``error``."""
    if not error > 0:
        raise OptionError(f"error: expected a positive number, got {error}.")
    # with d = λ₀ - λ* it rises up to N = σ²/s² (1 - 2 d²/s²), where the prior was better than it claimed, and
    # falls from there on
    claimed = (center - truth) ** 2 / spread**2
    top = max(0.0, noise**2 / spread**2 * (1 - 2 * claimed))
    low = max(
        (math.floor(top), math.ceil(top)),
        key=lambda num: error_after(num, noise, center, spread, truth),
    )
    if error_after(low, noise, center, spread, truth) < error:
        return 0
    high = low + 1
    while error_after(high, noise, center, spread, truth) >= error:
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        if error_after(middle, noise, center, spread, truth) >= error:
            low = middle
        else:
            high = middle
    return high


def model(
    y: Tensor,
    noise: float = 1.0,
    prior: str = "normal",
    center: float = 0.0,
    spread: float = 1.0,
    freedom: float | None = None,
) -> None:
    """Sites: ``value`` (λ) []; ``y`` in plate *measurements*.

    Args:
        y: what was measured, [N].
        noise: σ.
        prior: "normal", "cauchy" (center, spread) or "uniform" (center ± spread).
        center: λ₀.
        spread: s.
        freedom: of a Student-t noise; normal if omitted.
    """
    y = as_column("y", y)
    if prior not in PRIORS:
        raise OptionError(f"prior: expected one of {', '.join(PRIORS)}, got {prior!r}.")
    for name, number in (("noise", noise), ("spread", spread), ("freedom", freedom)):
        if number is not None and not number > 0:
            raise OptionError(f"{name}: expected a positive number, got {number}.")
    at, width = y.new_tensor(center), y.new_tensor(spread)
    before = {
        "normal": dist.Normal(at, width),
        "cauchy": dist.Cauchy(at, width),
        "uniform": dist.Uniform(at - width, at + width),
    }[prior]
    value = pyro.sample("value", before)
    with pyro.plate("measurements", len(y)):
        if freedom is None:
            pyro.sample("y", dist.Normal(value, noise), obs=y)
        else:
            pyro.sample("y", dist.StudentT(freedom, value, noise), obs=y)


def posterior_density(
    grid: Tensor,
    y: Tensor,
    noise: float = 1.0,
    prior: str = "normal",
    center: float = 0.0,
    spread: float = 1.0,
    freedom: float | None = None,
) -> Tensor:
    """Of λ on an even grid [G] wide and fine enough to hold it, [G]."""
    if prior == "normal":
        log_density = dist.Normal(center, spread).log_prob(grid)
    elif prior == "cauchy":
        log_density = dist.Cauchy(center, spread).log_prob(grid)
    else:
        log_density = torch.where((grid - center).abs() <= spread, 0.0, -math.inf).to(grid)
    kernel = dist.Normal(0.0, noise) if freedom is None else dist.StudentT(freedom, 0.0, noise)
    log_density = log_density + kernel.log_prob(y[:, None] - grid).sum(0)
    return log_density.softmax(0) / (grid[1] - grid[0])


def simulate(num: int = 50, truth: float = 3.0, noise: float = 1.0, seed: int = 0) -> Tensor:
    """Measurements [num] of ``truth`` with normal noise."""
    generator = torch.Generator().manual_seed(seed)
    return truth + noise * torch.randn(num, generator=generator, dtype=torch.float64)


def contraction(y: Tensor, numbers: Sequence[int], grid: Tensor, **given: Any) -> dict[str, Tensor]:
    """Posterior densities [G] after the first N measurements, for each N, by their labels."""
    return {f"N = {n}": posterior_density(grid, y[:n], **given) for n in numbers}


def example(seed: int) -> Example:
    """Fifty measurements of a number three prior widths away."""
    return Example(
        model,
        (simulate(seed=seed),),
        "50 measurements of λ = 3 under a prior Normal(0, 1) (simulated)",
        pictures=pictures,
    )


def pictures(posterior: Any) -> dict[str, Any]:
    """How the posterior contracts."""
    from vitools.models.physics.pictures import plot_densities

    given = dict(posterior.problem.arguments)
    y = given.pop("y")
    center, spread, mean = given["center"], given["spread"], float(posterior.mean()["value"])
    width = 5 * float(posterior.sd()["value"])
    low, high = min(center - 2 * spread, mean - width), max(center + 2 * spread, mean + width)
    grid = torch.linspace(low, high, 2001, dtype=torch.float64)
    numbers = sorted({0, 1, 3, 10, len(y)} & set(range(len(y) + 1)))
    return {"contraction": plot_densities(grid, contraction(y, numbers, grid, **given), name="λ")}
