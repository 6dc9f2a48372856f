"""Gamma: t = (log x, x), η = (a-1, -b), A = log Γ(a) - a log b."""

import torch
from torch import Tensor
from torch.distributions import Distribution, Gamma, constraints

from vitools.families.family import Family, Natural


class GammaFamily(Family):
    name = "Gamma"
    statistics = ("log", 1.0)
    event_dims = (0, 0)
    support = constraints.positive

    def log_normaliser(self, natural: Natural) -> Tensor:
        a, b = natural[0] + 1, -natural[1]
        return torch.lgamma(a) - a * b.log()

    def mean_parameters(self, natural: Natural) -> Natural:
        a, b = natural[0] + 1, -natural[1]
        return torch.digamma(a) - b.log(), a / b

    def to_distribution(self, natural: Natural) -> Distribution:
        return Gamma(natural[0] + 1, -natural[1], validate_args=False)

    def from_distribution(self, distribution: Distribution) -> Natural:
        assert isinstance(distribution, Gamma)
        return distribution.concentration - 1, -distribution.rate

    def proper(self, natural: Natural) -> Tensor:
        return (natural[0] > -1) & (natural[1] < 0)
