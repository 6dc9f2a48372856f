"""Dirichlet: t = log x, η = a-1, A = Σ_k log Γ(a_k) - log Γ(Σ_k a_k)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Dirichlet, Distribution, constraints

from vitools.families.family import NARROW, NARROWEST, Family, Natural, noise

JITTER = 0.1
"""Relative spread of the concentrations at a start (a Gamma(100) draw has the same)."""
LEAST_CONCENTRATION = 1e-3


class DirichletFamily(Family):
    name = "Dirichlet"
    statistics = ("log",)
    event_dims = (1,)
    support = constraints.simplex
    priors = ("Dirichlet",)
    filler = (0.0,)
    members = {Dirichlet: ("concentration",)}  # noqa: RUF012

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

    def start(self, prior: Natural, generator: torch.Generator | None) -> Natural:
        return (jittered(prior[0], generator),)

    def with_moments(self, mean: Tensor, variance: Tensor | None) -> Natural:
        spread = (mean * (1 - mean)).sum(-1, keepdim=True)
        whole = None if variance is None else variance.sum(-1, keepdim=True)
        total = total_concentration(spread, whole)
        return ((mean * total).clamp(min=LEAST_CONCENTRATION) - 1,)

    def coordinates(self, natural: Natural) -> Natural:
        return ((natural[0] + 1).log(),)

    def from_coordinates(self, point: Natural) -> Natural:
        return (point[0].exp() - 1,)

    def words(self, total: Callable[..., str]) -> str:
        return f"Dirichlet({total('log', plus=1)})"


def jittered(prior: Tensor, generator: torch.Generator | None) -> Tensor:
    """The prior's concentrations, at least 1 and each a little off; less 1."""
    jitter = 1 + JITTER * noise(prior, generator).clamp(-3, 3)
    return (prior + 1).clamp(min=1.0) * jitter - 1


def total_concentration(spread: Tensor, variance: Tensor | None) -> Tensor:
    """a₀ of a Dirichlet or Beta, from Var x_k = m_k (1 - m_k) / (a₀ + 1)."""
    if variance is None:
        return torch.full_like(spread, NARROW**-2)
    return (spread / variance - 1).clamp(min=LEAST_CONCENTRATION, max=NARROWEST**-2)
