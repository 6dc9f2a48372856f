"""Categorical over K cases: t = (1[x = k])_k, η = logits, A = log Σ_k exp η_k."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    OneHotCategorical,
    constraints,
)

from vitools.families.family import Family, Natural

IMPOSSIBLE = 1e-9
"""Probability left to the cases that a value is not."""


class CategoricalFamily(Family):
    name = "Categorical"
    statistics = ("indicator",)
    event_dims = (1,)
    support = constraints.nonnegative_integer
    priors = ("Bernoulli", "Categorical", "CategoricalMarkovChain", "OneHotCategorical")
    filler = (0.0,)
    members = {  # noqa: RUF012
        Bernoulli: ("logits",),
        Categorical: ("logits",),
        OneHotCategorical: ("logits",),
    }
    is_discrete = True

    def log_normaliser(self, natural: Natural) -> Tensor:
        return torch.logsumexp(natural[0], -1)

    def mean_parameters(self, natural: Natural) -> Natural:
        return (torch.softmax(natural[0], -1),)

    def normalised(self, natural: Natural) -> tuple[Tensor, Natural]:
        (logits,) = natural
        top = logits.amax(-1, keepdim=True)
        table = (logits - top).exp_()
        total = table.sum(-1, keepdim=True)
        return (top + total.log()).squeeze(-1), (table.div_(total),)

    def to_distribution(self, natural: Natural) -> Distribution:
        return Categorical(logits=natural[0], validate_args=False)

    def from_distribution(self, distribution: Distribution) -> Natural:
        assert isinstance(distribution, Categorical)
        return (distribution.logits,)

    def proper(self, natural: Natural) -> Tensor:
        return torch.isfinite(natural[0]).all(-1)

    def like(self, prior: str, natural: Natural) -> Distribution:
        """The member as a distribution of the values that the prior has."""
        (logits,) = natural
        if prior == "Bernoulli":
            return Bernoulli(logits=logits[..., 1] - logits[..., 0], validate_args=False)
        if prior == "OneHotCategorical":
            return OneHotCategorical(logits=logits, validate_args=False)
        return self.to_distribution(natural)

    def start(self, prior: Natural, generator: torch.Generator | None) -> Natural:
        return (drawn_logits(prior[0], generator),)

    def with_moments(self, mean: Tensor, variance: Tensor | None) -> Natural:
        """From the probabilities of the cases."""
        return (mean.clamp(min=IMPOSSIBLE).log(),)

    def words(self, total: Callable[..., str]) -> str:
        return f"softmax({total('indicator')})"


def drawn_logits(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform on [0, 1]; equal without a generator."""
    if generator is None:
        return torch.zeros(like.shape, dtype=torch.float64)
    return torch.rand(like.shape, generator=generator, dtype=torch.float64)
