"""Wave packets on a line: data whose hidden causes a physicist knows, for models that look for them.

A Gaussian packet with mean position x₀, mean momentum p and width σ (ħ = 1) has the wave function

    ψ(x) = (2πσ²)^-¼ exp(-(x - x₀)² / 4σ² + i p (x - x₀))

so that ∫ |ψ|² dx = 1, ⟨x⟩ = x₀, Δx = σ, ⟨p⟩ = p and Δp = 1 / 2σ: the least that Heisenberg allows.
What is seen at the grid's points x_g, each with normal noise of standard deviation τ, is one of

    "density"   |ψ(x_g)|²              knows x₀ and σ, and nothing whatever of p
    "real"      Re ψ(x_g)              even in p: knows it up to its sign
    "complex"   Re ψ(x_g), Im ψ(x_g)   knows all three

The hidden numbers are drawn from the prior of :func:`model`: x₀ normal, σ log-normal, and p
log-normal, hence positive, which is what makes "real" identified. Reference: C. Cohen-Tannoudji,
B. Diu, F. Laloë, "Quantum mechanics", volume 1, complement G_I.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.isolation import seeded
from vitools.models import Example

NOISE_SD = 0.05
HALF_LENGTH = 6.0  # the line is [-6, 6]; the prior puts nearly all packets within it


class WavePackets(NamedTuple):
    """Simulated packets and the truth behind them, in torch's default dtype.

    Attributes:
        observed: [n, num_points], or [n, 2 num_points] for ``"complex"``, real parts first.
        grid: the points x_g, [num_points].
        truth: x₀, p and σ of each packet, [n, 3], in the order of ``TRUTH``.
        noise_sd: τ.
    """

    observed: Tensor
    grid: Tensor
    truth: Tensor
    noise_sd: float


TRUTH = ("position", "momentum", "width")


def wave_function(grid: Tensor, position: Tensor, momentum: Tensor, width: Tensor) -> Tensor:
    """ψ at points [num_points] of packets with parameters [...]: complex, [..., num_points].

    >>> grid = torch.linspace(-6, 6, 481)
    >>> psi = wave_function(grid, *torch.tensor([0.5, 2.0, 0.7]))
    >>> probability = psi.abs().square() * (grid[1] - grid[0])
    >>> [round(value.item(), 3) for value in (probability.sum(), (grid * probability).sum())]
    [1.0, 0.5]
    """
    distance = grid - position[..., None]
    spread = width[..., None]
    envelope = (2 * math.pi * spread.square()) ** -0.25 * torch.exp(-((distance / spread / 2) ** 2))
    return torch.polar(envelope, momentum[..., None] * distance)


OBSERVABLES: dict[str, Callable[[Tensor], Tensor]] = {
    "density": lambda psi: psi.abs().square(),
    "real": lambda psi: psi.real,
    "complex": lambda psi: torch.cat([psi.real, psi.imag], -1),
}
"""What of a packet is seen, by name."""


def model(
    observed: Tensor, grid: Tensor, *, observable: str = "real", noise_sd: float = NOISE_SD
) -> None:
    """The physicist's own model of packets [n, num_points] (or [n, 2 num_points], ``"complex"``)."""
    see = _observable(observable)
    if observed.ndim != 2 or observed.shape[1] != len(grid) * (1 + (observable == "complex")):
        raise DataError(
            f"observed: expected {observable} values at {len(grid)} points of the grid for each "
            f"packet, got shape {list(observed.shape)}"
        )
    zero, one = grid.new_zeros(()), grid.new_ones(())
    with pyro.plate("packets", len(observed)):
        position = pyro.sample("position", dist.Normal(zero, 1.5 * one))
        momentum = pyro.sample("momentum", dist.LogNormal(math.log(2.5) * one, 0.4 * one))
        width = pyro.sample("width", dist.LogNormal(math.log(0.8) * one, 0.3 * one))
        values = see(wave_function(grid, position, momentum, width))
        pyro.sample("observed", dist.Normal(values, noise_sd * one).to_event(1), obs=observed)


def simulate(
    num_packets: int = 2000,
    num_points: int = 64,
    seed: int = 0,
    *,
    observable: str = "real",
    noise_sd: float = NOISE_SD,
) -> WavePackets:
    """Packets drawn from the prior of :func:`model`, seen with noise; equal seeds, equal packets.

    >>> packets = simulate(5, seed=1)
    >>> packets.observed.shape, packets.truth.shape
    (torch.Size([5, 64]), torch.Size([5, 3]))
    """
    see = _observable(observable)
    if num_packets < 1 or num_points < 2 or not noise_sd > 0:
        raise OptionError(
            "expected num_packets ≥ 1, num_points ≥ 2 and noise_sd > 0, got "
            f"{num_packets}, {num_points} and {noise_sd}"
        )
    grid = torch.linspace(-HALF_LENGTH, HALF_LENGTH, num_points)
    with seeded(seed):
        position = 1.5 * torch.randn(num_packets)
        momentum = 2.5 * torch.exp(0.4 * torch.randn(num_packets))
        width = 0.8 * torch.exp(0.3 * torch.randn(num_packets))
        values = see(wave_function(grid, position, momentum, width))
        observed = values + noise_sd * torch.randn(values.shape)
    return WavePackets(observed, grid, torch.stack([position, momentum, width], -1), noise_sd)


def _observable(name: Any) -> Callable[[Tensor], Tensor]:
    if name not in OBSERVABLES:
        raise OptionError(f"observable: expected one of {list(OBSERVABLES)}, got {name!r}")
    return OBSERVABLES[name]


def example(seed: int) -> Example:
    """Twenty packets seen through |ψ|²: position and width are found, momentum keeps its prior."""
    packets = simulate(20, seed=seed, observable="density")
    return Example(
        model,
        (packets.observed, packets.grid),
        "20 wave packets, |ψ|² at 64 points (simulated)",
        {"observable": "density"},
    )
