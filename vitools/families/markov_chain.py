"""A chain of discrete states: q(z_0, …, z_T) ∝ exp(Σ_t u_t[z_t] + Σ_t p_t[z_t, z_t+1]).

The natural parameters are the unary and pairwise potentials, the mean parameters the probabilities
of each state and of each pair of neighbours. The forward and backward recursions (Rabiner 1989, "A
tutorial on hidden Markov models", section III) give both A and ∇A in time linear in the length. Where
all states have the same values, and stand along the axis of one site, every second one is summed out at
once (:mod:`vitools.elimination.discrete_chain`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vitools.distributions.markov_chains import CategoricalMarkovChain
from vitools.elimination.discrete_chain import log_sum_exp, pair_marginals
from vitools.families.categorical import IMPOSSIBLE, drawn_logits
from vitools.families.family import Family, Natural


class MarkovChainFamily(Family):
    """All potentials stand in one vector: u_0, …, u_T, then p_0, …, p_T-1, row by row.

    Args:
        sizes: the number of values of each state.
    """

    name = "MarkovChain"
    statistics = ("indicator",)
    event_dims = (1,)
    support = constraints.nonnegative_integer
    filler = (0.0,)
    is_discrete = True

    def __init__(self, sizes: Sequence[int]):
        self.sizes = tuple(sizes)
        self.shapes = [(size,) for size in sizes] + list(pairwise(self.sizes))
        ends = accumulate((math.prod(shape) for shape in self.shapes), initial=0)
        self.places = [slice(*ends_) for ends_ in pairwise(ends)]
        self.width = self.places[-1].stop

    def parts(self, flat: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The unary and the pairwise parts of a vector in this layout, ``[…, width]``."""
        found = [
            flat[..., place].reshape((*flat.shape[:-1], *shape))
            for place, shape in zip(self.places, self.shapes, strict=True)
        ]
        return found[: len(self.sizes)], found[len(self.sizes) :]

    def forward(self, natural: Natural) -> list[Tensor]:
        """log Σ over the states before t, as a function of z_t, for every t."""
        unary, pair = self.parts(natural[0])
        messages = [unary[0]]
        for own, between in zip(unary[1:], pair, strict=True):
            messages.append(own + torch.logsumexp(messages[-1].unsqueeze(-1) + between, -2))
        return messages

    def backward(self, natural: Natural) -> list[Tensor]:
        """log Σ over the states after t, as a function of z_t, for every t."""
        unary, pair = self.parts(natural[0])
        messages = [torch.zeros_like(unary[-1])]
        for own, between in zip(unary[:0:-1], pair[::-1], strict=True):
            messages.append(torch.logsumexp(between + (own + messages[-1]).unsqueeze(-2), -1))
        return messages[::-1]

    def log_normaliser(self, natural: Natural) -> Tensor:
        return torch.logsumexp(self.forward(natural)[-1], -1)

    def mean_parameters(self, natural: Natural) -> Natural:
        return self.normalised(natural)[1]

    def normalised(self, natural: Natural) -> tuple[Tensor, Natural]:
        if len(set(self.sizes)) == 1:
            return TrajectoryFamily(len(self.sizes), self.sizes[0]).normalised(natural)
        before, after = self.forward(natural), self.backward(natural)
        unary, pair = self.parts(natural[0])
        total = torch.logsumexp(before[-1], -1)
        means = [(a + b - total.unsqueeze(-1)).exp() for a, b in zip(before, after, strict=True)]
        ahead = [own + b for own, b in zip(unary[1:], after[1:], strict=True)]
        for a, between, b in zip(before, pair, ahead, strict=False):
            log_pair = a.unsqueeze(-1) + between + b.unsqueeze(-2) - total[..., None, None]
            means.append(log_pair.exp().flatten(-2))
        return total, (torch.cat(means, -1),)

    def to_distribution(self, natural: Natural) -> MarkovChain:
        return MarkovChain(natural[0], torch.tensor(self.sizes))

    def from_distribution(self, distribution: Distribution) -> Natural:
        assert isinstance(distribution, MarkovChain)
        return (distribution.potentials,)

    def proper(self, natural: Natural) -> Tensor:
        return torch.isfinite(natural[0]).all(-1)

    def start(self, prior: Natural, generator: torch.Generator | None) -> Natural:
        return (drawn_logits(prior[0], generator),)

    def words(self, total: Callable[..., str]) -> str:
        return f"chain with potentials {total('indicator')}"


class MarkovChain(Distribution):
    """States of a Markov chain, as indices ``[…, T]`` of their values.

    Args:
        potentials: […, width] in the layout of :class:`MarkovChainFamily`.
        sizes: the number of values of each state, [T].
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.nonnegative_integer, 1)

    def __init__(self, potentials: Tensor, sizes: Tensor, validate_args: bool | None = False):
        self.potentials, self.sizes = potentials, sizes
        self.family = MarkovChainFamily(sizes.tolist())
        super().__init__(potentials.shape[:-1], sizes.shape, validate_args=False)

    def marginal(self, state: int) -> Tensor:
        """The probabilities of one state, […, K]."""
        (means,) = self.family.mean_parameters((self.potentials,))
        return self.family.parts(means)[0][state]

    def log_prob(self, value: Tensor) -> Tensor:
        unary, pair = self.family.parts(self.potentials)
        batch = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        first, *rest = value.long().expand(*batch, -1).unbind(-1)
        total = _at(unary[0], first) - self.family.log_normaliser((self.potentials,))
        last = first
        for own, between, state in zip(unary[1:], pair, rest, strict=True):
            row = between.expand(*last.shape, *between.shape[-2:])
            row = row.gather(-2, last[..., None, None].expand(*row.shape[:-2], 1, row.shape[-1]))
            total = total + _at(own, state) + _at(row.squeeze(-2), state)
            last = state
        return total

    def entropy(self) -> Tensor:
        return self.family.entropy((self.potentials,))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Forward filtering, backward sampling."""
        _, pair = self.family.parts(self.potentials)
        before = self.family.forward((self.potentials,))
        shape = torch.Size((*sample_shape, *self.batch_shape))
        states = [_drawn(before[-1].expand(*shape, before[-1].shape[-1]))]
        for message, between in zip(before[-2::-1], pair[::-1], strict=True):
            logits = (message.unsqueeze(-1) + between).expand(*shape, *between.shape[-2:])
            chosen = states[-1][..., None, None].expand(*logits.shape[:-1], 1)
            states.append(_drawn(logits.gather(-1, chosen).squeeze(-1)))
        return torch.stack(states[::-1], -1)


def _at(table: Tensor, index: Tensor) -> Tensor:
    return table.expand(*index.shape, table.shape[-1]).gather(-1, index.unsqueeze(-1)).squeeze(-1)


def _drawn(logits: Tensor) -> Tensor:
    rows = logits.softmax(-1).reshape(-1, logits.shape[-1])
    return torch.multinomial(rows, 1).reshape(logits.shape[:-1])


MarkovChainFamily.members = {MarkovChain: ("potentials", "sizes")}


class TrajectoryFamily(Family):
    """The states of one site over time; all potentials stand in one vector: u [T, K], then p [T - 1, K, K].

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
