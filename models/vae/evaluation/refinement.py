"""What amortisation costs: the encoder's q for an image against the best q of its family.

The gap between log p(x) and the ELBO has two parts (Cremer, Li & Duvenaud),

    log p(x) - L[q_φ] = (log p(x) - L[q*]) + (L[q*] - L[q_φ])
                         approximation gap    amortisation gap

where q* = Normal(m_n, diag s_n²) is found for the one image x_n, the decoder held: ordinary
mean-field VI, started at the encoder's answer. The first part says what a richer family would win,
the second what a better encoder would.

Reference: C. Cremer, X. Li, D. Duvenaud, "Inference suboptimality in variational autoencoders",
ICML 2018.
"""

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.distributions.gaussian import Normal
from vitools.errors import NotSupportedError
from vitools.isolation import seeded
from vitools.models.vae.base import DeepModel
from vitools.models.vae.evaluation.evaluation import all_log_weights
from vitools.models.vae.model import VAE

Program = Callable[..., None]


class InferenceGaps(NamedTuple):
    """Both gaps of each image [num_images] in nats, with their standard errors.

    The approximation gap has an importance-weighted bound in log p(x)'s place: it is at most too small.
    """

    amortisation: Tensor
    amortisation_error: Tensor
    approximation: Tensor
    approximation_error: Tensor


class LocalPosteriors(DeepModel):
    """A VAE's model with its decoder held, and a guide with a mean and an sd for each image.

    :param vae: whose encoder gives independent normals, the start of the guide.
    :param images: [num_images, num_pixels], the only ones that model and guide take.
    """

    def __init__(self, vae: VAE, images: Tensor) -> None:
        super().__init__(vae.num_pixels)
        posterior = vae.encoder(vae.check(images))
        if not isinstance(getattr(posterior, "base_dist", None), dist.Normal):
            raise NotSupportedError(
                f"expected an encoder that gives independent normals, got {posterior}; a local "
                "posterior of another family would not tell what amortisation alone costs"
            )
        self.prior = vae.prior
        self.decoder = copy.deepcopy(vae.decoder).requires_grad_(False)
        self.mean = torch.nn.Parameter(posterior.mean.detach().clone())
        self.log_sd = torch.nn.Parameter(posterior.stddev.detach().log())

    def model(self, images: Tensor) -> None:
        """p(x, z), without parameters."""
        with self._plate(images, None):
            latents = pyro.sample("z", self.prior(images))
            pyro.sample("x", self.decoder(latents), obs=self._batch(images))

    def guide(self, images: Tensor) -> None:
        """q(z_n) = Normal(m_n, diag s_n²)."""
        mean, log_sd = pyro.param("mean", self.mean), pyro.param("log_sd", self.log_sd)
        with self._plate(images, None):
            pyro.sample("z", Normal.from_log_scale(mean, log_sd).to_event(1))


def inference_gaps(
    vae: VAE,
    images: Tensor,
    refine: Callable[[Program, Program, Tensor], object],
    num_samples: int = 1000,
    seed: int = 0,
) -> InferenceGaps:
    """The gaps of a few images [num_images, num_pixels], of which ``refine`` closes one.

    :param refine: trains a guide's parameters in place by any engine, given model, guide, images:
        ``lambda model, guide, images: svi(Problem(model, images), guide, learning_rate=0.02)``.
    :param num_samples: draws; the two q's have their noise in common, so that it cancels.
    """
    local = LocalPosteriors(vae, images)
    with seeded(seed):
        encoded = all_log_weights(local, images, num_samples=num_samples)
    refine(local.model, local.guide, images)
    with seeded(seed):
        refined = all_log_weights(local, images, num_samples=num_samples)
    gain = refined.elbo - encoded.elbo
    bound = refined.total.logsumexp(0) - math.log(num_samples)
    # The delta method: log-mean-exp moves with the draws as the weights relative to their mean do.
    missed = (refined.total - bound).exp() - refined.elbo
    root = math.sqrt(num_samples)
    return InferenceGaps(
        gain.mean(0), gain.std(0) / root, bound - refined.elbo.mean(0), missed.std(0) / root
    )
