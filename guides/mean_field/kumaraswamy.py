"""Kumaraswamy variables on the unit interval, and Kumaraswamy sticks on the simplex.

Both have an elementary reparameterisation and stay close to the Beta or Dirichlet that conjugacy
would give, sparse ones included.

Their parameters are log a and the logit of the median: the spread and the location. In
(log a, log b) a first-order optimiser crawls (:meth:`vitools.distributions.Kumaraswamy.from_median`).
"""

import math

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Beta
from torch.distributions.constraints import Constraint

from vitools.distributions import Kumaraswamy, StickBreaking
from vitools.distributions.log_space import log_softplus, logit_from_loglog
from vitools.distributions.stick_breaking import dirichlet_sticks
from vitools.guides.family import GuideFamily, LatentSite, Parameter, is_simplex, is_unit_interval
from vitools.guides.mean_field.beta_start import beta_start, dirichlet_start

_LARGEST_LOG_B = 30.0  # from there on b (1 - h) is log 2


class KumaraswamyGuideFamily(GuideFamily):
    """K(a, b) elementwise; parameters of the shape of the value."""

    name = "kumaraswamy"

    def fits(self, support: Constraint) -> bool:
        return is_unit_interval(support)

    def start(self, site: LatentSite, init_scale: float | None) -> dict[str, Parameter]:
        near = Kumaraswamy.near(Beta(*beta_start(site, init_scale)))
        return _parameters(near, site.event_dim)

    def distribution(
        self, site: LatentSite, parameters: dict[str, Tensor]
    ) -> TorchDistributionMixin:
        return _kumaraswamy(parameters).to_event(site.event_dim)

    def units(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        return _units(parameters)


class StickKumaraswamyGuideFamily(GuideFamily):
    """Kumaraswamy sticks; parameters of the shape of the value, its last dim one shorter."""

    name = "stick_kumaraswamy"

    def fits(self, support: Constraint) -> bool:
        return is_simplex(support)

    def start(self, site: LatentSite, init_scale: float | None) -> dict[str, Parameter]:
        near = Kumaraswamy.near(dirichlet_sticks(dirichlet_start(site, init_scale)))
        return _parameters(near, site.event_dim)

    def distribution(
        self, site: LatentSite, parameters: dict[str, Tensor]
    ) -> TorchDistributionMixin:
        q = StickBreaking(_kumaraswamy(parameters), validate_args=False)
        return q.to_event(site.event_dim - 1)

    def units(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        return _units(parameters)


def _parameters(q: Kumaraswamy, event_dim: int) -> dict[str, Parameter]:
    return {
        "median_logit": Parameter(logit_from_loglog(q.loglog_median), event_dim),
        "log_a": Parameter(q.log_a, event_dim),
    }


def _kumaraswamy(parameters: dict[str, Tensor]) -> Kumaraswamy:
    loglog_median = log_softplus(-parameters["median_logit"])
    return Kumaraswamy.from_median(parameters["log_a"], loglog_median, validate_args=False)


def _units(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Standard deviation of logit v, by its slope in a normal quantile at the median m:

    d logit v / dΦ⁻¹(u) = 2 φ(0) h / (a b (1 - h) (1 - m)),   h = 2^(-1/b),
    """
    q = _kumaraswamy(parameters)
    b = q.log_b.clamp(max=_LARGEST_LOG_B).exp()
    rest = torch.sigmoid(-parameters["median_logit"])
    exponent = -math.log(2) / b
    slope = math.sqrt(2 / math.pi) * torch.exp(exponent - parameters["log_a"])
    return {"median_logit": (slope / (b * -torch.expm1(exponent) * rest)).clamp(max=1.0)}
