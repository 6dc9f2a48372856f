r"""A damped oscillator, seen now and then: which frequency, which damping?

    q̈ = -ω² q - γ q̇,   q(0) = 1, q̇(0) = 0,        y_i ~ Normal(q(t_i), σ²)
    q(t) = e^{-γt/2} (cos wt + γ/(2w) sin wt),     w² = ω² - γ²/4   (hyperbolic where w² < 0)
    ω ~ Uniform(0, ω_max),   γ ~ Exponential(mean γ₀)

The posterior of ω has a mode for each way that the oscillator may have turned between two looks: seen at
intervals Δ, w and 2π/Δ - w are told apart by the damping alone. Its modes are as narrow as σ/T. Two numbers
are few enough for a grid, which is exact: ``posterior_on_grid``.

A measurement at the right time decides between modes; ``vitools.design`` finds it.
Reference: G. Bretthorst, "Bayesian spectrum analysis and parameter estimation", 1988.
"""

from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.models import Example
from vitools.models.columns import as_column

FASTEST, DAMPING, NOISE = 6.0, 0.2, 0.15
"""ω_max, γ₀ and σ."""


def displacement(time: Tensor, omega: Tensor, gamma: Tensor) -> Tensor:
    """q(t); arguments broadcast. Smooth through critical damping, ω = γ/2."""
    squared = omega**2 - gamma**2 / 4
    turns = squared > 0
    # where the other branch holds a 1 stands in, so that gradients stay finite
    w = torch.where(turns, squared, 1.0).sqrt()
    v = torch.where(turns, 1.0, -squared)
    slow = torch.where(v > 0, v, 1.0).sqrt()
    decay = torch.exp(-gamma * time / 2)
    swing = decay * (torch.cos(w * time) + gamma / (2 * w) * torch.sin(w * time))
    # e^{-γt/2} cosh and sinh, each exponent at most 0
    rise, fall = torch.exp((slow - gamma / 2) * time), torch.exp((-slow - gamma / 2) * time)
    creep = (rise + fall) / 2 + gamma / (4 * slow) * (rise - fall)
    still = decay * (1 + gamma * time / 2)
    return torch.where(turns, swing, torch.where(v > 0, creep, still))


def model(
    time: Tensor,
    y: Tensor,
    noise: float = NOISE,
    fastest: float = FASTEST,
    damping: float = DAMPING,
) -> None:
    """Sites: ``omega``, ``gamma`` [], ``y`` in plate *looks*.

    Args:
        time: when it was looked at, [N], at least 0.
        y: where it was seen, [N].
        noise: σ.
        fastest: ω_max.
        damping: γ₀, the mean of γ's prior.
    """
    time, y = as_column("time", time), as_column("y", y)
    if len(time) != len(y) or bool((time < 0).any()):
        raise DataError(
            f"time: expected {len(y)} times of at least 0, one for each y, got {len(time)}"
            f"{'' if len(time) != len(y) else f', the least {float(time.min()):.3g}'}."
        )
    for name, value in (("noise", noise), ("fastest", fastest), ("damping", damping)):
        if not value > 0:
            raise OptionError(f"{name}: expected a positive number, got {value}.")
    omega = pyro.sample("omega", dist.Uniform(y.new_tensor(0.0), y.new_tensor(fastest)))
    gamma = pyro.sample("gamma", dist.Exponential(y.new_tensor(1 / damping)))
    with pyro.plate("looks", len(y)):
        at = displacement(time, omega.unsqueeze(-1), gamma.unsqueeze(-1))
        pyro.sample("y", dist.Normal(at, noise), obs=y)


@dataclass(frozen=True)
class Grid:
    """The posterior on a grid: ω [A], γ [B], its density [A, B], and log p(y)."""

    omega: Tensor
    gamma: Tensor
    density: Tensor
    log_evidence: float

    def moments(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of each parameter."""
        found = {}
        weights = self.density / self.density.sum()
        for name, values, shares in (
            ("omega", self.omega, weights.sum(1)),
            ("gamma", self.gamma, weights.sum(0)),
        ):
            mean = float(shares @ values)
            found[name] = (mean, float((shares @ (values - mean) ** 2).sqrt()))
        return found


def posterior_on_grid(
    time: Tensor,
    y: Tensor,
    noise: float = NOISE,
    fastest: float = FASTEST,
    damping: float = DAMPING,
    points: tuple[int, int] = (1200, 300),
) -> Grid:
    """Midpoints of ω in (0, ω_max) and of γ in (0, 8 γ₀) (3e-4 of the prior lies beyond).

    Modes are as narrow as σ / max(time): the default has a dozen points across one at time 20.
    """
    omega = (torch.arange(points[0]).double() + 0.5) * fastest / points[0]
    gamma = (torch.arange(points[1]).double() + 0.5) * 8 * damping / points[1]
    log_density = (
        dist.Exponential(1 / damping).log_prob(gamma)[None] - torch.tensor(fastest).double().log()
    )
    log_density = log_density.expand(points).clone()
    for t, value in zip(time.double(), y.double(), strict=True):
        log_density += dist.Normal(displacement(t, omega[:, None], gamma), noise).log_prob(value)
    cell = float((omega[1] - omega[0]) * (gamma[1] - gamma[0]))
    total = float(log_density.logsumexp((0, 1)))
    density = (log_density - total).exp() / cell
    return Grid(omega, gamma, density, total + float(torch.tensor(cell).log()))


@dataclass(frozen=True)
class Looks:
    """Times [N], what was seen [N], and the truth."""

    time: Tensor
    y: Tensor
    omega: float
    gamma: float


def simulate(
    time: Tensor | None = None,
    omega: float = 2.2,
    gamma: float = 0.15,
    noise: float = NOISE,
    seed: int = 0,
) -> Looks:
    """Looks at equal intervals of 1.6 (eight of them) unless times are given."""
    times = 1.6 * torch.arange(1, 9).double() if time is None else torch.as_tensor(time).double()
    generator = torch.Generator().manual_seed(seed)
    errors = torch.randn(len(times), generator=generator, dtype=torch.float64)
    at = displacement(times, torch.tensor(omega).double(), torch.tensor(gamma).double())
    return Looks(times, at + noise * errors, omega, gamma)


def example(seed: int) -> Example:
    """Eight looks at equal intervals, which leave more than one frequency possible."""
    looks = simulate(seed=seed)
    return Example(
        model,
        (looks.time, looks.y),
        "an oscillator seen at 8 times (simulated)",
        pictures=pictures,
    )


def pictures(posterior: Any) -> dict[str, Any]:
    """The exact posterior over (ω, γ), and draws of the fit on it."""
    from vitools.models.physics.pictures import plot_plane

    given = posterior.problem.arguments
    grid = posterior_on_grid(
        given["time"], given["y"], given["noise"], given["fastest"], given["damping"], (600, 160)
    )
    draws = posterior.sample(400)
    return {
        "posterior": plot_plane(
            grid.omega,
            grid.gamma,
            grid.density,
            names=("ω", "γ"),
            draws=(draws["omega"], draws["gamma"]),
        )
    }
