"""What a trained model's latents are used for: active units, and information on the image.

A coordinate of z whose mean does not move with the image says nothing of it. It is counted as
active where

    Var_x(E_q(z|x)[z_k]) > 0.01 Var_p(z_k)

(Burda, Grosse & Salakhutdinov, ICLR 2016, whose priors have unit variance). How much all of them
say together is the information of x and z under q(z | x) and the data, one of the two parts of the
ELBO's KL (Hoffman & Johnson, "ELBO surgery", NIPS workshop on approximate inference, 2016):

    mean_n KL(q(z | x_n) ‖ p(z)) = I_q(x; z) + KL(q(z) ‖ p(z)),    q(z) = (1/N) Σ_n q(z | x_n)

the price of what the latents say, and the misfit of their aggregate to the prior, from which new
images are drawn.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from vitools.errors import DataError
from vitools.isolation import seeded
from vitools.models.vae.base import DeepModel
from vitools.models.vae.evaluation.evaluation import MOST_PAIRS, Average, average

ACTIVE = 0.01
"""A unit is active from this share of the prior's variance on."""

NUM_DRAWS = 64
"""At which the means of a layer that depends on layers below it are averaged."""


class LatentInformation(NamedTuple):
    """The two parts of the mean KL, in nats.

    :param value: I_q(x; z), of all latents together.
    :param marginal_kl: KL(q(z) ‖ p(z)).
    :param cap: log N, which the first cannot exceed for N images. Where it comes near, more images
        would have told of more: it is then only a lower bound of what z says of images at large.
    """

    value: Average
    marginal_kl: Average
    cap: float


@torch.no_grad()
def unit_variances(model: DeepModel, *data: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """By latent site, Var_x(E_q[z_k]) / Var_p(z_k) of each coordinate, [latent_dim].

    Where the mean given x is itself one over draws (of layers below, or of z where q has no mean in
    closed form), what their noise adds to the variance is taken off again. The prior's variance is
    that of draws from the model.
    """
    _check(model, data)
    num_images = MOST_PAIRS // NUM_DRAWS
    means: dict[str, list[Tensor]] = {}
    noise: dict[str, list[Tensor]] = {}
    with pyro.get_param_store().scope(), seeded(seed), pyro.plate("draws", NUM_DRAWS, dim=-2):
        for start in range(0, len(data[0]), num_images):
            rows = [part[start : start + num_images] for part in data]
            run = poutine.trace(model.guide).get_trace(*rows)
            for name in _latents(run):
                draws = _mean(run.nodes[name])
                means.setdefault(name, []).append(draws.mean(0))
                noise.setdefault(name, []).append(draws.var(0) / NUM_DRAWS)
        prior = poutine.trace(model.model).get_trace(*(part[:num_images] for part in data))
    return {
        name: (torch.cat(means[name]).var(0) - torch.cat(noise[name]).mean(0))
        / prior.nodes[name]["value"].flatten(0, 1).var(0)
        for name in means
    }


def active_units(model: DeepModel, *data: Tensor, seed: int = 0) -> dict[str, int]:
    """By latent site, how many coordinates move with the image; data as ``model.model`` takes it."""
    variances = unit_variances(model, *data, seed=seed)
    return {name: int((variance > ACTIVE).sum()) for name, variance in variances.items()}


@torch.no_grad()
def latent_information(model: DeepModel, *data: Tensor, seed: int = 0) -> LatentInformation:
    """I_q(x; z) and KL(q(z) ‖ p(z)), by one draw z_n ~ q(z | x_n) for each image:

        I ≈ mean_n [log q(z_n | x_n) - log (1/N) Σ_m q(z_n | x_m)]

    It takes N² densities of z. The standard errors are those of a mean over images.
    """
    _check(model, data)
    num_images = len(data[0])
    with pyro.get_param_store().scope(), seeded(seed):
        drawn = poutine.trace(model.guide).get_trace(*data)
        stated = poutine.trace(poutine.replay(model.model, drawn)).get_trace(*data)
        values = {name: drawn.nodes[name]["value"] for name in _latents(drawn)}
        rows = max(1, MOST_PAIRS // num_images)
        log_aggregate = torch.cat(
            [
                _log_aggregate(model, data, {k: v[start : start + rows] for k, v in values.items()})
                for start in range(0, num_images, rows)
            ]
        )
    return LatentInformation(
        average(_log_density(drawn, values) - log_aggregate),
        average(log_aggregate - _log_density(stated, values)),
        math.log(num_images),
    )


def _log_aggregate(model: DeepModel, data: tuple[Tensor, ...], values: dict[str, Tensor]) -> Tensor:
    """log (1/N) Σ_m q(z | x_m) at latents {site: [n, latent_dim]}: [n]."""
    at = {name: value[:, None] for name, value in values.items()}  # the same for every image
    with pyro.plate("draws", len(next(iter(values.values()))), dim=-2):
        run = poutine.trace(poutine.condition(model.guide, at)).get_trace(*data)
    return _log_density(run, values).logsumexp(-1) - math.log(len(data[0]))


def _log_density(run: Trace, names: Iterable[str]) -> Tensor:
    """log density of the latents of a run, summed over layers.

    Draws are scored as any values are, not by what their distribution remembers of them: where
    q is narrow and z rounded, q(z_n | x_n) must be what it is among the N that it is compared with.
    """
    sites = [run.nodes[name] for name in names]
    terms = [site["fn"].log_prob(site["value"].clone()) for site in sites]
    return torch.stack(torch.broadcast_tensors(*terms)).sum(0)


def _latents(guided: Trace) -> list[str]:
    return [
        name
        for name, site in guided.nodes.items()
        if site["type"] == "sample" and not poutine.util.site_is_subsample(site)
    ]


def _mean(site: dict[str, Any]) -> Tensor:
    """E_q[z] given what stands above, [num_samples, num_images, latent_dim]; else the draws."""
    try:
        return site["fn"].mean.expand(site["value"].shape)
    except NotImplementedError:
        return site["value"]


def _check(model: DeepModel, data: tuple[Tensor, ...]) -> None:
    model.check(data[0])
    if len(data[0]) < 2:
        raise DataError(f"{model.rows}: expected at least 2, to see what differs; got 1")
