"""The Dirichlet on the simplex and the Beta on the unit interval: the families of conjugate models."""

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions.constraints import Constraint

from vitools.distributions import Beta, Dirichlet
from vitools.guides.beta_start import beta_start, dirichlet_start
from vitools.guides.family import Family, LatentSite, Parameter, is_simplex, is_unit_interval


class DirichletFamily(Family):
    """Dirichlet(α); parameter ``log_concentration`` of the shape of the value."""

    name = "dirichlet"

    def fits(self, support: Constraint) -> bool:
        return is_simplex(support)

    def start(self, site: LatentSite, init_scale: float | None) -> dict[str, Parameter]:
        concentration = dirichlet_start(site, init_scale)
        return {"log_concentration": Parameter(concentration.log(), site.event_dim)}

    def distribution(
        self, site: LatentSite, parameters: dict[str, Tensor]
    ) -> TorchDistributionMixin:
        concentration = torch.exp(parameters["log_concentration"])
        q = Dirichlet(concentration, validate_args=False)
        return q.to_event(site.event_dim - 1)


class BetaFamily(Family):
    """Beta(α, β) elementwise; parameters ``log_alpha`` and ``log_beta`` of the shape of the value."""

    name = "beta"

    def fits(self, support: Constraint) -> bool:
        return is_unit_interval(support)

    def start(self, site: LatentSite, init_scale: float | None) -> dict[str, Parameter]:
        alpha, beta = beta_start(site, init_scale)
        return {
            "log_alpha": Parameter(alpha.log(), site.event_dim),
            "log_beta": Parameter(beta.log(), site.event_dim),
        }

    def distribution(
        self, site: LatentSite, parameters: dict[str, Tensor]
    ) -> TorchDistributionMixin:
        alpha, beta = torch.exp(parameters["log_alpha"]), torch.exp(parameters["log_beta"])
        return Beta(alpha, beta, validate_args=False).to_event(site.event_dim)
