"""Regimes that follow one another, each with its own level and spread: a hidden Markov model.

    z_0 ~ uniform,   P(z_t = j | z_t-1 = i) = T_ij
    T_i ~ Dirichlet(1, …, 1 + 8 at i, …, 1)         regimes last: about nine steps are expected
    y_t ~ Normal(level_z[t], 1 / precision_z[t])
    level_k ~ Normal(mean of y, (2 s)²),   precision_k ~ Gamma(2, s² / K²)

s is the standard deviation of y. The states are one site, whose factor is a Markov chain again: forward and
backward recursions at each sweep. Regimes may change places, so of K! equal modes a fit shows one.

Reference: L. Rabiner, "A tutorial on hidden Markov models", Proceedings of the IEEE 77, 1989.
"""

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

STICKY = 8.0


def model(y: Tensor, mask: Tensor | bool = True, states: int = 2) -> None:
    """Sites: ``transition`` [K, K], rows sum to one; ``level``, ``precision`` [K] in plate *states*;
    ``state`` [T]; ``y`` in plate *times*.

    Args:
        y: a number for each time, in their order, [T].
        mask: false where there is none, [T].
        states: K.
    """
    if not isinstance(states, int) or states < 2:
        raise OptionError(f"states: expected a whole number from 2, got {states!r}.")
    y = as_column("y", y)
    spread = spread_of("y", y)
    prior = 1 + STICKY * torch.eye(states).to(y)
    transition = pyro.sample("transition", dist.Dirichlet(prior).to_event(1))
    with pyro.plate("states", states):
        level = pyro.sample("level", dist.Normal(y.mean(), 2 * spread))
        precision = pyro.sample(
            "precision", dist.Gamma(2 * torch.ones_like(spread), spread**2 / states**2)
        )
    uniform = torch.full_like(prior[0], 1 / states)
    state = pyro.sample("state", CategoricalMarkovChain(uniform, transition, num_steps=len(y)))
    with pyro.plate("times", len(y)), pyro.poutine.mask(mask=mask):
        pyro.sample("y", dist.Normal(level[state], precision[state].rsqrt()), obs=y)


@dataclass(frozen=True)
class Regimes:
    """Simulated ``y`` [T], the regime of each time [T], and the truth by site."""

    y: Tensor
    state: Tensor
    truth: dict[str, Tensor]


def simulate(num_steps: int = 400, seed: int = 0) -> Regimes:
    """A calm regime at -1 and a rough one at 1.5, left with probability .05 and .1."""
    if num_steps < 10:
        raise OptionError(f"num_steps: expected at least 10, got {num_steps}.")
    generator = torch.Generator().manual_seed(seed)
    transition = torch.tensor([[0.95, 0.05], [0.1, 0.9]], dtype=torch.float64)
    chances = torch.rand(num_steps, generator=generator, dtype=torch.float64)
    states = [int(chances[0] < 0.5)]
    for chance in chances[1:].tolist():
        states.append(int(chance > transition[states[-1], 0]))
    state = torch.tensor(states)
    level = torch.tensor([-1.0, 1.5], dtype=torch.float64)
    sd = torch.tensor([0.5, 1.0], dtype=torch.float64)
    noise = torch.randn(num_steps, generator=generator, dtype=torch.float64)
    truth = {"transition": transition, "level": level, "precision": sd**-2}
    return Regimes(level[state] + sd[state] * noise, state, truth)


def example(seed: int) -> Example:
    """400 steps of two regimes."""
    regimes = simulate(seed=seed)
    return Example(model, (regimes.y,), "400 steps of two regimes (simulated)", pictures=pictures)


def pictures(posterior: Any) -> dict[str, Any]:
    """Which regime follows which, and when each ruled."""
    from vitools.models.pictures import plot_regimes, plot_transitions, state_probabilities

    probability = state_probabilities(posterior, "state")
    level = posterior.mean()["level"]
    names = [f"{value:.3g}" for value in level.tolist()]
    return {
        "transitions": plot_transitions(posterior.mean()["transition"], names),
        "regimes": plot_regimes(posterior, "y", probability, level),
    }
