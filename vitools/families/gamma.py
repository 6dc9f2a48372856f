"""Gamma: t = (log x, x), η = (a-1, -b), A = log Γ(a) - a log b."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution, Exponential, Gamma, constraints

from vitools.families.family import Family, Natural, narrow


class GammaFamily(Family):
    name = "Gamma"
    statistics = ("log", 1.0)
    event_dims = (0, 0)
    support = constraints.positive
    priors = ("Chi2", "Exponential", "Gamma")
    filler = (0.0, -1.0)
    members = {Exponential: ("rate",), Gamma: ("concentration", "rate")}  # noqa: RUF012
    is_precision = True

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

    def start(self, prior: Natural, generator: torch.Generator | None) -> Natural:
        """The prior mean, and a shape of at least 1."""
        shape, rate = prior[0] + 1, -prior[1]
        size = shape.clamp(min=1.0)
        return size - 1, -size / ratio(shape, rate)

    def with_moments(self, mean: Tensor, variance: Tensor | None) -> Natural:
        variance = narrow(mean) if variance is None else variance
        return mean.square() / variance - 1, -mean / variance

    def coordinates(self, natural: Natural) -> Natural:
        return (natural[0] + 1).log(), (-natural[1]).log()

    def from_coordinates(self, point: Natural) -> Natural:
        return point[0].exp() - 1, -point[1].exp()

    def words(self, total: Callable[..., str]) -> str:
        return f"Gamma({total('log', plus=1)}, {total(1.0, scale=-1)})"


def ratio(shape: Tensor, rate: Tensor) -> Tensor:
    """Shape over rate, 1 where it is no positive number."""
    found = torch.where((shape > 0) & (rate > 0), shape / rate, torch.ones_like(rate))
    return found.nan_to_num(1.0, 1.0, 1.0)
