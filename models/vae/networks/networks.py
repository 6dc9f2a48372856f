"""The encoders of a VAE: a network, and the family whose parameters its outputs are.

    x [..., num_pixels] ↦ q(z | x), e.g. Normal(m(x), diag s(x)²)

Like the decoders (:mod:`vitools.models.vae.networks.likelihoods`) an encoder is an ordinary
``torch.nn.Module`` whose ``forward`` returns a distribution with one event dimension.
"""

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.models.vae.networks.latents import find_latents
from vitools.models.vae.networks.layers import Builder, multilayer_perceptron
from vitools.models.vae.networks.precision import run_network


class Encoder(torch.nn.Module):
    """x [..., num_inputs] ↦ q(z | x) over z [..., latent_dim], in a family of ``LATENTS``.

    Args:
        network: builder of the network from x to the numbers that the family needs.
    """

    precision = "full"

    def __init__(
        self,
        num_inputs: int,
        latent_dim: int,
        hidden: Sequence[int],
        generator: torch.Generator,
        latents: str,
        network: Builder = multilayer_perceptron,
    ) -> None:
        super().__init__()
        self.latents = find_latents(latents)
        num_outputs = self.latents.num_outputs(latent_dim)
        self.network = network(num_inputs, num_outputs, hidden, generator)

    def forward(self, inputs: Tensor) -> dist.TorchDistribution:
        return self.latents.posterior(run_network(self.network, inputs, self.precision))


class NormalEncoder(Encoder):
    """The usual one: a diagonal normal, its means and log standard deviations side by side."""

    def __init__(
        self,
        num_inputs: int,
        latent_dim: int,
        hidden: Sequence[int],
        generator: torch.Generator,
        network: Builder = multilayer_perceptron,
    ) -> None:
        super().__init__(num_inputs, latent_dim, hidden, generator, "normal", network)
