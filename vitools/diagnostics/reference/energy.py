"""Has a Hamiltonian sampler walked over all energies? The fraction of missing information, from draws.

A transition draws the momentum anew, and with it changes the energy E = U + K, U = -log p(u, x), by no
more than the kinetic energy allows. Where the spread of U is far wider, as along a funnel or a heavy
tail, the chain walks from one energy to the next, and few divergences or none tell of the tail that it
has not reached. The estimated Bayesian fraction of missing information E[(E_n - E_{n-1})²] / Var E is,
for the momenta drawn anew (K is χ²_P / 2 whatever the mass matrix),

    2 Var K / (Var U + Var K) = P / (Var U + P/2),

about 1 for a Gaussian, and known to fail below 0.3. It needs nothing but draws and the density, so it
serves the draws of any program. Draws that are not correlated have no energy to walk over: the effective
size of U tells.

Reference: Betancourt, *Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo*, 2016.
"""

from dataclasses import dataclass

import torch

from vitools.posterior import DrawsPosterior
from vitools.posterior.mixing import FEWEST_DRAWS, bulk_size
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

LEAST_FRACTION, FREE_FRACTION = 0.3, 0.5
ENOUGH_PER_CHAIN = 100
"""Effective draws of U in each chain from which on its walk has covered all energies."""

MOST_BYTES = 1e9
"""What the densities of all draws may touch: of more draws, every second or third is taken."""


@dataclass(frozen=True)
class EnergyMixing:
    """How the energies of some chains have mixed.

    Attributes:
        fraction: of missing information, as above.
        ess: effective sample size of U.
        chains, draws: how many there are.
    """

    fraction: float
    ess: float
    chains: int
    draws: int

    @property
    def is_free(self) -> bool:
        """Whether the energies are far from a funnel's."""
        return self.fraction > FREE_FRACTION

    @property
    def is_slow(self) -> bool:
        return self.fraction < LEAST_FRACTION and self.ess < ENOUGH_PER_CHAIN * self.chains


def measure_energy(posterior: DrawsPosterior) -> EnergyMixing | None:
    """Of a sampler's draws; ``None`` without enough of them, or of a density that is not
    defined there."""
    problem = posterior.problem
    if not problem.continuous:
        return None
    space = UnconstrainedSpace(problem)
    points = space.from_values(posterior.draws).detach()
    work = points[..., 0].numel() * max(problem.mapper.bytes_per_draw, 8 * space.size)
    draws = points[..., 0].numel()
    points = points[:, :: int(work / MOST_BYTES) + 1]
    if points.shape[1] < FEWEST_DRAWS:
        return None
    with torch.no_grad():
        heights = space.log_density(points).double().cpu()
    if not bool(torch.isfinite(heights).all()):
        return None
    fraction = space.size / (float(heights.var()) + space.size / 2)
    return EnergyMixing(fraction, float(bulk_size(heights.unsqueeze(-1))), len(points), draws)
