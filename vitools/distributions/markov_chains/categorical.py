"""A discrete state over time, as one distribution of the whole trajectory.

P(z) = p_0[z_0] ∏_t P_t[z_t-1, z_t]
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import logits_to_probs

from vitools.distributions.markov_chains.gaussian import num_transitions, one_of
from vitools.elimination.scan import affine_states, mapped_states
from vitools.errors import OptionError

CONSTRAINTS = {
    "initial_probs": constraints.simplex,
    "initial_logits": constraints.real_vector,
    "transition_probs": constraints.independent(constraints.simplex, 2),
    "transition_logits": constraints.independent(constraints.real, 3),
}


class CategoricalMarkovChain(TorchDistribution):
    """z_0, …, z_T-1 of a Markov chain of K states, of event shape [T].

    The transitions broadcast to a dim of T - 1 before their own: a table [K, K] holds for all of them, one
    of [T - 1, K, K] changes with time, and one for each of G chains is [G, 1, K, K] or [G, T - 1, K, K].

    >>> stay = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    >>> chain = CategoricalMarkovChain(torch.tensor([0.5, 0.5]), stay, num_steps=4)
    >>> chain.log_prob(torch.tensor([0, 0, 1, 1])).exp()  # .5 · .9 · .1 · .8
    tensor(0.0360)

    Args:
        initial_probs: p_0, [*batch, K]; or ``initial_logits``.
        transition_probs: P, [*batch, T - 1, K, K], rows sum to one; or ``transition_logits``.
        num_steps: T; may be omitted where the transitions change with time.
    """

    arg_constraints = CONSTRAINTS

    def __init__(
        self,
        initial_probs: Tensor | None = None,
        transition_probs: Tensor | None = None,
        num_steps: int | Tensor | None = None,
        *,
        initial_logits: Tensor | None = None,
        transition_logits: Tensor | None = None,
        validate_args: bool | None = None,
    ):
        title = "CategoricalMarkovChain"
        given = one_of(
            title, {"initial_probs": initial_probs, "initial_logits": initial_logits}
        ) | one_of(
            title,
            {"transition_probs": transition_probs, "transition_logits": transition_logits},
        )
        initial, transition = given.values()
        self._given = tuple(given)
        size = initial.shape[-1] if initial.dim() else 0
        if transition.dim() < 2 or transition.shape[-2:] != (size, size):
            raise OptionError(
                f"{title}: {self._given[1]} of shape {tuple(transition.shape)} beside "
                f"{self._given[0]} of shape {tuple(initial.shape)}. Expected are K and K × K as their "
                "last dims"
            )
        own = dict.fromkeys(self._given, 2)
        length = None if num_steps is None else int(num_steps)
        steps = num_transitions(title, given, own, length)
        batch = torch.broadcast_shapes(initial.shape[:-1], transition.shape[:-3])
        setattr(self, self._given[0], _normalised(self._given[0], initial).expand(*batch, size))
        transition = _normalised(self._given[1], transition)
        setattr(self, self._given[1], transition.expand(*batch, steps, size, size))
        checked = self._given if steps else self._given[:1]
        self.arg_constraints = {name: CONSTRAINTS[name] for name in checked}
        super().__init__(batch, torch.Size((steps + 1,)), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.integer_interval(0, self.num_states - 1), 1)

    @property
    def num_steps(self) -> int:
        """T."""
        return self.event_shape[0]

    @property
    def num_states(self) -> int:
        """K."""
        return getattr(self, self._given[0]).shape[-1]

    def _log(self, name: str) -> Tensor:
        """log p of the first state or of the transitions; -inf where it is 0."""
        x: Tensor = getattr(self, name)
        if name.endswith("logits"):
            return x
        possible = x > 0
        return torch.where(possible, torch.where(possible, x, 1.0).log(), -torch.inf)

    def log_initial(self) -> Tensor:
        """log p_0, [*batch, K]."""
        return self._log(self._given[0])

    def log_transition(self) -> Tensor:
        """log P, [*batch, T - 1, K, K]."""
        return self._log(self._given[1])

    def _probabilities(self, name: str) -> Tensor:
        x: Tensor = getattr(self, name)
        return logits_to_probs(x) if name.endswith("logits") else x

    @property
    def state_probs(self) -> Tensor:
        """P(z_t = k), [*batch, T, K]."""
        first = self._log(self._given[0]).exp()
        later = self._log(self._given[1]).exp().mT
        return affine_states(first, later, later.new_zeros(later.shape[:-1]))

    @property
    def mean(self) -> Tensor:
        """E z_t, [*batch, T]: the probability of state 1 where there are two."""
        return self._power_mean(1)

    @property
    def variance(self) -> Tensor:
        return self._power_mean(2) - self._power_mean(1).square()

    def _power_mean(self, power: int) -> Tensor:
        probs = self.state_probs
        return (probs * torch.arange(self.num_states).to(probs) ** power).sum(-1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> CategoricalMarkovChain:
        new = self._get_checked_instance(CategoricalMarkovChain, _instance)
        batch = torch.Size(batch_shape)
        rank = len(self.batch_shape)
        for name in self._given:
            x = getattr(self, name)
            setattr(new, name, x.expand(batch + x.shape[rank:]))
        new._given, new.arg_constraints = self._given, self.arg_constraints
        super(CategoricalMarkovChain, new).__init__(batch, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Each transition as a map of states, drawn by one uniform number; then log₂ T compositions."""
        shape = torch.Size(sample_shape) + self.batch_shape
        with torch.no_grad():
            first = self._probabilities(self._given[0])
            later = self._probabilities(self._given[1])
            uniform = torch.rand(shape + self.event_shape, dtype=first.dtype, device=first.device)
            start = _inverted(first, uniform[..., 0])
            maps = _inverted(later, uniform[..., 1:].unsqueeze(-1))
            return mapped_states(start, maps)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value = value.long()
        initial, transition = self.log_initial(), self.log_transition()
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        value = value.expand(*shape, -1)
        first = _at(initial.expand(*shape, -1), value[..., 0])
        rows = transition.expand(*shape, *transition.shape[-3:]).flatten(-2)
        later = _at(rows, value[..., :-1] * self.num_states + value[..., 1:])
        return first + later.sum(-1)


def _normalised(name: str, x: Tensor) -> Tensor:
    if name.endswith("logits"):
        return x - x.logsumexp(-1, keepdim=True)
    return x / x.sum(-1, keepdim=True)


def _at(table: Tensor, index: Tensor) -> Tensor:
    return table.gather(-1, index.unsqueeze(-1)).squeeze(-1)


def _inverted(probs: Tensor, uniform: Tensor) -> Tensor:
    """The state at a quantile, of probabilities […, K] and numbers […]: […]."""
    below = probs.cumsum(-1)
    below = below / below[..., -1:]
    return (uniform.unsqueeze(-1) >= below[..., :-1]).sum(-1)
