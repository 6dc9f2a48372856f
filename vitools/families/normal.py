"""Normal: t = (x, x²), η = (τμ, -τ/2), A = τμ²/2 - ½ log τ + ½ log 2π."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints

from vitools.families.family import Family, Natural, narrow, noise


class NormalFamily(Family):
    name = "Normal"
    statistics = (1.0, 2.0)
    event_dims = (0, 0)
    support = constraints.real
    priors = ("Normal", "ShapedNormal")
    filler = (0.0, -0.5)
    members = {Normal: ("loc", "scale")}  # noqa: RUF012
    is_gaussian = True

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

    def start(self, prior: Natural, generator: torch.Generator | None) -> Natural:
        """About the prior mean, and no wider than 1."""
        precision = -2 * prior[1]
        mean = prior[0] / precision.clamp(min=1e-300)
        precision = precision.clamp(min=1.0)
        mean = mean + noise(mean, generator) * precision.rsqrt()
        return precision * mean, -0.5 * precision

    def with_moments(self, mean: Tensor, variance: Tensor | None) -> Natural:
        variance = narrow(mean) if variance is None else variance
        return mean / variance, -0.5 / variance

    def coordinates(self, natural: Natural) -> Natural:
        precision = -2 * natural[1]
        return natural[0] / precision, precision.log()

    def from_coordinates(self, point: Natural) -> Natural:
        precision = point[1].exp()
        return precision * point[0], -0.5 * precision

    def words(self, total: Callable[..., str]) -> str:
        precision = total(2.0, "outer", scale=-2)
        return f"Normal with precision P = {precision} and mean P⁻¹({total(1.0)})"
