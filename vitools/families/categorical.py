"""Categorical over K cases: t = (1[x = k])_k, η = logits, A = log Σ_k exp η_k."""

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, constraints

from vitools.families.family import Family, Natural


class CategoricalFamily(Family):
    name = "Categorical"
    statistics = ("indicator",)
    event_dims = (1,)
    support = constraints.nonnegative_integer

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
