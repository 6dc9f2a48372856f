"""Unconstrained coordinates of a block: what an accelerator may extrapolate.

Concentrations, rates and precisions are extrapolated on the log scale, means as they are, so that
a jump stays inside the family; matrices are taken as they are, and a jump that leaves the positive
definite cone is refused by the block itself.
"""

from __future__ import annotations

from torch import Tensor

from vitools.conjugacy.blocks import Block, DiscreteBlock, FamilyBlock
from vitools.conjugacy.gaussian import GaussianBlock
from vitools.conjugacy.streamed import StreamedBlock


def extrapolated(block: Block) -> bool:
    """Discrete factors follow from the others within a sweep; they are not extrapolated."""
    return not isinstance(block, DiscreteBlock | StreamedBlock)


def coordinates(block: Block) -> list[Tensor]:
    natural = block.natural
    if isinstance(block, GaussianBlock):
        return [block.mean, natural[1]]
    assert isinstance(block, FamilyBlock)
    name = block.family.name
    if name == "Normal":
        precision = -2 * natural[1]
        return [natural[0] / precision, precision.log()]
    if name == "Gamma":
        return [(natural[0] + 1).log(), (-natural[1]).log()]
    if name == "InverseGamma":
        return [(-natural[0] - 1).log(), (-natural[1]).log()]
    if name == "Wishart":
        return list(natural)
    return [(eta + 1).log() for eta in natural]


def move_to(block: Block, point: list[Tensor]) -> None:
    """Set the block from coordinates; NumericalError where they leave the family."""
    if isinstance(block, GaussianBlock):
        mean, quadratic = point
        linear = (
            -2 * quadratic * mean
            if block.elementwise
            else (-2 * quadratic @ mean.unsqueeze(-1)).squeeze(-1)
        )
        block.restore((linear, quadratic))
        return
    assert isinstance(block, FamilyBlock)
    name = block.family.name
    if name == "Normal":
        precision = point[1].exp()
        block.restore((precision * point[0], -0.5 * precision))
    elif name == "Gamma":
        block.restore((point[0].exp() - 1, -point[1].exp()))
    elif name == "InverseGamma":
        block.restore((-point[0].exp() - 1, -point[1].exp()))
    elif name == "Wishart":
        block.restore((point[0], (point[1] + point[1].mT) / 2))
    else:
        block.restore(tuple(x.exp() - 1 for x in point))


def change(block: Block, before: tuple[Tensor, ...], means: tuple[Tensor, ...]) -> float:
    """√((η-η')·(μ-μ')), the largest over the block's members: a relative change of q.

    This is the root of the symmetrised Kullback-Leibler divergence, so it needs no scale of its own.
    """
    eta = [a - b for a, b in zip(block.natural, before, strict=True)]
    mu = [a - b for a, b in zip(mean_parameters(block), means, strict=True)]
    total: Tensor | None = None
    if isinstance(block, GaussianBlock):
        dims: tuple[int, ...] = (1, 1) if block.elementwise else (1, 2)
    else:
        assert isinstance(block, FamilyBlock)
        dims = block.family.event_dims
    for e, m, d in zip(eta, mu, dims, strict=True):
        product = e * m
        part = product.sum(tuple(range(-d, 0))) if d else product
        total = part if total is None else total + part
    assert total is not None
    return float(total.clamp(min=0).max().sqrt()) if total.numel() else 0.0


def mean_parameters(block: Block) -> tuple[Tensor, ...]:
    if isinstance(block, GaussianBlock):
        second = block.covariance + block.mean.unsqueeze(-1) * block.mean.unsqueeze(-2)
        if block.elementwise:
            return block.mean, second.diagonal(dim1=-2, dim2=-1)
        return block.mean, second
    assert isinstance(block, FamilyBlock)
    return tuple(block.moments[s] for s in block.family.statistics)


__all__ = ["change", "coordinates", "extrapolated", "mean_parameters", "move_to"]
