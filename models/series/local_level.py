"""A level that wanders, and what is seen of it: the local level model.

    level_0 ~ Normal(mean of y, (10 s)²)
    level_t ~ Normal(level_t-1, drift²)
    y_t ~ Normal(level_t, noise²)
    drift, noise ~ half-Cauchy(s)

s is the standard deviation of y, so that units do not matter. Given drift and noise all is normal, and what
the fit finds is the Kalman smoother's. How far the level wanders and how it did tell of each other, so that
``cavi`` nests the drift: with factors that do not know of each other it comes out five times too sure.

The Nile's flow at Aswan, 1871 to 1970, is the data set on which textbooks show it: about the year 1898 the
level falls. References: J. Durbin, S. Koopman, "Time series analysis by state space methods", 2012,
chapter 2; G. Cobb, "The problem of the Nile", Biometrika 65, 1978.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.data import load_nile
from vitools.distributions import GaussianMarkovChain
from vitools.errors import OptionError
from vitools.models import Example
from vitools.models.columns import as_column, spread_of


def model(y: Tensor, mask: Tensor | bool = True) -> None:
    """Sites: ``drift``, ``noise`` [], ``level`` [T, 1], ``y`` in plate *times*.

    Args:
        y: a number for each time, in their order, [T].
        mask: false where there is none, [T].
    """
    y = as_column("y", y)
    spread = spread_of("y", y)
    drift = pyro.sample("drift", dist.HalfCauchy(spread))
    noise = pyro.sample("noise", dist.HalfCauchy(spread))
    start = GaussianMarkovChain(
        y.mean()[None], 10 * spread[None], drift.unsqueeze(-1).unsqueeze(-1), num_steps=len(y)
    )
    level = pyro.sample("level", start)
    with pyro.plate("times", len(y)), pyro.poutine.mask(mask=mask):
        pyro.sample("y", dist.Normal(level[..., 0], noise), obs=y)


def simulate(num_steps: int = 200, drift: float = 0.3, noise: float = 1.0, seed: int = 0) -> Tensor:
    """A walk from 0 seen with noise: [num_steps], float64."""
    if num_steps < 2 or not (drift > 0 and noise > 0):
        raise OptionError(
            f"expected 2 steps and a positive drift and noise, got {num_steps}, {drift}, {noise}."
        )
    generator = torch.Generator().manual_seed(seed)
    steps, errors = torch.randn(2, num_steps, generator=generator, dtype=torch.float64)
    return torch.cumsum(drift * steps, 0) + noise * errors


def nile() -> tuple[Tensor, list[int]]:
    """Annual flow at Aswan in 10⁸ m³, 1871 to 1970, and the years."""
    years, flow = load_nile()
    return torch.from_numpy(flow), years.tolist()


def example(seed: int) -> Example:
    """The flow of the Nile; the same for every seed."""
    flow, years = nile()
    return Example(
        model,
        (flow,),
        "annual flow of the Nile at Aswan, 1871 to 1970",
        pictures=pictures,
        coords={"times": [str(year) for year in years]},
    )


def pictures(posterior: Any) -> dict[str, Any]:
    """The level with its band over what was seen."""
    from vitools.models.pictures import plot_states

    return {"level": plot_states(posterior, "level", observed="y", titles=["level"])}
