"""Dirichlet: t = log x, η = a-1, A = Σ_k log Γ(a_k) - log Γ(Σ_k a_k)."""

import torch
from torch import Tensor
from torch.distributions import Dirichlet, Distribution, constraints

from vitools.families.family import Family, Natural


class DirichletFamily(Family):
    name = "Dirichlet"
    statistics = ("log",)
    event_dims = (1,)
    support = constraints.simplex

    def log_normaliser(self, natural: Natural) -> Tensor:
        a = natural[0] + 1
        return torch.lgamma(a).sum(-1) - torch.lgamma(a.sum(-1))

    def mean_parameters(self, natural: Natural) -> Natural:
        a = natural[0] + 1
        return (torch.digamma(a) - torch.digamma(a.sum(-1, keepdim=True)),)

    def to_distribution(self, natural: Natural) -> Distribution:
        return Dirichlet(natural[0] + 1, validate_args=False)

    def from_distribution(self, distribution: Distribution) -> Natural:
        assert isinstance(distribution, Dirichlet)
        return (distribution.concentration - 1,)

    def proper(self, natural: Natural) -> Tensor:
        return (natural[0] > -1).all(-1)
