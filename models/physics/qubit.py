r"""Which of its two states a qubit is in, from a noisy signal.

**A readout.** In state z = 0 or 1 the signal, averaged over a time t, is normal about one of two levels,

    P(z = 1) = p,      y | z ~ Normal(level_z, σ²)
    log odds(1 | y) = log p/(1-p) + (level_1 - level_0)(y - (level_0 + level_1)/2) / σ²

linear in y: the posterior is a logistic curve. Its steepness grows as t, because σ² falls as 1/t. Shots of
unknown preparation calibrate the levels: a mixture of two normals.

**Watched without end.** Measured weakly in steps dt while it decays with rate Γ↓ and is excited with Γ↑, the
state is a Markov chain behind the noise,

    P(1 → 0) = Γ↓/Γ (1 - e^-Γdt),   P(0 → 1) = Γ↑/Γ (1 - e^-Γdt),   Γ = Γ↑ + Γ↓

the forward recursion is the filter of Wonham in discrete time, and with what came later it is the smoother,
which dates a jump far better.

References: W. Wonham, "Some applications of stochastic differential equations to optimal nonlinear filtering",
SIAM J. Control 2, 1964; J. Gambetta et al., "Protocols for optimal readout of qubits", PRA 76, 2007.
"""

import math
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.distributions import CategoricalMarkovChain
from vitools.errors import OptionError
from vitools.models import Example
from vitools.models.columns import as_column, spread_of

UP, DOWN, STEP, SIGMA = 0.2, 1.0, 0.02, 2.0
"""Of the example: rates, the step of time, and the noise of one step about levels of ±1."""


def readout_posterior(
    signal: Tensor, levels: tuple[float, float], noise: float, excited: float = 0.5
) -> Tensor:
    """P(z = 1 | y) of each shot, [N]."""
    if not noise > 0 or not 0 < excited < 1:
        raise OptionError(
            f"expected a positive noise and 0 < excited < 1, got {noise} and {excited}."
        )
    ground, up = levels
    slope = (up - ground) / noise**2
    odds = math.log(excited / (1 - excited)) + slope * (signal - (ground + up) / 2)
    return torch.sigmoid(odds)


def readout_error(levels: tuple[float, float], noise: float) -> float:
    """Share of shots that a threshold half-way misjudges: Φ(-|level_1 - level_0| / 2σ)."""
    return 0.5 * math.erfc(abs(levels[1] - levels[0]) / (2 * math.sqrt(2) * noise))


def readout_model(signal: Tensor) -> None:
    """Shots whose levels and noise are unknown. Sites: ``excited`` [], ``level`` [2] in plate *states*,
    ``precision`` [], ``state`` and ``signal`` in plate *shots*.

    Args:
        signal: of each shot, [N].
    """
    signal = as_column("signal", signal)
    spread = spread_of("signal", signal)
    excited = pyro.sample("excited", dist.Beta(torch.ones_like(spread), torch.ones_like(spread)))
    with pyro.plate("states", 2):
        level = pyro.sample("level", dist.Normal(signal.mean(), 2 * spread))
    precision = pyro.sample("precision", dist.Gamma(torch.ones_like(spread), spread**2 / 4))
    with pyro.plate("shots", len(signal)):
        weights = torch.stack([1 - excited, excited], -1)
        state = pyro.sample("state", dist.Categorical(weights))
        pyro.sample("signal", dist.Normal(level[state], precision.rsqrt()), obs=signal)


def transition(up: float, down: float, step: float) -> Tensor:
    """Of the two states in a time step, rows from, columns to, [2, 2]."""
    if not (up >= 0 and down >= 0 and up + down > 0 and step > 0):
        raise OptionError(
            f"expected rates of at least 0, not both 0, and a positive step, got {up}, {down}, {step}."
        )
    moved = -math.expm1(-(up + down) * step) / (up + down)
    return torch.tensor(
        [[1 - up * moved, up * moved], [down * moved, 1 - down * moved]], dtype=torch.float64
    )


