"""The softmax of independent normals on the simplex: fast, smooth, and far from the faces."""

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions.constraints import Constraint

from vitools.distributions import LogisticNormal
from vitools.guides.family import GuideFamily, LatentSite, Parameter, is_simplex
from vitools.guides.mean_field.beta_start import dirichlet_start


class LogisticNormalGuideFamily(GuideFamily):
    """K logits with a diagonal covariance; parameters ``loc`` and ``log_scale``, shape of the value.

    K logits rather than K - 1: no entry of the simplex is singled out, and the log-ratios are
    correlated as those of a Dirichlet are.
    """

    name = "logistic_normal"

    def fits(self, support: Constraint) -> bool:
        return is_simplex(support)

    def start(self, site: LatentSite, init_scale: float | None) -> dict[str, Parameter]:
        matched = LogisticNormal.from_dirichlet(dirichlet_start(site, init_scale))
        loc = matched.gaussian.mean - matched.gaussian.mean.mean(-1, keepdim=True)
        return {
            "loc": Parameter(loc, site.event_dim),
            "log_scale": Parameter(matched.gaussian.stddev.log(), site.event_dim),
        }

    def distribution(
        self, site: LatentSite, parameters: dict[str, Tensor]
    ) -> TorchDistributionMixin:
        log_scale = parameters["log_scale"]
        q = LogisticNormal(parameters["loc"], log_scale=log_scale, validate_args=False)
        return q.to_event(site.event_dim - 1)

    def units(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loc": torch.exp(parameters["log_scale"])}
