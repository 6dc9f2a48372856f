"""A discrete state over time: q(z_0, …, z_T-1) ∝ exp(Σ_t u_t[z_t] + Σ_t p_t[z_t, z_t+1]).

The natural parameters are the potentials of each state and of each pair of neighbours, the mean
parameters their probabilities. Every second state is summed out at once
(:mod:`vitools.elimination.discrete_chain`), in time linear in the length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vitools.distributions.markov_chains import CategoricalMarkovChain
from vitools.elimination.discrete_chain import log_sum_exp, pair_marginals
from vitools.families.categorical import IMPOSSIBLE, drawn_logits
from vitools.families.family import Family, Natural


class TrajectoryFamily(Family):
    """All potentials stand in one vector: u [T, K], then p [T - 1, K, K].

    Args:
        steps: T.
        states: K.
    """

    name = "CategoricalMarkovChain"
    statistics = ("indicator",)
    event_dims = (1,)
    support = constraints.nonnegative_integer
    filler = (0.0,)
    members: ClassVar = {
        CategoricalMarkovChain: ("initial_probs", "transition_probs", "num_steps"),
    }
    is_discrete = True

    def __init__(self, steps: int, states: int):
        self.steps, self.states = steps, states
        self.single = steps * states
        self.width = self.single + (steps - 1) * states**2

    def parts(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """What stands for each state […, T, K] and each pair […, T - 1, K, K]."""
        own = flat[..., : self.single].unflatten(-1, (self.steps, self.states))
        shape = (self.steps - 1, self.states, self.states)
        return own, flat[..., self.single :].reshape(*flat.shape[:-1], *shape)

    def normalised(self, natural: Natural) -> tuple[Tensor, Natural]:
        own, between = self.parts(natural[0])
        if self.steps == 1:
            total = log_sum_exp(own[..., 0, :], -1)
            return total, ((own[..., 0, :] - total.unsqueeze(-1)).exp(),)
        tables = between + own[..., 1:, None, :]
        first = tables[..., :1, :, :] + own[..., :1, :, None]
        total, pairs = pair_marginals(torch.cat([first, tables[..., 1:, :, :]], -3))
        states = torch.cat([pairs[..., :1, :, :].sum(-1), pairs.sum(-2)], -2)
        return total, (torch.cat([states.flatten(-2), pairs.flatten(-3)], -1),)

    def log_normaliser(self, natural: Natural) -> Tensor:
        return self.normalised(natural)[0]

    def mean_parameters(self, natural: Natural) -> Natural:
        return self.normalised(natural)[1]

    def to_distribution(self, natural: Natural) -> CategoricalMarkovChain:
        states, pairs = self.parts(self.mean_parameters(natural)[0])
        rows = pairs.sum(-1, keepdim=True)
        some = rows > 0
        later = torch.where(some, pairs / torch.where(some, rows, 1.0), 1 / self.states)
        return CategoricalMarkovChain(states[..., 0, :], later, self.steps, validate_args=False)

    def from_distribution(self, distribution: Distribution) -> Natural:
        assert isinstance(distribution, CategoricalMarkovChain)
        first = distribution.log_initial()
        rest = first.new_zeros(*first.shape[:-1], self.single - self.states)
        return (torch.cat([first, rest, distribution.log_transition().flatten(-3)], -1),)

    def proper(self, natural: Natural) -> Tensor:
        return torch.isfinite(natural[0]).all(-1)

    def start(self, prior: Natural, generator: torch.Generator | None) -> Natural:
        return (drawn_logits(prior[0], generator),)

    def with_moments(self, mean: Tensor, variance: Tensor | None) -> Natural:
        """From the probabilities of the states […, T, K], independent of each other."""
        own = mean.clamp(min=IMPOSSIBLE).log().flatten(-2)
        return (torch.nn.functional.pad(own, (0, self.width - self.single)),)

    def words(self, total: Callable[..., str]) -> str:
        return f"chain with potentials {total('indicator')}"
