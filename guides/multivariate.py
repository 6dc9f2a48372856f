"""One Gaussian over all continuous latents together, on the reals: the posterior's correlations.

    x ~ N(m, Σ),  values = T(x);   Σ = S L Lᵀ S (full)   or   Σ = S (I + W Wᵀ) S (low rank)

with S = diag(s), L unit lower triangular, W of ``rank`` columns. The Gaussian approximation of
A. Kucukelbir et al. (2017), "Automatic differentiation variational inference", JMLR 18.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoContinuous
from pyro.nn.module import PyroParam
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.transforms import ReshapeTransform

from vitools.distributions.gaussian import (
    LowRankMultivariateNormal,
    MultivariateNormal,
    covariance,
)
from vitools.errors import ModelError, OptionError
from vitools.guides.base import PriorCentredGuide
from vitools.guides.family import LatentSite
from vitools.isolation import seeded

_DEFAULT_SCALE = 0.1  # of the prior's, as for mean-field normals


class AutoMultivariate(AutoContinuous, PriorCentredGuide):
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
        # Not AutoContinuous.__init__, which would wrap the model in its own initialisation.
        PriorCentredGuide.__init__(self, model, init_scale=init_scale, jitter=jitter, seed=seed)
        self.options["rank"] = rank

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        for name, frame in self._prototype_frames.items():
            if frame.full_size not in (None, frame.size):
                raise ModelError(
                    f"plate {name!r} is subsampled and has local latents, whose correlations one "
                    "Gaussian over the whole plate cannot follow: use AutoMeanField or Amortized"
                )
        init_scale = self.options["init_scale"] or _DEFAULT_SCALE
        scale = _flat(site.scale for site in self._latent_sites.values()) * init_scale
        self.loc = PyroParam(self._init_loc())
        self.log_scale = PyroParam(scale.log())
        if self.options["rank"] is None:
            self.correlation = PyroParam(torch.zeros(len(scale), len(scale)).to(scale))
            return
        shape = (len(scale), self.options["rank"])
        with seeded(self.options["seed"]):  # at 0 the gradient of the factor would vanish
            factor = 0.1 * torch.randn(shape, dtype=torch.float64).to(scale)
        self.factor = PyroParam(factor)

    def _init_loc(self) -> Tensor:
        return _flat(site.location for site in self._latent_sites.values())

    def get_posterior(self, *args: Any, **kwargs: Any) -> Any:
        """The Gaussian on the reals, sites one after another in the model's order."""
        scale = torch.exp(self.log_scale)
        if self.options["rank"] is None:
            unit = torch.eye(len(scale), dtype=scale.dtype, device=scale.device)
            tril = scale.unsqueeze(-1) * (self.correlation.tril(-1) + unit)
            return MultivariateNormal(self.loc, scale_tril=tril, validate_args=False)
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

    def _start_at(self, draws: Mapping[str, Tensor], sites: Mapping[str, LatentSite]) -> None:
        if set(sites) != set(self._latent_sites):
            missing = ", ".join(repr(name) for name in self._latent_sites if name not in sites)
            raise OptionError(f"the fit to start from has no draws of {missing}")
        order = self._latent_sites
        vectors = torch.cat(
            [order[n].to_reals(draws[n]).reshape(len(draws[n]), -1) for n in order], 1
        )
        self.loc.copy_(vectors.mean(0))
        centred = vectors - vectors.mean(0)
        scale = centred.square().mean(0).sqrt().clamp(min=torch.finfo(vectors.dtype).eps)
        standard = centred / scale
        # Fewer draws than latents leave a singular matrix; shrinking towards independence mends it.
        weight = min(0.5, vectors.shape[1] / vectors.shape[0])
        correlation = (1 - weight) * standard.mT @ standard / len(vectors)
        correlation.diagonal().add_(weight)
        if self.options["rank"] is None:
            self._take_full(scale, correlation)
        else:
            self._take_low_rank(scale, correlation, self.options["rank"])

    def _take_full(self, scale: Tensor, correlation: Tensor) -> None:
        tril = torch.linalg.cholesky(correlation) * scale.unsqueeze(-1)
        diagonal = tril.diagonal()
        self.log_scale.copy_(diagonal.log())
        self.correlation.copy_(tril / diagonal.unsqueeze(-1))

    def _take_low_rank(self, scale: Tensor, correlation: Tensor, rank: int) -> None:
        """Probabilistic principal components of the correlation matrix (Tipping & Bishop 1999)."""
        values, vectors = torch.linalg.eigh(correlation)
        rank = min(rank, len(values) - 1)
        noise = values[: len(values) - rank].mean()
        leading = slice(len(values) - rank, None)
        factor = vectors[:, leading] * (values[leading] / noise - 1).clamp(min=0.0).sqrt()
        self.log_scale.copy_((scale * noise.sqrt()).log())
        self.factor[:, :rank].copy_(factor)


def _flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
