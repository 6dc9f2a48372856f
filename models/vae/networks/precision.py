"""Mixed precision: the networks' linear algebra in bfloat16, everything else as it was.

    "full"    all in the dtype of weights and data
    "bf16"    matrix products and convolutions in bfloat16 (eight bits of precision), what stands
              between them (tanh, …) in the dtype it is given

The weights, their gradients and the optimiser stay float32, and so do the densities: a network's
outputs are float32 again before a distribution is made of them. bfloat16 has float32's range, so
that no loss needs scaling. On a GPU with tensor cores, and on processors with bfloat16
instructions, products are several times faster; small networks gain nothing.

Reference: P. Micikevicius et al., "Mixed precision training", ICLR 2018.
"""

import torch
from torch import Tensor, nn

from vitools.errors import DataError, OptionError

PRECISIONS = ("full", "bf16")


def check_precision(precision: str) -> str:
    """The name, or an error that lists them."""
    if precision not in PRECISIONS:
        raise OptionError(f"precision: expected one of {list(PRECISIONS)}, got {precision!r}")
    return precision


def run_network(network: nn.Module, inputs: Tensor, precision: str) -> Tensor:
    """The network's outputs in the dtype of the inputs, its linear algebra in a precision."""
    if precision == "full":
        outputs: Tensor = network(inputs)
        return outputs
    if inputs.dtype != torch.float32:
        raise DataError(
            f"precision: 'bf16' is for float32 data and weights, got {inputs.dtype}; convert them, "
            "or leave precision out"
        )
    # without autocast's cache, which would keep tensors of a recording beyond its end
    with torch.autocast(inputs.device.type, torch.bfloat16, cache_enabled=False):
        outputs = network(inputs)
    return outputs.float()
