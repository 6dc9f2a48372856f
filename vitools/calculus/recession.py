"""Directions in which the data do not hold a flat prior's site: the posterior has no integral.

Under curved functions a factor's precision is never rounding: where outcomes are separated, coordinate
ascent climbs for ever, with a wider factor at every sweep. What tells such a fit from one of a proper
posterior is the optimal density of the block given the other factors, exp F(x) with F(x) = E log p.
It has no integral if along a ray x = m + t d of directions it falls no faster than 1/t: then even the
ray's own integral is infinite, and the bound's supremum over the factors with it. A log-concave
likelihood falls exponentially wherever the posterior is proper (Albert and Anderson 1984, "On the
existence of maximum likelihood estimates in logistic regression models").
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from vitools.calculus.blocks.block import DenseBlock
from vitools.calculus.blocks.gaussian import GaussianBlock
from vitools.calculus.model import ConjugateModel
from vitools.errors import NumericalError

# Between which the density is looked at, in sds of the factor along the ray: beyond all of its mass.
NEAR, FAR = 10.0, 1000.0
# Of how many of the widest axes of a factor rays are tried.
MOST_AXES = 4
# Variance of the factor that stands at a place for the place, as part of its elements' given one another.
NARROW = 1e-6
# Elements that a ray moves by less than this part of the most are not told.
TOLD = 0.1


@torch.no_grad()
def check_determined(model: ConjugateModel) -> None:
    """NumericalError where the data leave a flat prior's site undetermined in some direction."""
    for block in model.blocks:
        block.check_determined()
    check_held(model)


@torch.no_grad()
def check_held(model: ConjugateModel) -> None:
    """NumericalError where a flat prior's site under curved functions can go on for ever."""
    for block in model.blocks:
        if isinstance(block, GaussianBlock) and block in model.damped and _flat(block):
            _check_rays(model, block)


def _flat(block: DenseBlock) -> list[str]:
    return [site.name for site in block.sites if site.distribution == "ImproperUniform"]


def _check_rays(model: ConjugateModel, block: GaussianBlock) -> None:
    state = model.state()
    mean = block.mean.expand(*block.batch_shape, block.size)
    covariance = block.covariance.expand(*mean.shape, block.size)
    precision = -2 * block.natural[1]
    held = precision if block.elementwise else precision.diagonal(dim1=-2, dim2=-1)
    variance = (NARROW / held).expand(mean.shape)
    try:
        for ray, sd in _rays(mean, covariance):
            heights = []
            for t in (NEAR, FAR):
                block.restore(block.member_family.with_moments(mean + t * sd * ray, variance))
                for node in model.predictors:
                    node.update(model.messages(node))
                heights.append(float(model.bound()))
            if heights[1] - heights[0] > -math.log(FAR / NEAR):
                raise NumericalError(_words(block, ray, heights[0] - heights[1]))
    finally:
        model.load(state)


def _rays(mean: Tensor, covariance: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Directions [batch, D] of length 1 in which a member of the factor may run away, and its sd there.

    They are the widest axes, and the mean's part along the k widest, for each k: of several axes that
    are not held the mean says on which side each is free.
    """
    values, axes = torch.linalg.eigh(covariance)
    widths = values[..., -1].flatten()
    for place in widths.topk(min(MOST_AXES, len(widths))).indices.tolist():
        at = torch.unravel_index(torch.tensor(place), mean.shape[:-1])
        here, along = mean[at], axes[at].flip(-1)  # [D], [D, D] with the widest first
        parts = along * (along.mT @ here)
        several = parts.cumsum(-1)
        count = min(MOST_AXES, len(here))
        found = [*several[:, :count].unbind(-1), several[:, -1]]
        found += [-part for part in parts[:, :count].unbind(-1)]
        for direction in found:
            length = direction.norm()
            if float(length) > 0:
                unit = direction / length
                ray = torch.zeros_like(mean)
                ray[at] = unit
                yield ray, (unit @ covariance[at] @ unit).sqrt()


def _words(block: GaussianBlock, ray: Tensor, fall: float) -> str:
    told = []
    for name, (start, stop) in block.offsets.items():
        part = ray[..., start:stop].reshape((*block.batch_shape, *block._joint_shape(name)))
        order = [*block.rest[name], *block.joint_axes[name]]
        part = part.permute([order.index(axis) for axis in range(len(order))])
        for where in (part.abs() > TOLD * ray.abs().max()).nonzero():
            place = where.tolist()
            sign = "+" if float(part[tuple(place)]) > 0 else "-"
            told.append(f"{name}{place if place else ''} to {sign}infinity")
    more = f" and {len(told) - 4} more" if len(told) > 4 else ""
    return (
        f"flat prior of {', '.join(map(repr, _flat(block)))}: nothing holds {', '.join(told[:4])}{more}: "
        f"from {NEAR:g} to {FAR:g} sds out the log density falls by {max(fall, 0.0):.2g}, so the "
        "posterior is improper. So it is where predictors separate the outcomes, or all outcomes "
        "of a group are the same. Give a proper prior, say Normal(0, 5)."
    )
