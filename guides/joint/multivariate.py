"""One Gaussian over all continuous latents together, on the reals: the posterior's correlations.

    x ~ N(m, Σ),  values = T(x);   Σ = A Aᵀ (full)   or   Σ = S (I + W Wᵀ) S (low rank)

with A as in :mod:`vitools.guides.joint.affine`, S = diag(s) and W of ``rank`` columns. The Gaussian
approximation of A. Kucukelbir et al. (2017), "Automatic differentiation variational inference",
JMLR 18.
"""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.nn.module import PyroParam
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.transforms import ReshapeTransform

from vitools.distributions.gaussian import (
    LowRankMultivariateNormal,
    MultivariateNormal,
    covariance,
)
from vitools.errors import OptionError
from vitools.guides.joint.affine import Affine
from vitools.guides.joint.joint import JointGuide
from vitools.isolation import seeded


class AutoMultivariate(JointGuide):
    """A Gaussian over every continuous latent of ``model``, mapped from the reals.

    D latent numbers take D² / 2 parameters and D² work a draw; with ``rank`` r, D r of each.
    It cannot follow minibatches of a plate with local latents.

    Args:
        model: a Pyro model.
        rank: number of factors of a low-rank covariance; a full one where ``None``.
        init_scale: starting standard deviation as a multiple of the prior's (default: a tenth).
        jitter, seed: as in :class:`vitools.guides.AutoMeanField`.

    >>> import pyro, torch
    >>> def line(x, y):
    ...     slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    ...     level = pyro.sample("level", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("rows", len(x)):
    ...         pyro.sample("y", dist.Normal(level + slope * x, 1.0), obs=y)
    >>> guide = AutoMultivariate(line)
    >>> with pyro.get_param_store().scope():
    ...     value = guide(torch.arange(3.0), torch.ones(3))
    >>> guide.covariance().shape
    torch.Size([2, 2])
    """

    def __init__(
        self,
        model: Callable,
        rank: int | None = None,
        *,
        init_scale: float | None = None,
        jitter: float = 0.1,
        seed: int = 0,
    ):
        if rank is not None and rank < 1:
            raise OptionError(f"rank: expected a positive number or None, got {rank}")
        super().__init__(model, init_scale=init_scale, jitter=jitter, seed=seed)
        self.options["rank"] = rank

    def _register(self, loc: Tensor, scale: Tensor) -> None:
        if self.options["rank"] is None:
            self.affine = Affine(loc, scale)
            return
        self.loc = PyroParam(loc)
        self.log_scale = PyroParam(scale.log())
        shape = (len(scale), self.options["rank"])
        with seeded(self.options["seed"]):  # at 0 the gradient of the factor would vanish
            factor = 0.1 * torch.randn(shape, dtype=torch.float64).to(scale)
        self.factor = PyroParam(factor)

    def get_posterior(self, *args: Any, **kwargs: Any) -> Any:
        """The Gaussian on the reals, sites one after another in the model's order."""
        if self.options["rank"] is None:
            location, tril = self.affine.location(), self.affine.tril()
            return MultivariateNormal(location, scale_tril=tril, validate_args=False)
        scale = torch.exp(self.log_scale)
        factor = scale.unsqueeze(-1) * self.factor
        return LowRankMultivariateNormal(self.loc, factor, scale.square(), validate_args=False)

    def covariance(self) -> Tensor:
        """Σ, ``[D, D]``, on the reals."""
        self._require_set_up()
        return covariance(self.get_posterior()).detach()

    def marginal(self, site: str) -> Distribution:
        """q of one site, all of it one event; no gradient flows."""
        self._require_site(site)
        begin = 0
        for name, latent in self._latent_sites.items():
            end = begin + latent.location.numel()
            if name == site:
                break
            begin = end
        joint = self.get_posterior()
        block = covariance(joint).detach()[begin:end, begin:end]
        normal = MultivariateNormal(joint.loc.detach()[begin:end], block, validate_args=False)
        latent = self._latent_sites[site]
        shape = ReshapeTransform(torch.Size([end - begin]), latent.location.shape)
        return dist.TransformedDistribution(normal, [shape, latent.transform], validate_args=False)

    def units(self) -> dict[str, Tensor]:
        if self.options["rank"] is None:
            return {}
        return {"loc": torch.exp(self.log_scale.detach())}

    def _take(self, loc: Tensor, tril: Tensor) -> None:
        if self.options["rank"] is None:
            self.affine.start_at(loc, tril)
        else:
            self._take_low_rank(loc, tril @ tril.mT, self.options["rank"])

    def _take_low_rank(self, loc: Tensor, covariance: Tensor, rank: int) -> None:
        """Probabilistic principal components of the correlation matrix (Tipping & Bishop 1999)."""
        scale = covariance.diagonal().sqrt()
        correlation = covariance / scale.outer(scale)
        values, vectors = torch.linalg.eigh(correlation)
        rank = min(rank, len(values) - 1)
        noise = values[: len(values) - rank].mean()
        leading = slice(len(values) - rank, None)
        factor = vectors[:, leading] * (values[leading] / noise - 1).clamp(min=0.0).sqrt()
        self.loc.copy_(loc)
        self.log_scale.copy_((scale * noise.sqrt()).log())
        self.factor[:, :rank].copy_(factor)
