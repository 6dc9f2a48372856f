"""Normal: t = (x, x²), η = (τμ, -τ/2), A = τμ²/2 - ½ log τ + ½ log 2π."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints

from vitools.families.family import Family, Natural


class NormalFamily(Family):
    name = "Normal"
    statistics = (1.0, 2.0)
    event_dims = (0, 0)
    support = constraints.real

    def log_normaliser(self, natural: Natural) -> Tensor:
        linear, quadratic = natural
        precision = -2 * quadratic
        return 0.5 * (linear**2 / precision - precision.log() + math.log(2 * math.pi))

    def mean_parameters(self, natural: Natural) -> Natural:
        linear, quadratic = natural
        variance = -0.5 / quadratic
        mean = linear * variance
        return mean, mean**2 + variance

    def to_distribution(self, natural: Natural) -> Distribution:
        linear, quadratic = natural
        variance = -0.5 / quadratic
        return Normal(linear * variance, variance.sqrt(), validate_args=False)

    def from_distribution(self, distribution: Distribution) -> Natural:
        assert isinstance(distribution, Normal)
        precision = distribution.scale**-2
        return precision * distribution.loc, -0.5 * precision

    def proper(self, natural: Natural) -> Tensor:
        linear, quadratic = natural
        return (quadratic < 0) & linear.isfinite() & torch.isfinite(quadratic)
