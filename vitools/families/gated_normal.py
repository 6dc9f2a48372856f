"""A case z and a normal w that depends on it: t = (1[z=k], 1[z=k] w, 1[z=k] w²), k = 1 … K.

Given z = k, w is normal with natural parameters (h_k, q_k), so that

    A(η) = log Σ_k exp(a_k + A_N(h_k, q_k)),        π_k ∝ exp(a_k + A_N(h_k, q_k)),

with A_N that of :mod:`.normal` (conditional Gaussians: Lauritzen and Wermuth 1989). The marginal of w is
a mixture of normals.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vitools.distributions.mixture import NormalMixture
from vitools.families.categorical import CategoricalFamily, drawn_logits
from vitools.families.family import Family, Natural
from vitools.families.normal import NormalFamily

NORMAL = NormalFamily()


class GatedNormalFamily(Family):
    name = "GatedNormal"
    title = "Normal in each case"
    statistics = ("indicator", 1.0, 2.0)
    event_dims = (1, 1, 1)
    support = constraints.real
    filler = (0.0, 0.0, -0.5)
    members = {NormalMixture: ("logits", "loc", "scale")}  # noqa: RUF012

    def log_normaliser(self, natural: Natural) -> Tensor:
        return torch.logsumexp(self.logits(natural), -1)

    def logits(self, natural: Natural) -> Tensor:
        """a_k + A_N(h_k, q_k)."""
        return natural[0] + NORMAL.log_normaliser(natural[1:])

    def mean_parameters(self, natural: Natural) -> Natural:
        chances = torch.softmax(self.logits(natural), -1)
        mean, square = NORMAL.mean_parameters(natural[1:])
        return chances, chances * mean, chances * square

    def to_distribution(self, natural: Natural) -> NormalMixture:
        """That of w."""
        variance = -0.5 / natural[2]
        return NormalMixture(self.logits(natural), natural[1] * variance, variance.sqrt())

    def from_distribution(self, distribution: Distribution) -> Natural:
        assert isinstance(distribution, NormalMixture)
        normal = NORMAL.from_distribution(distribution.component_distribution)
        return distribution.logits - NORMAL.log_normaliser(normal), *normal

    def proper(self, natural: Natural) -> Tensor:
        return (natural[0].isfinite() & NORMAL.proper(natural[1:])).all(-1)

    def start(self, prior: Natural, generator: torch.Generator | None) -> Natural:
        """Normals about those that the prior has in each case, cases of about equal chance."""
        normal = NORMAL.start(prior[1:], generator)
        return drawn_logits(prior[0], generator) - NORMAL.log_normaliser(normal), *normal

    def placed(self, chances: Tensor, mean: Tensor, variance: Tensor | None) -> Natural:
        """Cases of these chances, and the same normal in each."""
        mean = mean.unsqueeze(-1).expand(chances.shape)
        variance = None if variance is None else variance.unsqueeze(-1).expand(chances.shape)
        normal = NORMAL.with_moments(mean, variance)
        (logits,) = CategoricalFamily().with_moments(chances, None)
        return logits - NORMAL.log_normaliser(normal), *normal

    def coordinates(self, natural: Natural) -> Natural:
        return torch.log_softmax(self.logits(natural), -1), *NORMAL.coordinates(natural[1:])

    def from_coordinates(self, point: Natural) -> Natural:
        normal = NORMAL.from_coordinates(point[1:])
        return point[0] - NORMAL.log_normaliser(normal), *normal

    def words(self, total: Callable[..., str]) -> str:
        case = f"cases ∝ exp({total('indicator')}) ∫ exp(h w - P w²/2) dw"
        return f"{case}, in each Normal with P = {total(2.0, 'outer', scale=-2)} and mean P⁻¹h, h = {total(1.0)}"
