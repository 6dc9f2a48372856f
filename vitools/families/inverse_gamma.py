"""Inverse gamma: t = (log x, 1/x), η = (-a-1, -b), A = log Γ(a) - a log b."""

import torch
from pyro.distributions import InverseGamma
from torch import Tensor
from torch.distributions import Distribution, constraints

from vitools.families.family import Family, Natural


class InverseGammaFamily(Family):
    name = "InverseGamma"
    statistics = ("log", -1.0)
    event_dims = (0, 0)
    support = constraints.positive

    def log_normaliser(self, natural: Natural) -> Tensor:
        a, b = -natural[0] - 1, -natural[1]
        return torch.lgamma(a) - a * b.log()

    def mean_parameters(self, natural: Natural) -> Natural:
        a, b = -natural[0] - 1, -natural[1]
        return b.log() - torch.digamma(a), a / b

    def to_distribution(self, natural: Natural) -> Distribution:
        return InverseGamma(-natural[0] - 1, -natural[1], validate_args=False)

    def from_distribution(self, distribution: Distribution) -> Natural:
        assert isinstance(distribution, InverseGamma)
        return -distribution.concentration - 1, -distribution.rate

    def proper(self, natural: Natural) -> Tensor:
        return (natural[0] < -1) & (natural[1] < 0)
