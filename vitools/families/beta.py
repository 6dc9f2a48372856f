"""Beta: t = (log x, log(1-x)), η = (a-1, b-1), A = log Γ(a) + log Γ(b) - log Γ(a+b)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Beta, Distribution, constraints

from vitools.families.dirichlet import LEAST_CONCENTRATION, jittered, total_concentration
from vitools.families.family import Family, Natural


class BetaFamily(Family):
    name = "Beta"
    statistics = ("log", "log1m")
    event_dims = (0, 0)
    support = constraints.unit_interval
    priors = ("Beta", "Uniform")
    filler = (0.0, 0.0)
    members = {Beta: ("concentration1", "concentration0")}  # noqa: RUF012

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

    def start(self, prior: Natural, generator: torch.Generator | None) -> Natural:
        return jittered(prior[0], generator), jittered(prior[1], generator)

    def with_moments(self, mean: Tensor, variance: Tensor | None) -> Natural:
        total = total_concentration(mean * (1 - mean), variance)
        parts = (mean * total, (1 - mean) * total)
        return tuple(part.clamp(min=LEAST_CONCENTRATION) - 1 for part in parts)

    def coordinates(self, natural: Natural) -> Natural:
        return tuple((eta + 1).log() for eta in natural)

    def from_coordinates(self, point: Natural) -> Natural:
        return tuple(x.exp() - 1 for x in point)

    def words(self, total: Callable[..., str]) -> str:
        return f"Beta({total('log', plus=1)}, {total('log1m', plus=1)})"
