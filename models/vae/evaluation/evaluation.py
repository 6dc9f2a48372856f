"""How good a trained model is on images it has not seen: two bounds on log p(x), each with its error.

    log p(x) ≥ E_q(z|x)[log p(x | z)] - Σ_l KL(q(z_l | …) ‖ p(z_l | …))            (the ELBO)
    log p(x) ≥ E log (1/S) Σ_s p(x, z_s) / q(z_s | x),   z_s ~ q(z | x)            (→ log p(x))

with a KL for each stochastic layer l. Both are functions of the model's
:meth:`~vitools.models.vae.base.DeepModel.log_weights`, so they serve every model here: plain,
hierarchical, conditional. Values are per image, in nats. However many draws and images there are,
only :data:`MOST_PAIRS` of them go through the networks at once.

Reference for the second: Y. Burda, R. Grosse, R. Salakhutdinov, "Importance weighted autoencoders",
ICLR 2016.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.isolation import seeded
from vitools.models.vae.base import DeepModel
from vitools.models.vae.weights import LogWeights

MOST_PAIRS = 8192
"""Pairs of an image and a draw that are in memory at a time, as images and in every layer."""


class ElboTerms(NamedTuple):
    """The ELBO of each image [num_images], term by term.

    :param reconstruction: E_q[log p(x | z)].
    :param kls: by latent site, E_q KL(q(z_l | …) ‖ p(z_l | …)); where nothing random stands above a
        layer and the KL has a closed form, exact.
    :param standard_error: of the ELBO, from its draws.
    """

    reconstruction: Tensor
    kls: dict[str, Tensor]
    standard_error: Tensor

    @property
    def kl(self) -> Tensor:
        """The KL of all layers."""
        return torch.stack(list(self.kls.values())).sum(0)

    @property
    def elbo(self) -> Tensor:
        """Reconstruction less KL."""
        return self.reconstruction - self.kl


class ImportanceBound(NamedTuple):
    """Per image: the importance-weighted bound on log p(x), with its standard error."""

    value: Tensor
    standard_error: Tensor


class Average(NamedTuple):
    """A mean over images with its standard error."""

    value: float
    standard_error: float


def average(values: Tensor) -> Average:
    """The mean of a figure per image [num_images], as one of many sets of such images would have it.

    The standard error sd / √n is that of the choice of images, and holds what noise each figure has
    from draws of its own.

    >>> average(torch.tensor([-2.0, -4.0]))
    Average(value=-3.0, standard_error=1.0)
    """
    spread = values.double().std() if len(values) > 1 else torch.tensor(math.nan)
    return Average(values.double().mean().item(), spread.item() / math.sqrt(len(values)))


def closed_form_kl(mean: Tensor, sd: Tensor) -> Tensor:
    """KL(Normal(m, diag s²) ‖ Normal(0, I)) = ½ Σ_k (m_k² + s_k² - 1 - 2 log s_k).

    :param mean: m [..., latent_dim].
    :param sd: s [..., latent_dim], positive.

    >>> closed_form_kl(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]))
    tensor(0.5000)
    """
    return 0.5 * (mean.square() + sd.square() - 1 - 2 * sd.log()).sum(-1)


def elbo_terms(model: DeepModel, *data: Tensor, num_samples: int = 64, seed: int = 0) -> ElboTerms:
    """The ELBO of each image, term by term.

    :param data: what ``model.model`` takes: images [num_images, num_pixels], and whatever belongs
        to them row by row (labels).
    """
    chunks = list(log_weights_by_chunk(model, *data, num_samples=num_samples, seed=seed))
    return ElboTerms(
        reconstruction=torch.cat([chunk.log_likelihood.mean(0) for chunk in chunks]),
        kls={
            layer: torch.cat([chunk.kls[layer].mean(0) for chunk in chunks])
            for layer in chunks[0].kls
        },
        standard_error=torch.cat([chunk.elbo.std(0) for chunk in chunks]) / math.sqrt(num_samples),
    )


def importance_weighted_log_likelihood(
    model: DeepModel, *data: Tensor, num_samples: int = 500, seed: int = 0
) -> ImportanceBound:
    """The importance-weighted bound on log p(x) of each image, the data as in :func:`elbo_terms`.

    It rises to log p(x) as ``num_samples`` grows, with a gap of order 1/num_samples; papers report
    it at 5000. The standard error is the delta method's, sd(w) / (mean(w) √S): where it is not
    small, so is the gap not.
    """
    values, errors = [], []
    for chunk in log_weights_by_chunk(model, *data, num_samples=num_samples, seed=seed):
        total = chunk.total
        values.append(total.logsumexp(0) - math.log(num_samples))
        errors.append((total - values[-1]).exp().std(0) / math.sqrt(num_samples))
    return ImportanceBound(torch.cat(values), torch.cat(errors))


def log_weights_by_chunk(
    model: DeepModel, *data: Tensor, num_samples: int, seed: int = 0
) -> Iterator[LogWeights]:
    """Log weights [num_samples, n] of a few images after the other, all draws of each together.

    The numbers of a seed are those of this way to cut; a generator of torch's is not touched.
    """
    if num_samples < 2:
        raise OptionError(
            f"num_samples: expected at least 2, for a standard error; got {num_samples}"
        )
    if any(len(part) != len(data[0]) for part in data):
        lengths = ", ".join(str(len(part)) for part in data)
        raise DataError(f"data: expected as many rows in each part, got {lengths}")
    model.check(data[0])
    seeds = torch.Generator().manual_seed(seed)
    num_images = max(1, MOST_PAIRS // num_samples)
    for start in range(0, len(data[0]), num_images):
        rows = [part[start : start + num_images] for part in data]
        with seeded(int(torch.randint(2**62, (), generator=seeds))):
            chunk = all_log_weights(model, *rows, num_samples=num_samples)
        yield chunk


def all_log_weights(model: DeepModel, *data: Tensor, num_samples: int) -> LogWeights:
    """``model.log_weights`` of a few images, however many draws, by torch's global generator."""
    draws = max(1, MOST_PAIRS // len(data[0]))
    parts = [
        model.log_weights(*data, num_samples=min(draws, num_samples - done))
        for done in range(0, num_samples, draws)
    ]
    layers = parts[0].kls
    return LogWeights(
        torch.cat([part.log_likelihood for part in parts]),
        {layer: torch.cat([part.log_ratios[layer] for part in parts]) for layer in layers},
        {layer: torch.cat([part.kls[layer] for part in parts]) for layer in layers},
    )
