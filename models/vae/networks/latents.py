"""The latent space of a VAE: a prior, the family of the encoder's q, and what the network must give.

    name                z lives in         p(z)                      q(z | x)             KL(q ‖ p)
    normal              ℝ^K                Normal(0, I)              diagonal normal      exact
    kumaraswamy         (0, 1)^K           uniform                   K(a, b) a coordinate quadrature
    logistic_normal     simplex of K       matched to Dirichlet(α)   softmax of a normal  exact
    dirichlet           simplex of K       Dirichlet(α)              Dirichlet            exact
    stick_kumaraswamy   simplex of K       Dirichlet(α)              Kumaraswamy sticks   quadrature
    mv_kumaraswamy      simplex of K       Dirichlet(α)              sticks, any order    Monte Carlo

All draws are reparameterised, in the coordinates in which :mod:`vitools.guides` fits the same
families. On the cube and the simplex z has no rotations to hide in; a simplex with small α makes
an image a mixture of few things.

References: D. P. Kingma, M. Welling, ICLR 2014; E. Nalisnick, P. Smyth, "Stick-breaking
variational autoencoders", ICLR 2017; A. Srivastava, C. Sutton, "Autoencoding variational
inference for topic models", ICLR 2017; M. Figurnov, S. Mohamed, A. Mnih, "Implicit
reparameterization gradients", NeurIPS 2018; A. Stirn, T. Jebara, D. Knowles, "A new distribution
on the simplex with auto-encoding applications", NeurIPS 2019.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.distributions import (
    Beta,
    Dirichlet,
    Kumaraswamy,
    LogisticNormal,
    MVKumaraswamy,
    StickBreaking,
)
from vitools.distributions.gaussian import Normal
from vitools.distributions.log_space import log_softplus
from vitools.errors import OptionError


@dataclass(frozen=True)
class LatentSpace:
    """One row of the table.

    Attributes:
        num_outputs: how many numbers the encoder gives for z of dimension K.
        prior: p(z) from α, a tensor [K] (1 for each coordinate unless another is asked for).
        posterior: q(z | x) from the encoder's outputs [..., num_outputs(K)].
        centre: a point in the middle of q, [..., K], to stand for an image in a picture.
        smallest: K.
    """

    num_outputs: Callable[[int], int]
    prior: Callable[[Tensor], Any]
    posterior: Callable[[Tensor], Any]
    centre: Callable[[Any], Tensor]
    smallest: int = 1


def _normal(outputs: Tensor) -> Any:
    mean, log_sd = outputs.chunk(2, dim=-1)
    return Normal.from_log_scale(mean, log_sd).to_event(1)


def _kumaraswamy_by_median(outputs: Tensor) -> Kumaraswamy:
    median_logit, log_a = outputs.chunk(2, dim=-1)
    return Kumaraswamy.from_median(log_a, log_softplus(-median_logit), validate_args=False)


def _logistic_normal(outputs: Tensor) -> LogisticNormal:
    location, log_sd = outputs.chunk(2, dim=-1)
    return LogisticNormal(location, log_scale=log_sd, validate_args=False)


def _dirichlet(outputs: Tensor) -> Dirichlet:
    """α of the mean's logits and, last, its log total over K: 0 is the uniform Dirichlet."""
    logits, log_share = outputs[..., :-1], outputs[..., -1:]
    log_mean = torch.log_softmax(logits, -1)
    return Dirichlet((log_mean + log_share).exp() * logits.shape[-1], validate_args=False)


LATENTS: dict[str, LatentSpace] = {
    "normal": LatentSpace(
        lambda size: 2 * size,
        lambda alpha: dist.Normal(torch.zeros_like(alpha), torch.ones_like(alpha)).to_event(1),
        _normal,
        lambda q: q.mean,
    ),
    "kumaraswamy": LatentSpace(
        lambda size: 2 * size,
        lambda alpha: Beta(alpha, alpha, validate_args=False).to_event(1),
        lambda outputs: _kumaraswamy_by_median(outputs).to_event(1),
        lambda q: q.mean,
    ),
    "logistic_normal": LatentSpace(
        lambda size: 2 * size,
        LogisticNormal.from_dirichlet,
        _logistic_normal,
        lambda q: torch.softmax(q.gaussian.mean, -1),
        smallest=2,
    ),
    "dirichlet": LatentSpace(
        lambda size: size + 1,
        Dirichlet,
        _dirichlet,
        lambda q: q.mean,
        smallest=2,
    ),
    "stick_kumaraswamy": LatentSpace(
        lambda size: 2 * (size - 1),
        Dirichlet,
        lambda outputs: StickBreaking(_kumaraswamy_by_median(outputs), validate_args=False),
        lambda q: q.mean,
        smallest=2,
    ),
    "mv_kumaraswamy": LatentSpace(
        lambda size: size,
        Dirichlet,
        lambda outputs: MVKumaraswamy(outputs, validate_args=False),
        lambda q: torch.softmax(q.log_concentration, -1),
        smallest=2,
    ),
}


def find_latents(name: str) -> LatentSpace:
    """The row of a name, or an error that lists them."""
    if name not in LATENTS:
        raise OptionError(f"latents: expected one of {list(LATENTS)}, got {name!r}")
    return LATENTS[name]
