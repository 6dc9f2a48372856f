"""The Dirichlet on the simplex and the Beta on the unit interval: the families of conjugate models.

Their parameters are the mean, as logits, and the log of the total concentration α₀:

    α = α₀ softmax(logits)

In log α itself location and spread are entangled: from 10⁵ rows on, a first-order optimiser would
stop long before the concentrations have grown.
"""

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions.constraints import Constraint

from vitools.distributions import Beta, Dirichlet
from vitools.distributions.log_space import log_and_log1m
from vitools.guides.family import GuideFamily, LatentSite, Parameter, is_simplex, is_unit_interval
from vitools.guides.mean_field.beta_start import beta_start, dirichlet_start


class DirichletGuideFamily(GuideFamily):
    """Dirichlet(α); parameters ``logits`` of the shape of the value and ``log_total``, ``[…, 1]``."""

    name = "dirichlet"

    def fits(self, support: Constraint) -> bool:
        return is_simplex(support)

    def start(self, site: LatentSite, init_scale: float | None) -> dict[str, Parameter]:
        concentration = dirichlet_start(site, init_scale)
        logits = concentration.log()
        return {
            "logits": Parameter(logits - logits.mean(-1, keepdim=True), site.event_dim),
            "log_total": Parameter(concentration.sum(-1, keepdim=True).log(), site.event_dim),
        }

    def distribution(
        self, site: LatentSite, parameters: dict[str, Tensor]
    ) -> TorchDistributionMixin:
        concentration = torch.exp(
            parameters["log_total"] + torch.log_softmax(parameters["logits"], -1)
        )
        q = Dirichlet(concentration, validate_args=False)
        return q.to_event(site.event_dim - 1)

    def units(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        log_mean = torch.log_softmax(parameters["logits"], -1)
        return {"logits": _sd_of_log(parameters["log_total"] + log_mean).clamp(max=1.0)}


class BetaGuideFamily(GuideFamily):
    """Beta(α, β) elementwise; ``mean_logit`` and ``log_total`` of the shape of the value."""

    name = "beta"

    def fits(self, support: Constraint) -> bool:
        return is_unit_interval(support)

    def start(self, site: LatentSite, init_scale: float | None) -> dict[str, Parameter]:
        alpha, beta = beta_start(site, init_scale)
        return {
            "mean_logit": Parameter(alpha.log() - beta.log(), site.event_dim),
            "log_total": Parameter((alpha + beta).log(), site.event_dim),
        }

    def distribution(
        self, site: LatentSite, parameters: dict[str, Tensor]
    ) -> TorchDistributionMixin:
        log_mean, log_rest = log_and_log1m(parameters["mean_logit"])
        alpha = torch.exp(parameters["log_total"] + log_mean)
        beta = torch.exp(parameters["log_total"] + log_rest)
        return Beta(alpha, beta, validate_args=False).to_event(site.event_dim)

    def units(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        log_mean, log_rest = log_and_log1m(parameters["mean_logit"])
        sds = (_sd_of_log(parameters["log_total"] + share) for share in (log_mean, log_rest))
        return {"mean_logit": torch.hypot(*sds).clamp(max=1.0)}


def _sd_of_log(log_alpha: Tensor) -> Tensor:
    """That of log g, g ~ Gamma(α, 1): √ψ'(α)."""
    return torch.special.polygamma(1, log_alpha.exp()).sqrt()
