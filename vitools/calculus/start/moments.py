"""Factors with given means and standard deviations: where a start names sites.

A value without a standard deviation makes a factor so narrow that the others see the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.calculus.blocks.block import DenseBlock
from vitools.calculus.blocks.chain import ChainBlock
from vitools.calculus.blocks.gaussian import GaussianBlock
from vitools.calculus.blocks.single import DiscreteBlock, FamilyBlock
from vitools.families.family import Natural

NARROW = 1e-3
"""Standard deviation of a value, relative to its size."""
NARROWEST = 1e-9
"""The same where the standard deviation is given, and is 0."""
IMPOSSIBLE = 1e-9
"""Probability left to the cases of a discrete site that a value is not."""
LEAST_CONCENTRATION = 1e-3


@dataclass(frozen=True)
class Moments:
    """Of a continuous site: mean and sd ``[*shape]``, no sd for a value.

    Of a discrete one: the probabilities of its cases, ``[*batch_shape, K]``, as ``mean``.
    """

    mean: Tensor
    sd: Tensor | None = None

    def select(self, dim: int, rows: Tensor) -> Moments:
        """Those of some entries along an axis."""
        sd = None if self.sd is None else self.sd.index_select(dim, rows)
        return Moments(self.mean.index_select(dim, rows), sd)

    def variance(self) -> Tensor:
        """Above 0 everywhere."""
        size = self.mean.square().mean().sqrt()
        size = torch.where(size > 0, size, torch.ones_like(size))
        if self.sd is None:
            return torch.full_like(self.mean, float(NARROW * size) ** 2)
        return self.sd.square().clamp(min=float(NARROWEST * size) ** 2)


def place(block: DenseBlock, given: Mapping[str, Moments]) -> None:
    """Set a block so that the sites named have these moments; its others stay where they are."""
    if isinstance(block, DiscreteBlock | ChainBlock):
        block.restore((_logits(block, given),))
    elif isinstance(block, GaussianBlock):
        block.restore(_gaussian(block, given))
    elif isinstance(block, FamilyBlock):
        (name,) = block.names
        block.restore(_natural(block, given[name]))


def _logits(block: DiscreteBlock | ChainBlock, given: Mapping[str, Moments]) -> Tensor:
    total = torch.zeros(block.component_shape(0), dtype=torch.float64)
    for name in block.names:
        if name in given:
            probabilities = given[name].mean.clamp(min=IMPOSSIBLE)
            message = probabilities.log().expand(block.statistic_shape((name,)))
            total = total + block.embed((name,), message)
    return total


def _gaussian(block: GaussianBlock, given: Mapping[str, Moments]) -> Natural:
    mean = block.mean.clone()
    variance = block.covariance.diagonal(dim1=-2, dim2=-1).expand(mean.shape).clone()
    for name, (start, stop) in block.offsets.items():
        if name in given:
            order = (*block.rest[name], *block.joint_axes[name])
            for target, value in ((mean, given[name].mean), (variance, given[name].variance())):
                flat = value.permute(order).reshape((*block.batch_shape, stop - start))
                target[..., start:stop] = flat
    quadratic = -0.5 / variance
    return mean / variance, quadratic if block.elementwise else torch.diag_embed(quadratic)


def _natural(block: FamilyBlock, given: Moments) -> Natural:
    mean, variance = given.mean, given.variance()
    if block.family.name == "Normal":
        return mean / variance, -0.5 / variance
    if block.family.name == "Gamma":
        shape = mean.square() / variance
        return shape - 1, -mean / variance
    if block.family.name == "InverseGamma":
        shape = 2 + mean.square() / variance
        return -shape - 1, -mean * (shape - 1)
    if block.family.name == "Wishart":
        return _wishart(mean, given.sd)
    if block.family.name == "Beta":
        total = _concentration(mean * (1 - mean), variance, given.sd)
        parts = (mean * total, (1 - mean) * total)
        return tuple(part.clamp(min=LEAST_CONCENTRATION) - 1 for part in parts)
    spread = (mean * (1 - mean)).sum(-1, keepdim=True)
    total = _concentration(spread, variance.sum(-1, keepdim=True), given.sd)
    return ((mean * total).clamp(min=LEAST_CONCENTRATION) - 1,)


def _concentration(spread: Tensor, variance: Tensor, sd: Tensor | None) -> Tensor:
    """a₀ of a Dirichlet or Beta, from Var x_k = m_k (1 - m_k) / (a₀ + 1)."""
    if sd is None:
        return torch.full_like(spread, NARROW**-2)
    return (spread / variance - 1).clamp(min=LEAST_CONCENTRATION, max=NARROWEST**-2)


def _wishart(mean: Tensor, sd: Tensor | None) -> Natural:
    """ν from Var X_dd = 2 (E X_dd)² / ν, V⁻¹ = ν (E X)⁻¹."""
    size = mean.shape[-1]
    degrees = torch.full(mean.shape[:-2], NARROW**-2, dtype=mean.dtype)
    if sd is not None:
        own, spread = (x.diagonal(dim1=-2, dim2=-1) for x in (mean, sd))
        degrees = 2 * own.square().sum(-1) / spread.square().sum(-1).clamp(min=1e-300)
        degrees = degrees.clamp(min=size, max=NARROWEST**-2)
    inverse = degrees[..., None, None] * torch.linalg.inv(mean)
    return (degrees - size - 1) / 2, -0.25 * (inverse + inverse.mT)
