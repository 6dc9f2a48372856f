"""The plain and the denoising autoencoder: a VAE without a prior, and why that does not generate.

    code      c_n = f(x̃_n), one point, where x̃_n is x_n or x_n corrupted
    x_n | c_n ~ p(x | decoder(c_n)),   maximising Σ_n log p(x_n | f(x̃_n))

It has no latent variable: the code is a function of the image, so the guide has nothing to draw and
the bound that is climbed is the log-likelihood itself, a VAE's without its KL.

Nothing asks the codes to fill a region of known shape. Training leaves them wherever reconstruction
likes them, at any scale and with gaps between, so there is no distribution to draw codes from: those
of Normal(0, I) fall where the decoder was never trained. That is what the KL is for. On the embedded
digits (2 codes) the energy distance of such images from held-out ones is 0.86, of a VAE's 0.006,
though the autoencoder reconstructs better. A Normal fitted to the codes after training is a prior
after all, and mends most of it (0.02) at no guarantee: :meth:`Autoencoder.simulate` draws from either.

The denoising autoencoder must undo a corruption (each pixel is set to 0 with a probability, or has
normal noise added), so it cannot copy and learns where the data lie instead; it generates no better.

References: P. Vincent, H. Larochelle, Y. Bengio, P.-A. Manzagol, "Extracting and composing robust
features with denoising autoencoders", ICML 2008; G. Alain, Y. Bengio, "What regularized
auto-encoders learn from the data-generating distribution", JMLR 15, 2014.
"""

from collections.abc import Callable, Sequence

import pyro
import torch
from torch import Tensor

from vitools.errors import OptionError
from vitools.isolation import seeded
from vitools.models.vae.base import DeepModel
from vitools.models.vae.model import Simulated
from vitools.models.vae.networks.layers import multilayer_perceptron
from vitools.models.vae.networks.likelihoods import GaussianDecoder, find_decoder

CORRUPTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "masking": lambda pixels, share: pixels * (torch.rand_like(pixels) >= share),
    "gaussian": lambda pixels, sd: pixels + sd * torch.randn_like(pixels),
}


class Corruption(torch.nn.Module):
    """Noise for training: in evaluation mode the images pass as they are.

    :param kind: one of :data:`CORRUPTIONS`.
    """

    def __init__(self, kind: str, strength: float) -> None:
        super().__init__()
        self.kind, self.strength = kind, strength

    def forward(self, images: Tensor) -> Tensor:
        return CORRUPTIONS[self.kind](images, self.strength) if self.training else images


class Autoencoder(DeepModel):
    """An autoencoder with multilayer perceptrons; denoising where a corruption is given.

    :param num_pixels: pixels of an image, which the model sees as a flat vector.
    :param code_dim: dimension of the code.
    :param hidden: hidden-layer sizes of the encoder, reversed in the decoder; ``()`` makes both
        linear, and the plain autoencoder with ``"gaussian"`` pixels a principal component analysis.
    :param likelihood: as of :class:`~vitools.models.vae.VAE`; it is the loss. ``"gaussian"`` is
        squared error: the noise keeps its first standard deviation, as the likelihood of a pixel
        that the code copies would grow for ever with a learnt one.
    :param corruption: ``"masking"`` or ``"gaussian"``, made anew at each step.
    :param strength: the probability that a pixel is masked, or the noise's standard deviation.
    :param seed: of the starting weights; torch's global generator is left alone.

    >>> autoencoder = Autoencoder(num_pixels=4, code_dim=2, hidden=(3,))
    >>> images = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    >>> autoencoder.encoder(images).shape, autoencoder.reconstruct(images).shape
    (torch.Size([1, 2]), torch.Size([1, 4]))
    """

    def __init__(
        self,
        num_pixels: int,
        code_dim: int = 2,
        hidden: Sequence[int] = (128,),
        *,
        likelihood: str = "bernoulli",
        corruption: str | None = None,
        strength: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__(num_pixels)
        if min(num_pixels, code_dim, *hidden) < 1:
            raise OptionError(
                f"expected sizes of at least 1, got num_pixels={num_pixels}, "
                f"code_dim={code_dim} and hidden={tuple(hidden)}"
            )
        if corruption is not None and corruption not in CORRUPTIONS:
            raise OptionError(
                f"corruption: expected None or one of {list(CORRUPTIONS)}, got {corruption!r}"
            )
        if not strength > 0 or (corruption == "masking" and strength >= 1):
            raise OptionError(
                f"strength: expected a number above 0 (a probability for masking), got {strength}"
            )
        self.code_dim = code_dim
        self.likelihood = likelihood
        self.corruption = corruption
        self.strength = strength
        self.noise = Corruption(corruption, strength) if corruption else torch.nn.Identity()
        generator = torch.Generator().manual_seed(seed)
        self.encoder = multilayer_perceptron(num_pixels, code_dim, hidden, generator)
        decoder = find_decoder(likelihood)(num_pixels, code_dim, hidden[::-1], generator)
        if isinstance(decoder, GaussianDecoder):
            noise = decoder.log_noise_sd.detach()
            del decoder.log_noise_sd
            decoder.register_buffer("log_noise_sd", noise)
        self.decoder = decoder

    def model(self, images: Tensor, batch_size: int | None = None) -> None:
        """p(x | c), c the code of x, corrupted or not; a random minibatch where a size is given."""
        encoder, decoder = self._network("encoder"), self._network("decoder")
        with self._plate(images, batch_size):
            batch = self._batch(images)
            pyro.sample("x", decoder(encoder(self.corrupt(batch))), obs=batch)

    def guide(self, images: Tensor, batch_size: int | None = None) -> None:
        """Nothing: the model has no latents."""

    def corrupt(self, images: Tensor) -> Tensor:
        """The images as the encoder sees them in training, by torch's global generator."""
        return self.noise(images)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """The codes [n, code_dim] of images [n, num_pixels], which are not corrupted."""
        return self.encoder(self.check(images))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """E[x | c], the mean image [..., num_pixels] of codes [..., code_dim]."""
        return self.decoder(codes).mean

    def reconstruct(self, images: Tensor) -> Tensor:
        """Each image through its code and back."""
        return self.decode(self.encode(images))

    @torch.no_grad()
    def simulate(self, num_images: int, seed: int, like: Tensor | None = None) -> Simulated:
        """Images of codes drawn from Normal(0, I), or from a Normal fitted to those of images.

        :param like: images [n, num_pixels] whose codes say mean and covariance.
        """
        with seeded(seed):
            weight = next(self.parameters())
            codes = torch.randn(num_images, self.code_dim).to(weight)
            if like is not None:
                seen = self.encode(like)
                factor = torch.linalg.cholesky(seen.mT.cov().reshape(2 * [self.code_dim]))
                codes = seen.mean(0) + codes @ factor.mT
            return Simulated(self.decoder(codes).sample(), codes)
