"""What guides over all continuous latents together share: the vector on the reals, and its start."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.util import sum_rightmost
from pyro.infer.autoguide import AutoContinuous
from torch import Tensor

from vitools.errors import ModelError, OptionError
from vitools.guides.base import PriorCentredGuide
from vitools.guides.family import LatentSite
from vitools.guides.starts.mode_search import Region

_DEFAULT_SCALE = 0.1  # of the prior's, as for mean-field normals


class JointGuide(AutoContinuous, PriorCentredGuide):
    """One q of the vector that holds every site's unconstrained value, in the model's order.

    A subclass has ``get_posterior``, and the two methods below for its start.
    """

    def __init__(
        self,
        model: Callable,
        *,
        init_scale: float | None = None,
        jitter: float = 0.1,
        seed: int = 0,
    ):
        # Not AutoContinuous.__init__, which would wrap the model in its own initialisation.
        PriorCentredGuide.__init__(self, model, init_scale=init_scale, jitter=jitter, seed=seed)

    @abstractmethod
    def _register(self, loc: Tensor, scale: Tensor) -> None:
        """Make the parameters of q, started at independent normals, ``[D]`` each."""

    @abstractmethod
    def _take(self, loc: Tensor, tril: Tensor) -> None:
        """Move to the Gaussian of mean ``[D]`` whose covariance has this Cholesky factor ``[D, D]``."""

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        # Not AutoContinuous._setup_prototype, which knows no map onto matrices.
        PriorCentredGuide._setup_prototype(self, *args, **kwargs)
        self.latent_dim = sum(site.location.numel() for site in self._latent_sites.values())
        for name, frame in self._prototype_frames.items():
            if frame.full_size not in (None, frame.size):
                raise ModelError(
                    f"plate {name!r} is subsampled and has local latents, whose correlations one "
                    f"{type(self).__name__} over the whole plate cannot follow: use AutoMeanField "
                    "or Amortized"
                )
        init_scale = self.options["init_scale"] or _DEFAULT_SCALE
        scale = _flat(site.scale for site in self._latent_sites.values())
        self._register(self._init_loc(), scale * init_scale)

    def _init_loc(self) -> Tensor:
        return _flat(site.location for site in self._latent_sites.values())

    def _unpack_latent(self, latent: Tensor) -> Iterator[tuple[dict[str, Any], Tensor]]:
        """Each site's node and its stretch of ``[…, D]``; Pyro's own knows no map onto matrices."""
        begin = 0
        for name, site in self._latent_sites.items():
            end = begin + site.location.numel()
            batch = latent.shape[:-1] + (1,) * site.unconstrained_event_dim
            shape = torch.broadcast_shapes(site.location.shape, batch)
            yield self.prototype_trace.nodes[name], latent[..., begin:end].view(shape)
            begin = end

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample every site; returns ``{site: value}``. Takes the model's arguments."""
        if self.prototype_trace is None:
            self._setup_prototype(*args, **kwargs)
        vector = self.sample_latent(*args, **kwargs)
        plates = self._create_plates(*args, **kwargs)
        result = {}
        for node, unconstrained in self._unpack_latent(vector):
            name, event_dim = node["name"], node["fn"].event_dim
            transform = self._latent_sites[name].transform
            value = transform(unconstrained)
            log_det = transform.log_abs_det_jacobian(unconstrained, value)
            log_det = sum_rightmost(log_det, log_det.dim() - value.dim() + event_dim)
            with ExitStack() as stack:
                for frame in node["cond_indep_stack"]:
                    stack.enter_context(plates[frame.name])
                delta = dist.Delta(value, log_density=-log_det, event_dim=event_dim)
                result[name] = pyro.sample(name, delta)
        return result

    def _start_at(self, draws: Mapping[str, Tensor], sites: Mapping[str, LatentSite]) -> None:
        order = self._latent_sites
        if set(sites) != set(order):
            missing = ", ".join(repr(name) for name in order if name not in sites)
            raise OptionError(f"the fit to start from has no draws of {missing}")
        vectors = torch.cat(
            [order[n].to_reals(draws[n]).reshape(len(draws[n]), -1) for n in order], 1
        )
        centred = vectors - vectors.mean(0)
        scale = centred.square().mean(0).sqrt().clamp(min=torch.finfo(vectors.dtype).eps)
        standard = centred / scale
        # Too few draws leave a singular matrix; shrinking towards independence mends it. With
        # enough of them it would only blunt the ridges.
        weight = min(0.5, max(1e-6, vectors.shape[1] / vectors.shape[0] - 0.1))
        correlation = (1 - weight) * standard.mT @ standard / len(vectors)
        correlation.diagonal().add_(weight)
        self._take(vectors.mean(0), torch.linalg.cholesky(correlation) * scale.unsqueeze(-1))

    @torch.no_grad()
    def _start_in(self, region: Region, seed: int) -> None:
        self._take(_flat(region.location.values()), region.scale_tril)


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
