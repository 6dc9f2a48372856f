"""Unconstrained coordinates of a block: what an accelerator may extrapolate.

Concentrations, rates and precisions are extrapolated on the log scale, means as they are, so that
a jump stays inside the family; matrices are taken as they are, and a jump that leaves the positive
definite cone gives no density, hence no bound.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitools.calculus.blocks.block import Block
from vitools.calculus.blocks.gaussian import GaussianBlock
from vitools.calculus.streams.streamed import StreamedBlock
from vitools.families import FAMILIES, Family
from vitools.families.family import Natural

DISCRETE = ("Categorical", "Chain")


def extrapolated(block: Block) -> bool:
    """Discrete factors follow from the others within a sweep; they are not extrapolated."""
    return not isinstance(block, StreamedBlock) and block.family.name not in DISCRETE


def family_of(block: Block) -> Family:
    """The family of the block's members; coupled elements kept apart are normals each."""
    apart = isinstance(block, GaussianBlock) and block.elementwise
    return FAMILIES["Normal"] if apart else block.family


def coordinates(block: Block, natural: Natural) -> list[Tensor]:
    name = family_of(block).name
    if name == "Normal":
        precision = -2 * natural[1]
        return [natural[0] / precision, precision.log()]
    if name == "MultivariateNormal":
        root = torch.linalg.cholesky_ex(-2 * natural[1]).L
        mean = torch.cholesky_solve(natural[0].unsqueeze(-1), root).squeeze(-1)
        return [mean, natural[1]]
    if name == "Gamma":
        return [(natural[0] + 1).log(), (-natural[1]).log()]
    if name == "InverseGamma":
        return [(-natural[0] - 1).log(), (-natural[1]).log()]
    if name in ("Wishart", "FreeForm"):
        return list(natural)
    return [(eta + 1).log() for eta in natural]


def natural_parameters(block: Block, point: list[Tensor]) -> Natural:
    """The inverse of :func:`coordinates`."""
    name = family_of(block).name
    if name == "Normal":
        precision = point[1].exp()
        return precision * point[0], -0.5 * precision
    if name == "MultivariateNormal":
        return (-2 * point[1] @ point[0].unsqueeze(-1)).squeeze(-1), point[1]
    if name == "Gamma":
        return point[0].exp() - 1, -point[1].exp()
    if name == "InverseGamma":
        return -point[0].exp() - 1, -point[1].exp()
    if name == "Wishart":
        return point[0], (point[1] + point[1].mT) / 2
    if name == "FreeForm":
        return tuple(point)
    return tuple(x.exp() - 1 for x in point)


def divergences(block: Block, natural: Natural, other: Natural) -> Tensor:
    """(η-η')·(μ-μ') of each member: the symmetrised Kullback-Leibler divergence.

    Its root is a relative change of q that needs no scale of its own.
    """
    family = family_of(block)
    eta = tuple(a - b for a, b in zip(natural, other, strict=True))
    means = family.mean_parameters(natural), family.mean_parameters(other)
    mu = tuple(a - b for a, b in zip(*means, strict=True))
    return family.inner(eta, mu).clamp(min=0)
