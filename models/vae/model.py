"""The variational auto-encoder: a Pyro model with a neural likelihood, and its amortised guide.

    z_n ~ Normal(0, I)                 a latent vector for each image
    x_n | z_n ~ p(x | decoder(z_n))    the pixels, independent given z_n
    q(z_n | x_n) = Normal(m(x_n), diag s(x_n)²)   both from one encoder, shared by all images

The encoder makes inference for a new image one pass through a network instead of an optimisation
(amortisation). Derivation: docs/derivations/vae.md.

References: D. P. Kingma, M. Welling, "Auto-encoding variational Bayes", ICLR 2014;
D. J. Rezende, S. Mohamed, D. Wierstra, "Stochastic backpropagation and approximate inference in
deep generative models", ICML 2014.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.isolation import seeded
from vitools.models.vae.networks import DECODERS, NormalEncoder


class Simulated(NamedTuple):
    """Images drawn from the model [num_images, num_pixels], and the latents behind them."""

    images: Tensor
    latents: Tensor


class VAE(torch.nn.Module):
    """A variational auto-encoder with multilayer perceptrons.

    :param num_pixels: pixels of an image, which the model sees as a flat vector.
    :param latent_dim: dimension of z.
    :param hidden: hidden-layer sizes of the encoder; ``()`` makes it linear.
    :param decoder_hidden: those of the decoder, by default the encoder's reversed. ``()`` makes
        the model linear: logistic or ordinary factor analysis, by the likelihood.
    :param likelihood: ``"bernoulli"`` for pixels 0 and 1, ``"gaussian"`` for continuous ones.
    :param seed: of the starting weights; torch's global generator is left alone.

    ``model`` and ``guide`` are an ordinary Pyro pair, for ``pyro.infer.SVI`` or any engine here.
    Pyro's param store holds the weights by name (``decoder.network.0.weight``), and what the
    store holds is used: train each VAE in a store of its own,
    ``with pyro.get_param_store().scope():``.

    >>> vae = VAE(num_pixels=4, latent_dim=2, hidden=(3,), seed=0)
    >>> images = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    >>> vae.encoder(images).mean.shape, vae.reconstruct(images).shape
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
        seed: int = 0,
    ) -> None:
        super().__init__()
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
        if likelihood not in DECODERS:
            raise OptionError(f"likelihood: expected one of {list(DECODERS)}, got {likelihood!r}")
        self.num_pixels = num_pixels
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        generator = torch.Generator().manual_seed(seed)
        self.encoder = NormalEncoder(num_pixels, latent_dim, hidden, generator)
        self.decoder = DECODERS[likelihood](num_pixels, latent_dim, decoder_hidden, generator)

    def model(self, images: Tensor, batch_size: int | None = None) -> None:
        """p(x, z) of images [num_images, num_pixels]; a random minibatch where a size is given."""
        self._check_shape(images)
        weights = self._weights("decoder")
        with self._plate(images, batch_size):
            batch = self._check_values(pyro.subsample(images, event_dim=1))
            latents = pyro.sample("z", self.prior(images))
            pixels = torch.func.functional_call(self.decoder, weights, (latents,))
            pyro.sample("x", pixels, obs=batch)

    def guide(self, images: Tensor, batch_size: int | None = None) -> None:
        """q(z | x) of the same images; a minibatch drawn here is the one the model then sees."""
        self._check_shape(images)
        weights = self._weights("encoder")
        with self._plate(images, batch_size):
            batch = self._check_values(pyro.subsample(images, event_dim=1))
            pyro.sample("z", torch.func.functional_call(self.encoder, weights, (batch,)))

    def prior(self, like: Tensor) -> dist.TorchDistribution:
        """Normal(0, I) over one latent vector, with the dtype and device of a tensor."""
        zeros = like.new_zeros(self.latent_dim)
        return dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """E[x | z], the mean image [..., num_pixels] of latents [..., latent_dim]."""
        return self.decoder(latents).mean

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """E[x | z = m(x)]: each image through the encoder's mean and back."""
        return self.decode(self.encoder(self.check(images)).mean)

    @torch.no_grad()
    def simulate(self, num_images: int, seed: int) -> Simulated:
        """Draw latents from the prior and pixels given them."""
        weight = next(self.parameters())
        with seeded(seed):
            latents = self.prior(weight).sample(torch.Size([num_images]))
            return Simulated(self.decoder(latents).sample(), latents)

    def check(self, images: Tensor) -> Tensor:
        """The images, or a ``DataError`` where their shape, dtype or values do not fit the model."""
        self._check_shape(images)
        return self._check_values(images)

    def _plate(self, images: Tensor, batch_size: int | None) -> pyro.plate:
        if batch_size is not None and not 1 <= batch_size <= len(images):
            raise OptionError(
                f"batch_size: expected 1 to {len(images)}, the number of images; got {batch_size}"
            )
        return pyro.plate("images", len(images), batch_size, dim=-1, device=images.device)

    def _weights(self, network: str) -> dict[str, Tensor]:
        # The networks run on what pyro.param returns. With pyro.module they would run on their
        # own tensors and ignore the values that an engine puts in the weights' place.
        parameters = getattr(self, network).named_parameters()
        return {name: pyro.param(f"{network}.{name}", value) for name, value in parameters}

    def _check_shape(self, images: Tensor) -> None:
        expected = f"images: expected a float tensor [num_images, {self.num_pixels}]"
        if not isinstance(images, Tensor):
            raise DataError(f"{expected}, got {type(images).__name__}")
        if images.ndim != 2 or images.shape[1] != self.num_pixels or len(images) == 0:
            raise DataError(
                f"{expected}, got shape {list(images.shape)}; flatten each image: images.flatten(1)"
            )
        weight = next(self.parameters())
        if images.dtype != weight.dtype:
            raise DataError(
                f"images: {images.dtype} where the weights are {weight.dtype}; "
                f"convert one: images.to({weight.dtype}) or vae.to({images.dtype})"
            )

    def _check_values(self, images: Tensor) -> Tensor:
        if pyro.settings.get("validate_distributions_torch"):
            fits = self.decoder.support.check(images) & images.isfinite()
            if not fits.all():
                raise DataError(
                    f"images: the {self.likelihood} likelihood needs "
                    f"{'pixels 0 or 1' if self.likelihood == 'bernoulli' else 'finite pixels'}, "
                    f"got {images[~fits][0].item():g}; see vitools.models.vae.binarise, "
                    "or choose likelihood='gaussian' for continuous pixels"
                )
        return images
