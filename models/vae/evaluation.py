"""How good a trained VAE is: the two terms of its ELBO, and a tighter, importance-weighted bound.

    log p(x) ≥ E_q(z|x)[log p(x | z)] - KL(q(z | x) ‖ p(z))                     (the ELBO)
    log p(x) ≥ E log (1/S) Σ_s p(x, z_s) / q(z_s | x),   z_s ~ q(z | x)         (→ log p(x))

The KL is exact and the expectation is a Monte Carlo mean, returned with its standard error. All
values are per image, in nats. Reference for the second: Y. Burda, R. Grosse, R. Salakhutdinov,
"Importance weighted autoencoders", ICLR 2016.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vitools.errors import OptionError
from vitools.isolation import seeded
from vitools.models.vae.model import VAE


class ElboTerms(NamedTuple):
    """Per image: E_q[log p(x | z)] with its standard error, and KL(q(z | x) ‖ p(z)), exact."""

    reconstruction: Tensor
    kl: Tensor
    standard_error: Tensor

    @property
    def elbo(self) -> Tensor:
        """Reconstruction less KL, per image."""
        return self.reconstruction - self.kl


class ImportanceBound(NamedTuple):
    """Per image: the importance-weighted bound on log p(x), with its standard error."""

    value: Tensor
    standard_error: Tensor


def closed_form_kl(mean: Tensor, sd: Tensor) -> Tensor:
    """KL(Normal(m, diag s²) ‖ Normal(0, I)) = ½ Σ_k (m_k² + s_k² - 1 - 2 log s_k).

    :param mean: m [..., latent_dim].
    :param sd: s [..., latent_dim], positive.

    >>> closed_form_kl(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]))
    tensor(0.5000)
    """
    return 0.5 * (mean.square() + sd.square() - 1 - 2 * sd.log()).sum(-1)


@torch.no_grad()
def elbo_terms(vae: VAE, images: Tensor, num_samples: int = 64, seed: int = 0) -> ElboTerms:
    """The ELBO of each image [num_images, num_pixels], term by term; each result is [num_images]."""
    _check_num_samples(num_samples)
    posterior = vae.encoder(vae.check(images))
    with seeded(seed):
        draws = torch.stack(
            [vae.decoder(posterior.sample()).log_prob(images) for _ in range(num_samples)]
        )
    return ElboTerms(
        reconstruction=draws.mean(0),
        kl=closed_form_kl(posterior.mean, posterior.stddev),
        standard_error=draws.std(0) / math.sqrt(num_samples),
    )


@torch.no_grad()
def importance_weighted_log_likelihood(
    vae: VAE, images: Tensor, num_samples: int = 500, seed: int = 0
) -> ImportanceBound:
    """The importance-weighted bound on log p(x) of each image [num_images, num_pixels].

    It rises to log p(x) as ``num_samples`` grows, with a gap of order 1/num_samples. The standard
    error is the delta method's, sd(w) / (mean(w) √S): where it is not small, so is the gap not.
    """
    _check_num_samples(num_samples)
    posterior = vae.encoder(vae.check(images))
    prior = vae.prior(images)
    log_weights = []
    with seeded(seed):
        for _ in range(num_samples):
            latents = posterior.sample()
            log_joint = vae.decoder(latents).log_prob(images) + prior.log_prob(latents)
            log_weights.append(log_joint - posterior.log_prob(latents))
    stacked = torch.stack(log_weights)
    value = stacked.logsumexp(0) - math.log(num_samples)
    relative_weights = (stacked - value).exp()
    return ImportanceBound(value, relative_weights.std(0) / math.sqrt(num_samples))


def _check_num_samples(num_samples: int) -> None:
    if num_samples < 2:
        raise OptionError(
            f"num_samples: expected at least 2, for a standard error; got {num_samples}"
        )
