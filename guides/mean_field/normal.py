"""The transformed normal: x ~ N(μ, σ²) elementwise, value = T(x), T from the reals onto the support.

On the real line T is the identity and q is the normal itself, with its closed-form KLs; on the
positive half-line q is a log-normal, on (0, 1) a logit-normal.
"""

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from vitools.distributions.gaussian import Normal
from vitools.guides.family import GuideFamily, LatentSite, Parameter
from vitools.supports import base_support

_DEFAULT_SCALE = 0.1  # of the prior's: priors are wide, and draws from far out swamp the gradient


class NormalGuideFamily(GuideFamily):
    """Parameters ``loc`` and ``log_scale``, of the unconstrained shape."""

    name = "normal"

    def fits(self, support: Constraint) -> bool:
        return not support.is_discrete

    def start(self, site: LatentSite, init_scale: float | None) -> dict[str, Parameter]:
        scale = site.scale * (_DEFAULT_SCALE if init_scale is None else init_scale)
        event_dim = site.unconstrained_event_dim
        return {
            "loc": Parameter(site.location, event_dim),
            "log_scale": Parameter(scale.log(), event_dim),
        }

    def distribution(
        self, site: LatentSite, parameters: dict[str, Tensor]
    ) -> TorchDistributionMixin:
        normal = Normal.from_log_scale(parameters["loc"], parameters["log_scale"])
        base = normal.to_event(site.unconstrained_event_dim)
        if base_support(site.support) is constraints.real:
            return base
        return dist.TransformedDistribution(base, [site.transform], validate_args=False)

    def units(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loc": torch.exp(parameters["log_scale"])}
