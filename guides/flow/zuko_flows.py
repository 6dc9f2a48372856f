"""Invertible networks of zuko as one module, started at the identity.

    y = f_L ∘ … ∘ f_1(z),   y_i = g(z_i; network(z_{<i}))  in each layer,

with g affine or a monotonic rational-quadratic spline, and "<" the order of the layer. From z to y
is one pass of the networks, whatever the order; from y to z takes as many as the order has steps.

G. Papamakarios et al. (2021), "Normalizing flows for probabilistic modeling and inference", JMLR.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.transforms import _InverseTransform

from vitools.errors import OptionError
from vitools.isolation import seeded

_BINS = 8


@dataclass(frozen=True)
class FlowKind:
    """Whether a layer is a coupling (two steps) or autoregressive (D), and its scalar map."""

    coupling: bool
    spline: bool


FLOWS: dict[str, FlowKind] = {
    "spline": FlowKind(coupling=False, spline=True),
    "realnvp": FlowKind(coupling=True, spline=False),
    "autoregressive": FlowKind(coupling=False, spline=False),
}
"""Neural spline (Durkan et al. 2019), RealNVP (Dinh et al. 2017), inverse autoregressive (Kingma
et al. 2016)."""


class FlowMap(nn.Module):
    """The map between the vectors z and y, ``[…, D]``, and the log determinant of its Jacobian.

    Args:
        kind: a name in :data:`FLOWS`.
        size: D.
        layers: L.
        width: of the two hidden layers of each network.
        context: length of a vector that every network also reads; 0 for none.
        seed: of the weights and of the order of the coordinates in each layer.

    Attributes:
        settings: these arguments, from which the same networks are made again.
    """

    def __init__(
        self,
        kind: str,
        size: int,
        *,
        layers: int = 3,
        width: int = 64,
        context: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        if kind not in FLOWS:
            raise OptionError(f"flow: expected one of {', '.join(FLOWS)}, got {kind!r}")
        self.settings = {
            "kind": kind,
            "size": size,
            "layers": layers,
            "width": width,
            "context": context,
            "seed": seed,
        }
        if layers < 1 or width < 1:
            raise OptionError(f"expected layers and width of at least 1, got {layers} and {width}")
        with seeded(seed):
            order = torch.arange(size)
            made = []
            for layer in range(layers):
                # Each order is followed by its reverse: what conditioned is then transformed.
                order = torch.randperm(size) if layer and layer % 2 == 0 else order.flip(0)
                made.append(_layer(FLOWS[kind], size, context, order, width))
        self.layers = nn.ModuleList(made)

    def forward(
        self, vector: Tensor, context: Tensor | None = None, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(y, log |∂y/∂z|) at z; with ``inverse``, (z, log |∂y/∂z|) at y."""
        total = vector.new_zeros(vector.shape[:-1])
        if inverse:
            for layer in reversed(self.layers):
                transform = layer(context)
                below = transform.inv(vector)
                total = total + transform.log_abs_det_jacobian(below, vector)
                vector = below
            return vector, total
        for layer in self.layers:
            vector, log_det = layer(context).call_and_ladj(vector)
            total = total + log_det
        return vector, total


def _layer(kind: FlowKind, size: int, context: int, order: Tensor, width: int) -> nn.Module:
    with _torch_unchanged():
        from zuko.flows.autoregressive import MaskedAutoregressiveTransform
        from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform
    spline = ((_BINS,), (_BINS,), (_BINS - 1,))
    layer = MaskedAutoregressiveTransform(
        size,
        context,
        passes=2 if kind.coupling else None,
        order=order,
        univariate=MonotonicRQSTransform if kind.spline else MonotonicAffineTransform,
        shapes=spline if kind.spline else ((), ()),
        # Smooth: a density with kinks would have gradients that jump.
        **(
            {"hidden_features": (width, width), "activation": nn.SiLU} if size + context > 1 else {}
        ),
    )
    # One coordinate without a context has parameters in place of a network.
    last = layer.hyper[-1].parameters() if hasattr(layer, "hyper") else layer.parameters()
    for parameter in last:
        nn.init.zeros_(parameter)
    return layer


@contextmanager
def _torch_unchanged() -> Iterator[None]:
    """zuko switches off torch's validation, and more, for the whole process when imported."""
    attributes = [
        (Distribution, "_validate_args"),
        (Distribution, "arg_constraints"),
        (_InverseTransform, "__name__"),
    ]
    saved = [(cls, key, cls.__dict__.get(key, getattr(cls, key))) for cls, key in attributes]
    try:
        yield
    finally:
        for cls, key, value in saved:
            setattr(cls, key, value)
