"""The two networks of a variational auto-encoder: each maps a vector to a distribution.

    encoder   x ↦ q(z | x) = Normal(m(x), diag s(x)²)
    decoder   z ↦ p(x | z) = Π_d Bernoulli(x_d; σ(f_d(z)))  or  Π_d Normal(x_d; f_d(z), ψ_d)

A network is an ordinary ``torch.nn.Module`` whose ``forward`` returns a Pyro distribution with
one event dimension. That is the whole contract: a convolutional encoder or another pixel
likelihood is one more class here (a likelihood also a line in ``DECODERS``).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import pyro.distributions as dist
import torch
from torch import Tensor


def multilayer_perceptron(sizes: Sequence[int], generator: torch.Generator) -> torch.nn.Sequential:
    """Linear layers of the given sizes with tanh between them; Glorot-uniform weights, zero biases.

    With two sizes it is a single linear map. The weights are drawn from ``generator`` alone.
    """
    layers: list[torch.nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        # skip_init: the constructor would draw its own weights from torch's global generator.
        linear = torch.nn.utils.skip_init(torch.nn.Linear, fan_in, fan_out)
        bound = math.sqrt(6 / (fan_in + fan_out))
        with torch.no_grad():
            linear.weight.uniform_(-bound, bound, generator=generator)
            linear.bias.zero_()
        layers += [linear, torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


class NormalEncoder(torch.nn.Module):
    """x [..., num_pixels] ↦ q(z | x), a diagonal normal over z [..., latent_dim].

    One network gives the mean and the log standard deviation side by side.
    """

    def __init__(
        self, num_pixels: int, latent_dim: int, hidden: Sequence[int], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.network = multilayer_perceptron([num_pixels, *hidden, 2 * latent_dim], generator)

    def forward(self, images: Tensor) -> dist.TorchDistribution:
        mean, log_sd = self.network(images).chunk(2, dim=-1)
        return dist.Normal(mean, log_sd.exp()).to_event(1)


class BernoulliDecoder(torch.nn.Module):
    """z [..., latent_dim] ↦ independent Bernoulli pixels with logits f(z)."""

    support = dist.constraints.boolean

    def __init__(
        self, num_pixels: int, latent_dim: int, hidden: Sequence[int], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.network = multilayer_perceptron([latent_dim, *hidden, num_pixels], generator)

    def forward(self, latents: Tensor) -> dist.TorchDistribution:
        return dist.Bernoulli(logits=self.network(latents)).to_event(1)


class GaussianDecoder(torch.nn.Module):
    """z [..., latent_dim] ↦ independent normal pixels, mean f(z), one learnt variance ψ_d a pixel.

    With a linear f this is factor analysis exactly: x = W z + b + noise, noise_d ~ N(0, ψ_d).
    """

    support = dist.constraints.real

    def __init__(
        self, num_pixels: int, latent_dim: int, hidden: Sequence[int], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.network = multilayer_perceptron([latent_dim, *hidden, num_pixels], generator)
        # Pixels lie in [0, 1], with standard deviations of about a quarter before training.
        self.log_noise_sd = torch.nn.Parameter(torch.full((num_pixels,), math.log(0.25)))

    def forward(self, latents: Tensor) -> dist.TorchDistribution:
        return dist.Normal(self.network(latents), self.log_noise_sd.exp()).to_event(1)


DECODERS: dict[str, type[BernoulliDecoder] | type[GaussianDecoder]] = {
    "bernoulli": BernoulliDecoder,
    "gaussian": GaussianDecoder,
}
