"""Importance weights of a model with an encoder, image by image and draw by draw.

    log w_sn = log p(x_n | z_sn) + Σ_l [log p(z_l | …) - log q(z_l | …)],    z_sn ~ q(z | x_n)

one term for each stochastic layer l. Everything said of a trained model on held-out data is a
function of these: their mean is the ELBO, log-mean-exp over draws the importance-weighted bound
(Burda, Grosse & Salakhutdinov, ICLR 2016), and their tail says whether either can be believed.
They are read off the Pyro model and guide as stated, so they serve every such pair; scales
(minibatches, ``poutine.scale``) are left out: one image counts as one image.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import kl_divergence


class LogWeights(NamedTuple):
    """Terms of log p(x, z) - log q(z | x) at draws z ~ q(z | x), in nats.

    Attributes:
        log_likelihood: log p(x | z), all observed sites together, [num_samples, num_images].
        log_ratios: by latent site, log p(z_l | …) - log q(z_l | …), [num_samples, num_images].
        kls: by latent site, what to average over draws for E_q[log q(z_l) - log p(z_l)],
            [num_samples, num_images]: KL(q(z_l | …) ‖ p(z_l | …)) where that has a closed form
            (less noise, and none where nothing random stands above the layer), else -log_ratios.
    """

    log_likelihood: Tensor
    log_ratios: dict[str, Tensor]
    kls: dict[str, Tensor]

    @property
    def total(self) -> Tensor:
        """log w = log p(x, z) - log q(z | x), [num_samples, num_images]."""
        return self.log_likelihood + sum(self.log_ratios.values())

    @property
    def elbo(self) -> Tensor:
        """log p(x | z) - Σ_l kls, whose mean over draws is the ELBO, [num_samples, num_images]."""
        return self.log_likelihood - sum(self.kls.values())


@torch.no_grad()
def log_weights(
    model: Callable[..., Any], guide: Callable[..., Any], *data: Any, num_samples: int
) -> LogWeights:
    """The terms at ``num_samples`` draws for every row of ``data``, the arguments of the model.

    Model and guide state one plate, at dim -1, with all their sites in it. Draws come from torch's
    global generator: call it under :func:`vitools.isolation.seeded`.
    """
    with pyro.plate("draws", num_samples, dim=-2):
        with _AsStated() as q:
            guide_run = poutine.trace(guide).get_trace(*data)
        with _AsStated() as p:
            model_run = poutine.trace(poutine.replay(model, trace=guide_run)).get_trace(*data)
    drawn, stated = _sample_sites(guide_run), _sample_sites(model_run)
    observed = [name for name, site in stated.items() if site["is_observed"]]
    latents = [name for name in stated if name in drawn]
    likelihoods = [_log_density(stated[name]) for name in observed]
    log_likelihood = torch.stack(torch.broadcast_tensors(*likelihoods)).sum(0)
    log_ratios, kls = {}, {}
    for i, name in enumerate(latents):
        log_ratio = _log_density(stated[name]) - _log_density(drawn[name])
        log_ratios[name] = log_ratio.expand_as(log_likelihood)
        # E_q of log q(z_l) - log p(z_l) given what stands above z_l is a KL only where guide and
        # model draw it there; a layer whose prior depends on what is drawn later has none.
        earlier = list(drawn)[: list(drawn).index(name)]
        kl = _closed_form_kl(q[name], p[name]) if set(latents[:i]) <= set(earlier) else None
        kls[name] = -log_ratios[name] if kl is None else kl.expand_as(log_likelihood)
    return LogWeights(log_likelihood, log_ratios, kls)


def _sample_sites(run: Trace) -> dict[str, Any]:
    return {
        name: site
        for name, site in run.nodes.items()
        if site["type"] == "sample" and not poutine.util.site_is_subsample(site)
    }


def _log_density(site: dict[str, Any]) -> Tensor:
    return site["fn"].log_prob(site["value"])


class _AsStated(Messenger):
    """The distributions of a run as they were before the plate of draws repeated them.

    A KL that is the same for every draw is computed once, and a quadrature may stand behind it.
    """

    def __enter__(self) -> dict[str, Any]:
        super().__enter__()
        self.found: dict[str, Any] = {}
        return self.found

    def _pyro_sample(self, message: Any) -> None:
        self.found[message["name"]] = message["fn"]


def _closed_form_kl(q: Any, p: Any) -> Tensor | None:
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None
