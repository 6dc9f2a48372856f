"""Beta: t = (log x, log(1-x)), η = (a-1, b-1), A = log Γ(a) + log Γ(b) - log Γ(a+b)."""

import torch
from torch import Tensor
from torch.distributions import Beta, Distribution, constraints

from vitools.families.family import Family, Natural


class BetaFamily(Family):
    name = "Beta"
    statistics = ("log", "log1m")
    event_dims = (0, 0)
    support = constraints.unit_interval

    def log_normaliser(self, natural: Natural) -> Tensor:
        a, b = natural[0] + 1, natural[1] + 1
        return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)

    def mean_parameters(self, natural: Natural) -> Natural:
        a, b = natural[0] + 1, natural[1] + 1
        both = torch.digamma(a + b)
        return torch.digamma(a) - both, torch.digamma(b) - both

    def to_distribution(self, natural: Natural) -> Distribution:
        return Beta(natural[0] + 1, natural[1] + 1, validate_args=False)

    def from_distribution(self, distribution: Distribution) -> Natural:
        assert isinstance(distribution, Beta)
        return distribution.concentration1 - 1, distribution.concentration0 - 1

    def proper(self, natural: Natural) -> Tensor:
        return (natural[0] > -1) & (natural[1] > -1)
