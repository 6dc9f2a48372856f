"""The conditional VAE: images given what is known of them, p(x | c), by latents for the rest.

    z_n ~ Normal(0, I),   x_n | z_n, c_n ~ p(x | decoder(z_n, c_n)),   q(z_n | x_n, c_n) a normal

    log p(x | c) ≥ E_q(z|x,c)[log p(x | z, c)] - KL(q(z | x, c) ‖ p(z))

The condition c is a vector: a class as indicators (:func:`indicators`), or measured numbers. It
enters both networks beside their other input. z's prior does not know c, so what c tells need not
be paid for in the KL: z learns what c leaves open (of a digit whose class is given, the handwriting),
and one z with all classes in turn writes each of them in one hand. By Bayes' theorem p(c | x) ∝
p(x | c) p(c), a classifier that was never trained as one.

One conditional model shares its networks among classes, of which separate models would each see
their part of the data: it needs less data, and costs the freedom to differ in everything.

Reference: K. Sohn, H. Lee, X. Yan, "Learning structured output representation using deep
conditional generative models", NeurIPS 2015; D. P. Kingma, D. J. Rezende, S. Mohamed, M. Welling,
"Semi-supervised learning with deep generative models", NeurIPS 2014 (model M2, all labels seen).
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.isolation import seeded
from vitools.models import Example
from vitools.models.vae.base import DeepModel
from vitools.models.vae.images import load
from vitools.models.vae.model import Simulated
from vitools.models.vae.networks.likelihoods import find_decoder
from vitools.models.vae.networks.networks import NormalEncoder


def indicators(labels: Tensor, num_classes: int) -> Tensor:
    """Labels 0, …, C - 1 of shape [...] as indicator vectors [..., C] of torch's default dtype.

    >>> indicators(torch.tensor([0, 2]), num_classes=3)
    tensor([[1., 0., 0.],
            [0., 0., 1.]])
    """
    if labels.numel() and not (labels.min() >= 0 and labels.max() < num_classes):
        raise DataError(
            f"labels: expected classes 0 to {num_classes - 1}, "
            f"got {labels.min():g} to {labels.max():g}"
        )
    one_hot = torch.nn.functional.one_hot(labels.long(), num_classes)
    return one_hot.to(torch.get_default_dtype())


class ConditionalVAE(DeepModel):
    """A VAE of images given conditions, with multilayer perceptrons.

    Conditions are a float tensor with a row for each image, [num_images, condition_dim]. In the
    other methods conditions [..., condition_dim] broadcast with the images or latents beside them.

    :param num_pixels: pixels of an image, which the model sees as a flat vector.
    :param condition_dim: length of c.
    :param latent_dim: dimension of z.
    :param hidden: hidden-layer sizes of the encoder, reversed in the decoder.
    :param likelihood: as of :class:`~vitools.models.vae.VAE`.
    :param precision: as of :class:`~vitools.models.vae.VAE`.
    :param seed: of the starting weights; torch's global generator is left alone.

    >>> cvae = ConditionalVAE(num_pixels=4, condition_dim=3, latent_dim=2, hidden=(5,))
    >>> cvae.simulate(indicators(torch.tensor([0, 2]), 3), seed=0).images.shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        num_pixels: int,
        condition_dim: int,
        latent_dim: int = 8,
        hidden: Sequence[int] = (128,),
        *,
        likelihood: str = "bernoulli",
        precision: str = "full",
        seed: int = 0,
    ) -> None:
        super().__init__(num_pixels)
        if min(num_pixels, condition_dim, latent_dim, *hidden) < 1:
            raise OptionError(
                f"expected sizes of at least 1, got num_pixels={num_pixels}, condition_dim="
                f"{condition_dim}, latent_dim={latent_dim} and hidden={tuple(hidden)}"
            )
        self.condition_dim = condition_dim
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        generator = torch.Generator().manual_seed(seed)
        decoder = find_decoder(likelihood)
        self.encoder = NormalEncoder(num_pixels + condition_dim, latent_dim, hidden, generator)
        self.decoder = decoder(num_pixels, latent_dim + condition_dim, hidden[::-1], generator)
        self.set_precision(precision)

    def model(self, images: Tensor, conditions: Tensor, batch_size: int | None = None) -> None:
        """p(x, z | c) of images [num_images, num_pixels]; a minibatch where a size is given."""
        decoder = self._network("decoder")
        with self._plate(images, batch_size):
            batch, given = self._batch(images), self._given(images, conditions)
            latents = pyro.sample("z", self.prior(images))
            pyro.sample("x", decoder(_joined(latents, given)), obs=batch)

    def guide(self, images: Tensor, conditions: Tensor, batch_size: int | None = None) -> None:
        """q(z | x, c)."""
        encoder = self._network("encoder")
        with self._plate(images, batch_size):
            batch, given = self._batch(images), self._given(images, conditions)
            pyro.sample("z", encoder(_joined(batch, given)))

    def prior(self, like: Tensor) -> dist.TorchDistribution:
        """Normal(0, I) over one latent vector, with the dtype and device of a tensor."""
        zeros = like.new_zeros(self.latent_dim)
        return dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)

    @torch.no_grad()
    def encode(self, images: Tensor, conditions: Tensor) -> Tensor:
        """E_q[z | x, c], [num_images, latent_dim]."""
        self._check_conditions(images, conditions)
        return self.encoder(_joined(self.check(images), conditions)).mean

    @torch.no_grad()
    def decode(self, latents: Tensor, conditions: Tensor) -> Tensor:
        """E[x | z, c], the mean image [..., num_pixels] of latents [..., latent_dim]."""
        return self.decoder(_joined(latents, conditions)).mean

    def reconstruct(
        self, images: Tensor, conditions: Tensor, instead: Tensor | None = None
    ) -> Tensor:
        """Each image through E_q[z | x, c] and back, under its own conditions or others ``instead``."""
        latents = self.encode(images, conditions)
        return self.decode(latents, conditions if instead is None else instead)

    @torch.no_grad()
    def simulate(self, conditions: Tensor, seed: int) -> Simulated:
        """An image for each of conditions [num_images, condition_dim], its latents from the prior."""
        with seeded(seed):
            latents = self.prior(conditions).sample(conditions.shape[:-1])
            return Simulated(self.decoder(_joined(latents, conditions)).sample(), latents)

    def _given(self, images: Tensor, conditions: Tensor) -> Tensor:
        """The conditions of the minibatch; called inside the plate."""
        self._check_conditions(images, conditions)
        return pyro.subsample(conditions, event_dim=1)

    def _check_conditions(self, images: Tensor, conditions: Tensor) -> None:
        expected = f"conditions: expected {images.dtype} [{len(images)}, {self.condition_dim}]"
        if not isinstance(conditions, Tensor):
            raise DataError(f"{expected}, got {type(conditions).__name__}")
        shape = (len(images), self.condition_dim)
        if conditions.shape != shape or conditions.dtype != images.dtype:
            raise DataError(
                f"{expected}, got {conditions.dtype} {list(conditions.shape)}; labels become "
                "conditions by vitools.models.conditional_vae.indicators"
            )
        if pyro.settings.get("validate_distributions_torch") and not conditions.isfinite().all():
            raise DataError("conditions: expected finite numbers, got NaN or infinity")


def _joined(first: Tensor, second: Tensor) -> Tensor:
    """Side by side in the last dim, the dims before it broadcast."""
    shape = torch.broadcast_shapes(first.shape[:-1], second.shape[:-1])
    return torch.cat([first.expand(*shape, -1), second.expand(*shape, -1)], -1)


def example(seed: int) -> Example:
    """The embedded digits given their class, in minibatches, with its encoder as guide."""
    data = load(seed=seed)
    images = data.held_out.tensor_split(2)
    conditions = indicators(data.held_out_labels, 10).tensor_split(2)
    cvae = ConditionalVAE(data.train.shape[1], condition_dim=10, seed=seed)
    return Example(
        cvae.model,
        (data.train, indicators(data.train_labels, 10)),
        f"{len(data.train)} binarised 8×8 digits given their class, 8 latents, batches of 100",
        {"batch_size": 100},
        guide=cvae.guide,
        learning_rate=3e-3,
        validation=(images[0], conditions[0]),
        held_out=(images[1], conditions[1]),
    )
