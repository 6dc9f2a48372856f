"""A level and its trend, both of which wander: the local linear trend, a state of two numbers.

    level_t = level_t-1 + trend_t-1 + level_drift ε_t
    trend_t = trend_t-1             + trend_drift ε'_t
    y_t ~ Normal(level_t, noise²)
    level_drift, trend_drift, noise ~ half-Cauchy(s)       (trend_drift: s / 10)

s is the standard deviation of y's steps. The state is one site, a linear Gaussian chain with the transition
matrix [[1, 1], [0, 1]]: another matrix makes an oscillation, an autoregression or a season of it.

Reference: A. Harvey, "Forecasting, structural time series models and the Kalman filter", 1989.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.distributions import GaussianMarkovChain
from vitools.errors import DataError, OptionError
from vitools.models import Example
from vitools.models.columns import as_column, spread_of


def model(y: Tensor, mask: Tensor | bool = True) -> None:
    """Sites: ``level_drift``, ``trend_drift``, ``noise`` [], ``state`` [T, 2], ``y`` in plate *times*.

    Args:
        y: a number for each time, in their order, [T].
        mask: false where there is none, [T].
    """
    y = as_column("y", y)
    if len(y) < 3:
        raise DataError(f"y: expected at least 3 times, got {len(y)}.")
    spread, step = spread_of("y", y), spread_of("y's steps", y.diff())
    scales = torch.stack([step, step / 10])
    level_drift = pyro.sample("level_drift", dist.HalfCauchy(scales[0]))
    trend_drift = pyro.sample("trend_drift", dist.HalfCauchy(scales[1]))
    noise = pyro.sample("noise", dist.HalfCauchy(step))
    state = pyro.sample(
        "state",
        GaussianMarkovChain(
            torch.stack([y[0], 0 * y[0]]),
            torch.stack([10 * spread, spread]),
            torch.stack([level_drift, trend_drift], -1).unsqueeze(-2),
            y.new_tensor([[1.0, 1.0], [0.0, 1.0]]),
            num_steps=len(y),
        ),
    )
    with pyro.plate("times", len(y)), pyro.poutine.mask(mask=mask):
        pyro.sample("y", dist.Normal(state[..., 0], noise), obs=y)


def simulate(num_steps: int = 100, seed: int = 0) -> tuple[Tensor, Tensor]:
    """What is seen [T], and level and trend behind it [T, 2]: drifts .2 and .1, noise 1."""
    if num_steps < 3:
        raise OptionError(f"num_steps: expected at least 3, got {num_steps}.")
    generator = torch.Generator().manual_seed(seed)
    level, slope, errors = torch.randn(3, num_steps, generator=generator, dtype=torch.float64)
    trend = torch.cumsum(0.1 * slope, 0)
    levels = torch.cumsum(0.2 * level + trend.roll(1).index_fill(0, torch.tensor([0]), 0.0), 0)
    return levels + errors, torch.stack([levels, trend], -1)


def example(seed: int) -> Example:
    """100 steps of a level whose trend turns."""
    y, _ = simulate(seed=seed)
    return Example(model, (y,), "100 steps (simulated)", pictures=pictures)


def pictures(posterior: Any) -> dict[str, Any]:
    """Level and trend with their bands."""
    from vitools.models.pictures import plot_states

    return {"state": plot_states(posterior, "state", observed="y", titles=["level", "trend"])}