def trajectory_model(
    signal: Tensor,
    table: Tensor | None = None,
    noise: float | None = None,
    levels: tuple[float, float] = (-1.0, 1.0),
) -> None:
    """A qubit watched over time. Sites: ``table`` [2, 2] (what is not given), ``noise`` [], ``state`` [T],
    ``signal`` in plate *times*.

    Args:
        signal: of each step, [T].
        table: probabilities from one step to the next, where they are known, [2, 2].
        noise: σ of one step, where it is known.
        levels: of the signal in the two states.
    """
    signal = as_column("signal", signal)
    if table is None:
        # a state lasts about twenty steps, with the weight of twenty of them
        prior = torch.tensor([[19.0, 1.0], [1.0, 19.0]]).to(signal)
        table = pyro.sample("table", dist.Dirichlet(prior).to_event(1))
    table = table.to(signal)
    if noise is None:
        sigma = pyro.sample("noise", dist.HalfCauchy(spread_of("signal", signal)))
    else:
        sigma = signal.new_tensor(noise)
    even = signal.new_tensor([0.5, 0.5])
    state = pyro.sample("state", CategoricalMarkovChain(even, table, num_steps=len(signal)))
    with pyro.plate("times", len(signal)):
        pyro.sample("signal", dist.Normal(signal.new_tensor(levels)[state], sigma), obs=signal)


def filtered(
    signal: Tensor, table: Tensor, noise: float, levels: tuple[float, float]
) -> tuple[Tensor, float]:
    """P(z_t = 1 | signal up to t), [T], and log p(signal): what an observer knows as time goes."""
    log_likelihood = dist.Normal(torch.tensor(levels).double(), noise).log_prob(
        signal[:, None].double()
    )
    belief, evidence, kept = torch.tensor([0.5, 0.5]).double(), 0.0, []
    for t, row in enumerate(log_likelihood):
        if t:
            belief = belief @ table
        joint = belief.log() + row
        total = joint.logsumexp(0)
        evidence, belief = evidence + float(total), (joint - total).exp()
        kept.append(belief[1])
    return torch.stack(kept), evidence


@dataclass(frozen=True)
class Watched:
    """The signal [T] of a watched qubit, and its state [T] of 0 and 1."""

    signal: Tensor
    state: Tensor


def simulate_readout(
    num_shots: int = 500, excited: float = 0.4, noise: float = 0.8, seed: int = 0
) -> Watched:
    """Shots about the levels ±1."""
    generator = torch.Generator().manual_seed(seed)
    state = (torch.rand(num_shots, generator=generator, dtype=torch.float64) < excited).long()
    errors = torch.randn(num_shots, generator=generator, dtype=torch.float64)
    return Watched(2.0 * state - 1 + noise * errors, state)


def simulate_trajectory(
    num_steps: int = 600,
    up: float = UP,
    down: float = DOWN,
    step: float = STEP,
    noise: float = SIGMA,
    seed: int = 0,
) -> Watched:
    """A qubit that begins excited, watched about levels of ±1."""
    if num_steps < 2:
        raise OptionError(f"num_steps: expected at least 2, got {num_steps}.")
    table = transition(up, down, step)
    generator = torch.Generator().manual_seed(seed)
    chances = torch.rand(num_steps, generator=generator, dtype=torch.float64).tolist()
    states = [1]
    for chance in chances[1:]:
        states.append(int(chance > table[states[-1], 0]))
    state = torch.tensor(states)
    errors = torch.randn(num_steps, generator=generator, dtype=torch.float64)
    return Watched(2.0 * state - 1 + noise * errors, state)


def readout_example(seed: int) -> Example:
    """Five hundred shots of unknown preparation."""
    data = simulate_readout(seed=seed)
    return Example(
        readout_model,
        (data.signal,),
        "500 shots about two levels (simulated)",
        pictures=readout_pictures,
    )


def trajectory_example(seed: int) -> Example:
    """A qubit watched for 600 steps, its rates and the noise unknown."""
    data = simulate_trajectory(seed=seed)
    return Example(
        trajectory_model,
        (data.signal,),
        "a qubit watched for 600 steps (simulated)",
        pictures=trajectory_pictures,
    )


def readout_pictures(posterior: Any) -> dict[str, Any]:
    """The shots, and the probability that the fit gives each to be excited."""
    from vitools.models.physics.pictures import plot_readout

    signal = posterior.problem.arguments["signal"]
    level, excited = posterior.mean()["level"], float(posterior.mean()["excited"])
    noise = float(posterior.mean()["precision"] ** -0.5)
    grid = torch.linspace(float(signal.min()), float(signal.max()), 200, dtype=torch.float64)
    ground, up = level.tolist()
    if ground > up:  # the two names may have changed places
        ground, up, excited = up, ground, 1 - excited
    return {
        "readout": plot_readout(signal, grid, readout_posterior(grid, (ground, up), noise, excited))
    }


def trajectory_pictures(posterior: Any) -> dict[str, Any]:
    """The signal over time, and the probability to be excited."""
    from vitools.models.pictures import plot_regimes, state_probabilities

    levels = torch.tensor(posterior.problem.arguments["levels"]).double()
    probability = state_probabilities(posterior, "state")
    return {"trajectory": plot_regimes(posterior, "signal", probability, levels)}
