"""The decoders of a VAE: p(x | z) by the kind of pixel, each a network and what its outputs mean.

    bernoulli     x_d ∈ {0, 1},          P(x_d = 1 | z) = σ(f_d(z))
    gaussian      x_d ∈ ℝ,               x_d | z ~ Normal(f_d(z), ψ_d), one learnt ψ_d a pixel
    categorical   x_d ∈ {0, 1/(L-1), …, 1},   P(x_d = l/(L-1) | z) = softmax(f_d(z))_l, L grey levels

A likelihood is a subclass of :class:`Decoder` and a line in ``DECODERS``; ``images.load`` makes
the pixels each describes. Bits per pixel, for comparing categorical bounds across images of other
sizes, are -bound / (num_pixels log 2).
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions.constraints import Constraint

from vitools.errors import OptionError
from vitools.models.vae.networks.layers import Builder, multilayer_perceptron
from vitools.models.vae.networks.precision import run_network

NUM_LEVELS = 8


class Decoder(torch.nn.Module):
    """z [..., latent_dim] ↦ p(x | z), independent pixels [..., num_pixels] as one event.

    Args:
        network: builder of the network from latents to ``outputs_per_pixel`` numbers a pixel.
    """

    support: Constraint
    """Of one pixel."""
    expects: str
    """The support in words."""
    advice = ""
    """What to do with pixels outside it."""
    outputs_per_pixel = 1
    precision = "full"

    def __init__(
        self,
        num_pixels: int,
        latent_dim: int,
        hidden: Sequence[int],
        generator: torch.Generator,
        network: Builder = multilayer_perceptron,
    ) -> None:
        super().__init__()
        num_outputs = num_pixels * self.outputs_per_pixel
        self.network = network(latent_dim, num_outputs, hidden, generator)

    def forward(self, latents: Tensor) -> dist.TorchDistribution:
        outputs = run_network(self.network, latents, self.precision)
        return self.pixels(outputs).to_event(1)

    def pixels(self, outputs: Tensor) -> Any:
        """The distribution of every pixel, given the network's outputs."""
        raise NotImplementedError


class BernoulliDecoder(Decoder):
    """Binary pixels with logits f(z)."""

    support = dist.constraints.boolean
    expects = "pixels 0 or 1"
    advice = "; see vitools.models.vae.binarise, or choose likelihood='gaussian' for grey pixels"

    def pixels(self, outputs: Tensor) -> Any:
        return dist.Bernoulli(logits=outputs)


class GaussianDecoder(Decoder):
    """Normal pixels of mean f(z), one learnt variance ψ_d a pixel.

    With a linear f this is factor analysis exactly: x = W z + b + noise, noise_d ~ N(0, ψ_d).
    """

    support = dist.constraints.real
    expects = "finite pixels"

    def __init__(self, num_pixels: int, *sizes: Any, **options: Any) -> None:
        super().__init__(num_pixels, *sizes, **options)
        # Pixels lie in [0, 1], with standard deviations of about a quarter before training.
        self.log_noise_sd = torch.nn.Parameter(torch.full((num_pixels,), math.log(0.25)))

    def pixels(self, outputs: Tensor) -> Any:
        return dist.Normal(outputs, self.log_noise_sd.exp())


class CategoricalDecoder(Decoder):
    """Pixels of ``num_levels`` grey levels, each with a probability of its own.

    No order among the levels is assumed: the shape of a pixel's law is learnt from the data.
    """

    def __init__(self, *sizes: Any, num_levels: int = NUM_LEVELS, **options: Any) -> None:
        if num_levels < 2:
            raise OptionError(f"num_levels: expected at least 2, got {num_levels}")
        self.outputs_per_pixel = num_levels
        super().__init__(*sizes, **options)
        self.support = LevelConstraint(num_levels)
        self.expects = f"{num_levels} grey levels, the multiples of 1/{num_levels - 1} up to 1"
        self.advice = "; see vitools.models.vae.quantise"

    def pixels(self, outputs: Tensor) -> Any:
        return GreyLevels(outputs.unflatten(-1, (-1, self.outputs_per_pixel)))


class LevelConstraint(Constraint):
    """The multiples of 1/(L - 1) from 0 to 1, as near as their dtype holds them."""

    is_discrete = True

    def __init__(self, num_levels: int) -> None:
        self.top = num_levels - 1

    def check(self, value: Tensor) -> Tensor:
        level = value * self.top
        near = (level - level.round()).abs() < 1e-3
        return near & (level > -0.5) & (level < self.top + 0.5)


class GreyLevels(TorchDistribution):
    """A categorical over L grey levels 0, 1/(L - 1), …, 1, which are numbers and have a mean.

    Args:
        logits: ``batch + (L,)``, of the levels from dark to bright.

    >>> pixel = GreyLevels(torch.tensor([0.25, 0.25, 0.5]).log())
    >>> pixel.mean, pixel.log_prob(torch.tensor(1.0)).exp()
    (tensor(0.6250), tensor(0.5000))
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {
        "logits": torch.distributions.constraints.real_vector
    }

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape[:-1], validate_args=validate_args)

    @property
    def num_levels(self) -> int:
        return self.logits.shape[-1]

    @property
    def support(self) -> Constraint:
        return LevelConstraint(self.num_levels)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "GreyLevels":
        new = self._get_checked_instance(GreyLevels, _instance)
        batch_shape = torch.Size(batch_shape)
        new.logits = self.logits.expand(batch_shape + self.logits.shape[-1:])
        TorchDistribution.__init__(new, batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        level = (value * (self.num_levels - 1)).round().long().unsqueeze(-1)
        shape = torch.broadcast_shapes(level.shape[:-1], self.batch_shape)
        log_probability = torch.log_softmax(self.logits, -1).expand(*shape, -1)
        return log_probability.gather(-1, level.expand(*shape, 1)).squeeze(-1)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            level = torch.distributions.Categorical(logits=self.logits).sample(sample_shape)
            return level.to(self.logits.dtype) / (self.num_levels - 1)

    @property
    def mean(self) -> Tensor:
        return self._moment(1)

    @property
    def variance(self) -> Tensor:
        return self._moment(2) - self._moment(1).square()

    def _moment(self, order: int) -> Tensor:
        levels = torch.linspace(0, 1, self.num_levels).to(self.logits)
        return torch.softmax(self.logits, -1) @ levels.pow(order)


DECODERS: dict[str, type[Decoder]] = {
    "bernoulli": BernoulliDecoder,
    "gaussian": GaussianDecoder,
    "categorical": CategoricalDecoder,
}


def find_decoder(likelihood: str) -> type[Decoder]:
    """The decoder of a name, or an error that lists them."""
    if likelihood not in DECODERS:
        raise OptionError(f"likelihood: expected one of {list(DECODERS)}, got {likelihood!r}")
    return DECODERS[likelihood]
