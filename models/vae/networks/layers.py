"""What stands inside an encoder or a decoder: ordinary ``torch.nn`` networks from vector to vector.

    perceptron      [..., inputs] ↦ [..., outputs], linear layers with tanh between them
    convolutional   the same vectors, read (encoder) or written (decoder) as images; each layer
                    halves or doubles the side

A kind of network is a pair of builders, called with the numbers of inputs and outputs, the
hidden sizes and a generator for the weights; your own is one more :class:`Networks`.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitools.errors import OptionError

Builder = Callable[[int, int, Sequence[int], torch.Generator], nn.Module]
"""``builder(num_inputs, num_outputs, hidden, generator)``: a module [..., inputs] ↦ [..., outputs]."""


class Networks(NamedTuple):
    """A kind of network: how its encoder and its decoder are built.

    >>> def deep(num_inputs, num_outputs, hidden, generator):
    ...     return nn.Sequential(nn.LayerNorm(num_inputs), nn.Linear(num_inputs, num_outputs))
    >>> own = Networks(encoder=deep, decoder=multilayer_perceptron)
    """

    encoder: Builder
    decoder: Builder


def multilayer_perceptron(
    num_inputs: int, num_outputs: int, hidden: Sequence[int], generator: torch.Generator
) -> nn.Sequential:
    """Linear layers with tanh between them; Glorot-uniform weights, zero biases.

    Without hidden layers it is a single linear map. The weights are drawn from ``generator`` alone.
    """
    layers: list[nn.Module] = []
    for size, after in pairwise([num_inputs, *hidden, num_outputs]):
        layers += [_initialised(nn.Linear, size, after, generator), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def convolutional(height: int, width: int) -> Networks:
    """Convolutions for images of this size; ``hidden`` are the channels, e.g. ``(16, 32)``.

    Each layer of the encoder halves height and width (kernel 3, stride 2), each of the decoder
    doubles them (kernel 4, stride 2); one linear layer stands between them and the latents.
    """
    return Networks(
        partial(_convolutional_encoder, (height, width)),
        partial(_convolutional_decoder, (height, width)),
    )


def find_networks(network: str | Networks, num_pixels: int) -> Networks:
    """The builders of a name, ``"mlp"`` or ``"convolutional"`` (square images); or those given."""
    if isinstance(network, Networks):
        return network
    if network == "mlp":
        return Networks(multilayer_perceptron, multilayer_perceptron)
    if network != "convolutional":
        raise OptionError(
            f"network: expected 'mlp', 'convolutional' or a Networks, got {network!r}"
        )
    side = math.isqrt(num_pixels)
    if side * side != num_pixels:
        raise OptionError(
            f"network: {num_pixels} pixels are no square; give network=convolutional(height, width)"
        )
    return convolutional(side, side)


def _convolutional_encoder(
    shape: tuple[int, int],
    num_inputs: int,
    num_outputs: int,
    hidden: Sequence[int],
    generator: torch.Generator,
) -> nn.Module:
    small = _halved(shape, num_inputs, hidden)
    layers: list[nn.Module] = [nn.Unflatten(-1, (1, *shape))]
    for channels, after in pairwise([1, *hidden]):
        convolution = partial(nn.Conv2d, kernel_size=3, stride=2, padding=1)
        layers += [_initialised(convolution, channels, after, generator), nn.SiLU()]
    last = _initialised(nn.Linear, hidden[-1] * math.prod(small), num_outputs, generator)
    return _OverLeadingDims(nn.Sequential(*layers, nn.Flatten(), last))


def _convolutional_decoder(
    shape: tuple[int, int],
    num_inputs: int,
    num_outputs: int,
    hidden: Sequence[int],
    generator: torch.Generator,
) -> nn.Module:
    per_pixel, rest = divmod(num_outputs, math.prod(shape))
    small = _halved(shape, math.prod(shape) if rest == 0 else num_outputs, hidden)
    first = _initialised(nn.Linear, num_inputs, hidden[0] * math.prod(small), generator)
    layers: list[nn.Module] = [first, nn.Unflatten(-1, (hidden[0], *small))]
    for channels, after in pairwise([*hidden, per_pixel]):
        convolution = partial(nn.ConvTranspose2d, kernel_size=4, stride=2, padding=1)
        layers += [nn.SiLU(), _initialised(convolution, channels, after, generator)]
    return _OverLeadingDims(nn.Sequential(*layers, _PixelsFirst()))


class _PixelsFirst(nn.Module):
    """[n, channels, height, width] ↦ [n, height·width·channels], a pixel's numbers side by side."""

    def forward(self, images: Tensor) -> Tensor:
        return images.permute(0, 2, 3, 1).flatten(1)


class _OverLeadingDims(nn.Module):
    """A network of [n, size] on [..., size]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.network(inputs.reshape(-1, inputs.shape[-1]))
        return outputs.reshape(*inputs.shape[:-1], outputs.shape[-1])


def _halved(shape: tuple[int, int], num_pixels: int, hidden: Sequence[int]) -> tuple[int, int]:
    """Height and width after every layer has halved them."""
    factor = 2 ** len(hidden)
    if not hidden or any(side % factor for side in shape) or math.prod(shape) != num_pixels:
        raise OptionError(
            f"network: {len(hidden)} convolutional layers need images whose height and width can be "
            f"halved as often, at least once; got {num_pixels} pixels as {shape[0]} × {shape[1]}"
        )
    return shape[0] // factor, shape[1] // factor


def _initialised(
    layer: Callable[..., nn.Module], size: int, after: int, generator: torch.Generator
) -> nn.Module:
    # skip_init: the constructor would draw its own weights from torch's global generator
    kind = layer.func if isinstance(layer, partial) else layer
    keywords = layer.keywords if isinstance(layer, partial) else {}
    made = nn.utils.skip_init(kind, size, after, **keywords)
    area = made.weight[0, 0].numel()
    bound = math.sqrt(6 / ((size + after) * area))
    with torch.no_grad():
        made.weight.uniform_(-bound, bound, generator=generator)
        made.bias.zero_()
    return made
