"""The problems whose steps of ``svi`` are timed: small and large, with discrete latents, an autoencoder."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch

from vitools.guides import AutoKumaraswamy, AutoLogisticNormal
from vitools.models import two_dice
from vitools.models.vae import VAE


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def regression(features, target):
    precision = pyro.sample("precision", dist.Gamma(1.0, 1.0))
    with pyro.plate("columns", features.shape[1]):
        weights = pyro.sample("weights", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(target)):
        pyro.sample("y", dist.Normal(features @ weights, precision.rsqrt()), obs=target)


def logistic(features, target):
    with pyro.plate("columns", features.shape[1]):
        weights = pyro.sample("weights", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(target)):
        pyro.sample("y", dist.Bernoulli(logits=features @ weights), obs=target)


def schools(effects, errors):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(effects)):
        theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * theta, errors), obs=effects)


def _auto_normal(model):
    return pyro.infer.autoguide.AutoNormal(model, init_scale=0.1)


def problems() -> dict[str, tuple[Any, tuple[Any, ...], Callable[[Any], Any], bool]]:
    """Name → model, arguments, guide maker, whether discrete latents are summed out."""
    x, wide = draws(1000, 10), draws(100_000, 50, seed=1)
    y = x @ draws(10, seed=2) + 0.5 * draws(1000, seed=3)
    z = (wide @ draws(50, seed=4) / 7 + draws(100_000, seed=5) > 0).float()
    effects = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    errors = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    rolls = two_dice.simulate(num_rows=500, seed=0).rolls
    images = (torch.rand(10_000, 784, generator=torch.Generator().manual_seed(6)) < 0.2).float()
    vae = VAE(784, 50, hidden=(400,), seed=0)
    return {
        "regression": (regression, (x, y), _auto_normal, False),
        "schools": (schools, (effects, errors), _auto_normal, False),
        "logistic": (logistic, (wide, z), _auto_normal, False),
        "dice-kumaraswamy": (two_dice.model, (rolls,), AutoKumaraswamy, True),
        "dice-logistic-normal": (two_dice.model, (rolls,), AutoLogisticNormal, True),
        "vae": (vae.model, (images, 128), lambda model: vae.guide, False),
    }
