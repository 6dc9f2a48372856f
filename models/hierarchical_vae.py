"""A VAE with L stochastic layers: latents of latents, inferred from the bottom up.

    z_L ~ Normal(0, I),   z_l | z_{l+1} ~ Normal(m_l(z_{l+1}), diag s_l(z_{l+1})²),   x | z_1 ~ p
    q(z_1, …, z_L | x) = q(z_1 | x) q(z_2 | z_1) ⋯ q(z_L | z_{L-1}),   each a diagonal normal

The bound is the reconstruction less one term for each layer,

    L(x) = E_q log p(x | z_1) - Σ_l K_l,   K_l = E_q[log q(z_l | z_{l-1}) - log p(z_l | z_{l+1})]

(z_0 is x, and p(z_L | z_{L+1}) the prior). K_L is an expected KL divergence and never negative, and
so is the sum; of the layers between, q conditions on what lies below and p on what lies above, so
that K_l is a difference that only the sum keeps in order.

Which layers die, and why. A layer is dead where q(z_l | z_{l-1}) is the same whatever the image; its
units then cost nothing and tell nothing. The topmost go first. A unit of z_2 is worth its KL only
where p(z_1 | z_2) fits what the encoder makes of the images so much better than one normal would
that z_1's own term falls by more; a unit of z_3 must do as much for z_2, of which less is left to
explain. Early in training z_1 is mostly noise, nothing above it has anything to explain, and units
are turned off before they are worth anything: the case for raising the KL's weight slowly. Sønderby
et al. find the layers above the second empty without such help. A small K_1 does not mean a dead
z_1: it says how well z_2 predicts it. docs/derivations/vae_family.md has figures for the digits.

References: D. J. Rezende, S. Mohamed, D. Wierstra, "Stochastic backpropagation and approximate
inference in deep generative models", ICML 2014; Y. Burda, R. Grosse, R. Salakhutdinov, "Importance
weighted autoencoders", ICLR 2016; C. K. Sønderby et al., "Ladder variational autoencoders", 2016.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.errors import OptionError
from vitools.isolation import seeded
from vitools.models import Example
from vitools.models.vae.base import DeepModel
from vitools.models.vae.images import load
from vitools.models.vae.networks.likelihoods import find_decoder
from vitools.models.vae.networks.networks import NormalEncoder


class SimulatedLayers(NamedTuple):
    """Images drawn from the model [num_images, num_pixels], and z_1, …, z_L behind them."""

    images: Tensor
    latents: tuple[Tensor, ...]


class HierarchicalVAE(DeepModel):
    """A VAE with a latent site for each stochastic layer: ``z1`` next to the image, to ``zL``.

    Networks ``encoder1`` … ``encoderL`` give q(z_l | z_{l-1}), ``prior1`` … ``prior{L-1}``
    p(z_l | z_{l+1}) and ``decoder`` p(x | z_1).

    :param num_pixels: pixels of an image, which the model sees as a flat vector.
    :param latent_dims: dimension of z_1, …, z_L.
    :param hidden: for each layer the hidden sizes of its encoder; the network that leads back
        down has them reversed.
    :param likelihood: as of :class:`~vitools.models.vae.VAE`.
    :param precision: as of :class:`~vitools.models.vae.VAE`.
    :param seed: of the starting weights; torch's global generator is left alone.

    The two-layer architecture of Burda et al. is
    ``HierarchicalVAE(784, (100, 50), ((200, 200), (100, 100)))``.

    >>> vae = HierarchicalVAE(num_pixels=4, latent_dims=(3, 2), hidden=((5,), (4,)), seed=0)
    >>> [latents.shape for latents in vae.simulate(6, seed=0).latents]
    [torch.Size([6, 3]), torch.Size([6, 2])]
    """

    def __init__(
        self,
        num_pixels: int,
        latent_dims: Sequence[int] = (32, 8),
        hidden: Sequence[Sequence[int]] = ((128,), (64,)),
        *,
        likelihood: str = "bernoulli",
        precision: str = "full",
        seed: int = 0,
    ) -> None:
        super().__init__(num_pixels)
        if not latent_dims or len(hidden) != len(latent_dims):
            raise OptionError(
                "expected a tuple of hidden sizes for each stochastic layer, got "
                f"latent_dims={tuple(latent_dims)} and hidden={tuple(hidden)}"
            )
        if min(num_pixels, *latent_dims, *(size for sizes in hidden for size in sizes)) < 1:
            raise OptionError(
                f"expected sizes of at least 1, got num_pixels={num_pixels}, "
                f"latent_dims={tuple(latent_dims)} and hidden={tuple(hidden)}"
            )
        self.likelihood = likelihood
        self.latent_dims = tuple(latent_dims)
        self.num_layers = len(self.latent_dims)
        generator = torch.Generator().manual_seed(seed)
        below = num_pixels
        for layer, (size, widths) in enumerate(zip(latent_dims, hidden, strict=True), start=1):
            self.add_module(f"encoder{layer}", NormalEncoder(below, size, widths, generator))
            upper = widths[::-1]
            if layer == 1:
                self.decoder = find_decoder(likelihood)(num_pixels, size, upper, generator)
            else:
                self.add_module(f"prior{layer - 1}", NormalEncoder(size, below, upper, generator))
            below = size
        self.set_precision(precision)

    def model(self, images: Tensor, batch_size: int | None = None) -> None:
        """p(x, z_1, …, z_L), drawn from the top; a random minibatch where a size is given."""
        decoder = self._network("decoder")
        layers = range(self.num_layers - 1, 0, -1)
        priors = {layer: self._network(f"prior{layer}") for layer in layers}
        with self._plate(images, batch_size):
            batch = self._batch(images)
            latents = pyro.sample(f"z{self.num_layers}", self.prior(images))
            for layer, prior in priors.items():
                latents = pyro.sample(f"z{layer}", prior(latents))
            pyro.sample("x", decoder(latents), obs=batch)

    def guide(self, images: Tensor, batch_size: int | None = None) -> None:
        """q(z_1, …, z_L | x), drawn from the bottom."""
        layers = range(1, self.num_layers + 1)
        encoders = {layer: self._network(f"encoder{layer}") for layer in layers}
        with self._plate(images, batch_size):
            below = self._batch(images)
            for layer, encoder in encoders.items():
                below = pyro.sample(f"z{layer}", encoder(below))

    def prior(self, like: Tensor) -> dist.TorchDistribution:
        """Normal(0, I) over one z_L, with the dtype and device of a tensor."""
        zeros = like.new_zeros(self.latent_dims[-1])
        return dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)

    @torch.no_grad()
    def decode(self, latents: Tensor, layer: int = 1) -> Tensor:
        """The mean image [..., num_pixels] of z_layer [..., latent_dims[layer - 1]].

        From a higher layer than the first the means m_l are followed down.
        """
        if not 1 <= layer <= self.num_layers:
            raise OptionError(f"layer: expected 1 to {self.num_layers}, got {layer}")
        for below in range(layer - 1, 0, -1):
            latents = getattr(self, f"prior{below}")(latents).mean
        return self.decoder(latents).mean

    @torch.no_grad()
    def reconstruct(self, images: Tensor, layer: int = 1) -> Tensor:
        """Each image through the encoders' means up to a layer, and back: what that layer knows."""
        latents = self.check(images)
        for number in range(1, min(layer, self.num_layers) + 1):
            latents = getattr(self, f"encoder{number}")(latents).mean
        return self.decode(latents, layer)

    @torch.no_grad()
    def simulate(self, num_images: int, seed: int) -> SimulatedLayers:
        """Draw latents from the top and pixels given z_1."""
        weight = next(self.parameters())
        with seeded(seed):
            latents = [self.prior(weight).sample(torch.Size([num_images]))]
            for layer in range(self.num_layers - 1, 0, -1):
                latents.append(getattr(self, f"prior{layer}")(latents[-1]).sample())
            return SimulatedLayers(self.decoder(latents[-1]).sample(), tuple(latents[::-1]))


def example(seed: int) -> Example:
    """Two stochastic layers on the embedded digits, in minibatches, with its encoders as guide."""
    data = load(seed=seed)
    validation, held_out = data.held_out.tensor_split(2)
    vae = HierarchicalVAE(data.train.shape[1], seed=seed)
    return Example(
        vae.model,
        (data.train,),
        f"{len(data.train)} binarised 8×8 digits, layers of 32 and 8 latents, batches of 100",
        {"batch_size": 100},
        guide=vae.guide,
        learning_rate=3e-3,
        validation=(validation,),
        held_out=(held_out,),
    )
