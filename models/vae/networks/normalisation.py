"""Batch normalisation as a function of the rows in hand, and its end: a corpus's own statistics.

    y_j = s_j (x_j - m_j) / √(v_j + ε) + b_j

In training mode m and v are those of the rows that come together, a minibatch; nothing is kept from one
call to the next, so that a step is a function that can be recorded. But what a row becomes then depends on
the others, and a density made of it is none of that row. So training ends with :func:`settle`: m and v
of all rows become constants, the module goes into evaluation mode, and its densities are proper ones.
The spread s is not learnt: it keeps every unit of an encoder apart from its prior, whatever the weights
below, and the words of a vocabulary, rare or frequent, on one scale (no unit dies out early).

Reference: S. Ioffe, C. Szegedy, "Batch normalization", ICML 2015.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from vitools.errors import OptionError
from vitools.models.vae.networks.layers import Builder

EPSILON = 1e-3


class Normalisation(nn.Module):
    """x [..., size] ↦ y of the same shape, over all leading dims.

    Args:
        shift: whether b is learnt; else 0.
        scale: s, ``[size]``; 1 if omitted.

    >>> layer = Normalisation(1, shift=False)
    >>> layer(torch.tensor([[1.0], [3.0]])).round(decimals=2)
    tensor([[-1.],
            [ 1.]])
    """

    mean: Tensor
    variance: Tensor
    scale: Tensor

    def __init__(self, size: int, shift: bool = True, scale: Tensor | None = None) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(size)) if shift else None
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("scale", torch.ones(size) if scale is None else scale)
        self.is_settled = False

    def forward(self, inputs: Tensor) -> Tensor:
        mean, variance = self.mean, self.variance
        if not (self.training or self.is_settled):
            raise OptionError(
                "batch normalisation has no statistics to stand for those of minibatches: "
                "settle(rows) takes them, state_dict() keeps them; a saved posterior does not."
            )
        if self.training:
            variance, mean = torch.var_mean(inputs.flatten(0, -2), 0, correction=0)
        outputs = (inputs - mean) * torch.rsqrt(variance + EPSILON) * self.scale
        return outputs if self.shift is None else outputs + self.shift

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.is_settled)

    def set_extra_state(self, state: Tensor) -> None:
        self.is_settled = bool(state)


def normalised(network: Builder) -> Builder:
    """A builder of networks whose outputs, means and log sds side by side, are normalised and shifted.

    Means and log *variances* have a spread of 1: with log sds of that spread some sds would be so large
    that float32 has no softmax of the draws.
    """

    def build(num_inputs: int, num_outputs: int, *rest: Any) -> nn.Module:
        scale = torch.tensor([1.0, 0.5]).repeat_interleave(num_outputs // 2)
        layers = network(num_inputs, num_outputs, *rest), Normalisation(num_outputs, scale=scale)
        return nn.Sequential(*layers)

    return build


def settle(model: nn.Module, run: Callable[[], Any]) -> None:
    """Make the statistics of one run on all rows those of the model, and end its training.

    Args:
        run: runs every normalisation once, on all rows, in the order in which they are used.
    """

    def keep(layer: Normalisation, inputs: tuple[Tensor, ...]) -> None:
        variance, mean = torch.var_mean(inputs[0].flatten(0, -2), 0, correction=0)
        layer.mean.copy_(mean)
        layer.variance.copy_(variance)
        layer.is_settled = True

    was_training = model.training
    model.eval()
    try:
        with ExitStack() as hooks, torch.no_grad():
            for layer in _normalisations(model):
                hooks.callback(layer.register_forward_pre_hook(keep).remove)
            run()
    except BaseException:
        model.train(was_training)
        raise


def refuse_unsettled(model: nn.Module, what: str, remedy: str) -> None:
    """Raise where densities would still depend on the rows that come together."""
    if any(layer.training or not layer.is_settled for layer in _normalisations(model)):
        raise OptionError(
            f"{what} of a model with batch normalisation would depend on the rows that come "
            f"together; fix its statistics first: {remedy}."
        )


def _normalisations(model: nn.Module) -> list[Normalisation]:
    return [layer for layer in model.modules() if isinstance(layer, Normalisation)]
