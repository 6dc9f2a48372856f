"""The multivariate Kumaraswamy on the simplex: exchangeable sticks, K parameters."""

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions.constraints import Constraint

from vitools.distributions import MVKumaraswamy
from vitools.guides.beta_start import dirichlet_start
from vitools.guides.family import Family, LatentSite, Parameter, is_simplex


class MVKumaraswamyFamily(Family):
    """Parameter ``log_concentration`` of the shape of the value.

    Its concentrations are those of Dirichlets only when small (K(50, 50) is 59 nats from
    Beta(50, 50)), so it suits sparse and moderate simplices. For K > 6 the ELBO that a guide
    with it reports is a lower bound of its own ELBO.
    """

    name = "mv_kumaraswamy"

    def fits(self, support: Constraint) -> bool:
        return is_simplex(support)

    def start(self, site: LatentSite, init_scale: float | None) -> dict[str, Parameter]:
        concentration = dirichlet_start(site, init_scale)
        return {"log_concentration": Parameter(concentration.log(), site.event_dim)}

    def distribution(
        self, site: LatentSite, parameters: dict[str, Tensor]
    ) -> TorchDistributionMixin:
        q = MVKumaraswamy(parameters["log_concentration"], validate_args=False)
        return q.to_event(site.event_dim - 1)
