"""The variational auto-encoder: a Pyro model with a neural likelihood, and its amortised guide.

    z_n ~ Normal(0, I)                 a latent vector for each image
    x_n | z_n ~ p(x | decoder(z_n))    the pixels, independent given z_n
    q(z_n | x_n) = Normal(m(x_n), diag s(x_n)²)   both from one encoder, shared by all images

Other latent spaces, likelihoods and networks are options. The encoder makes inference for a new
image one pass through a network instead of an optimisation (amortisation). Derivation: docs/derivations/vae.md.

References: D. P. Kingma, M. Welling, "Auto-encoding variational Bayes", ICLR 2014;
D. J. Rezende, S. Mohamed, D. Wierstra, "Stochastic backpropagation and approximate inference in
deep generative models", ICML 2014.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.errors import OptionError
from vitools.isolation import seeded
from vitools.models.vae.base import DeepModel
from vitools.models.vae.networks.latents import find_latents
from vitools.models.vae.networks.layers import Networks, find_networks
from vitools.models.vae.networks.likelihoods import Decoder, find_decoder
from vitools.models.vae.networks.networks import Encoder


class Simulated(NamedTuple):
    """Images drawn from the model [num_images, num_pixels], and the latents behind them."""

    images: Tensor
    latents: Tensor


class VAE(DeepModel):
    """A variational auto-encoder.

    :param num_pixels: pixels of an image, which the model sees as a flat vector.
    :param latent_dim: dimension of z.
    :param hidden: hidden-layer sizes of the encoder (the channels of a convolutional one); ``()``
        makes it linear.
    :param decoder_hidden: those of the decoder, by default the encoder's reversed. ``()`` makes
        the model linear: logistic or ordinary factor analysis, by the likelihood.
    :param likelihood: ``"bernoulli"`` for pixels 0 and 1, ``"gaussian"`` for continuous ones,
        ``"categorical"`` for ``num_levels`` grey levels; see ``networks/likelihoods.py``.
    :param latents: ``"normal"``, ``"kumaraswamy"`` on the unit cube, or on the simplex
        ``"logistic_normal"``, ``"dirichlet"``, ``"stick_kumaraswamy"`` or ``"mv_kumaraswamy"``;
        see ``networks/latents.py``.
    :param concentration: α of the prior on the cube or the simplex; 1 is uniform, less is sparse.
    :param network: ``"mlp"``, ``"convolutional"`` or builders of your own; see ``networks/layers.py``.
    :param precision: ``"bf16"`` for networks whose linear algebra is in bfloat16; see
        ``networks/precision.py``.
    :param seed: of the starting weights; torch's global generator is left alone.

    >>> vae = VAE(num_pixels=4, latent_dim=2, hidden=(3,), seed=0)
    >>> images = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    >>> vae.encode(images).shape, vae.reconstruct(images).shape
    (torch.Size([1, 2]), torch.Size([1, 4]))
    """

    def __init__(
        self,
        num_pixels: int,
        latent_dim: int,
        hidden: Sequence[int] = (200,),
        *,
        decoder_hidden: Sequence[int] | None = None,
        likelihood: str = "bernoulli",
        num_levels: int | None = None,
        latents: str = "normal",
        concentration: float = 1.0,
        network: str | Networks = "mlp",
        precision: str = "full",
        seed: int = 0,
    ) -> None:
        super().__init__(num_pixels)
        hidden = tuple(hidden)
        decoder_hidden = hidden[::-1] if decoder_hidden is None else tuple(decoder_hidden)
        sizes = {
            "num_pixels": (num_pixels,),
            "latent_dim": (latent_dim,),
            "hidden": hidden,
            "decoder_hidden": decoder_hidden,
        }
        for name, values in sizes.items():
            if any(value < 1 for value in values):
                raise OptionError(f"{name}: expected sizes of at least 1, got {values}")
        self.latents = find_latents(latents)
        if latent_dim < self.latents.smallest:
            raise OptionError(
                f"latent_dim: {latents} latents need at least {self.latents.smallest}, "
                f"got {latent_dim}"
            )
        if not concentration > 0:
            raise OptionError(f"concentration: expected a number above 0, got {concentration}")
        decoder: Callable[..., Decoder] = find_decoder(likelihood)
        if num_levels is not None:
            if likelihood != "categorical":
                raise OptionError(f"num_levels: the {likelihood} likelihood has no grey levels")
            decoder = partial(decoder, num_levels=num_levels)
        self.latent_dim, self.concentration = latent_dim, concentration
        self.likelihood = likelihood
        networks = find_networks(network, num_pixels)
        generator = torch.Generator().manual_seed(seed)
        self.encoder = Encoder(
            num_pixels, latent_dim, hidden, generator, latents=latents, network=networks.encoder
        )
        self.decoder = decoder(
            num_pixels, latent_dim, decoder_hidden, generator, network=networks.decoder
        )
        self.set_precision(precision)

    def model(self, images: Tensor, batch_size: int | None = None) -> None:
        """p(x, z) of images [num_images, num_pixels]; a random minibatch where a size is given."""
        decoder = self._network("decoder")
        with self._plate(images, batch_size):
            batch = self._batch(images)
            latents = pyro.sample("z", self.prior(images))
            pyro.sample("x", decoder(latents), obs=batch)

    def guide(self, images: Tensor, batch_size: int | None = None) -> None:
        """q(z | x) of the same images; a minibatch drawn here is the one the model then sees."""
        encoder = self._network("encoder")
        with self._plate(images, batch_size):
            pyro.sample("z", encoder(self._batch(images)))

    def prior(self, like: Tensor) -> dist.TorchDistribution:
        """p(z) of one latent vector, Normal(0, I) by default, with a tensor's dtype and device."""
        return self.latents.prior(like.new_full((self.latent_dim,), self.concentration))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """The middle of q(z | x), [num_images, latent_dim]; its mean where that is known."""
        return self.latents.centre(self.encoder(self.check(images)))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """E[x | z], the mean image [..., num_pixels] of latents [..., latent_dim]."""
        return self.decoder(latents).mean

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """E[x | z] at the middle of q(z | x): each image through the encoder and back."""
        return self.decode(self.encode(images))

    @torch.no_grad()
    def simulate(self, num_images: int, seed: int) -> Simulated:
        """Draw latents from the prior and pixels given them."""
        weight = next(self.parameters())
        with seeded(seed):
            latents = self.prior(weight).sample(torch.Size([num_images]))
            return Simulated(self.decoder(latents).sample(), latents)
