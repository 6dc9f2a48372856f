"""Inverse gamma: t = (log x, 1/x), η = (-a-1, -b), A = log Γ(a) - a log b."""

from collections.abc import Callable

import torch
from pyro.distributions import InverseGamma
from torch import Tensor
from torch.distributions import Distribution, constraints

from vitools.families.family import Family, Natural, narrow
from vitools.families.gamma import ratio


class InverseGammaFamily(Family):
    name = "InverseGamma"
    statistics = ("log", -1.0)
    event_dims = (0, 0)
    support = constraints.positive
    priors = ("InverseGamma",)
    filler = (-2.0, -1.0)
    members = {InverseGamma: ("concentration", "rate")}  # noqa: RUF012

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

    def start(self, prior: Natural, generator: torch.Generator | None) -> Natural:
        """The prior mean of 1/x, and a shape of at least 1."""
        shape, rate = -prior[0] - 1, -prior[1]
        size = shape.clamp(min=1.0)
        return -size - 1.0, -size / ratio(shape, rate)

    def with_moments(self, mean: Tensor, variance: Tensor | None) -> Natural:
        variance = narrow(mean) if variance is None else variance
        shape = 2 + mean.square() / variance
        return -shape - 1, -mean * (shape - 1)

    def coordinates(self, natural: Natural) -> Natural:
        return (-natural[0] - 1).log(), (-natural[1]).log()

    def from_coordinates(self, point: Natural) -> Natural:
        return -point[0].exp() - 1, -point[1].exp()

    def words(self, total: Callable[..., str]) -> str:
        return f"InverseGamma({total('log', scale=-1, plus=-1)}, {total(-1.0, scale=-1)})"
