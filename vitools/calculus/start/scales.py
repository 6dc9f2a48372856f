"""Where precisions begin whose units nobody told: a vague prior, and no data beside them.

The precision q of the steps of a chain x_t ~ N(x_{t-1}, 1/q), of effects about their mean: its prior
Gamma(1e-5, 1e-5) allows every unit, and what it is to be depends on latents that have not been found
yet. Begun at any number of its own it may hold them at each other, or let them follow the noise, from
where coordinate ascent does not return. So here the latents are first put where the data alone have
them, the precision follows from that, and it is held there until they have settled among themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vitools.calculus.blocks.block import Block, DenseBlock
from vitools.calculus.blocks.single import FamilyBlock
from vitools.calculus.model import ConjugateModel
from vitools.families.family import Natural

VAGUE = 1.0
"""Shape of a Gamma prior below which its density grows without bound towards 0."""
ROUNDS = 5
"""Sweeps of the latents while the precisions are held."""


def _own_prior(block: FamilyBlock) -> Natural | None:
    """The natural parameters of a precision's own prior, where its arguments are numbers."""
    (site,) = block.sites
    given = [x for name, x in site.arguments.items() if name != "validate_args" and x is not None]
    if site.distribution != block.family.name or not all(
        isinstance(x, Tensor | float | int) for x in given
    ):
        return None
    natural = block.family.from_distribution(site.fn)
    return tuple(eta.double().expand(block.batch_shape) for eta in natural)


def unseen_scale(model: ConjugateModel, block: Block) -> dict[object, Tensor] | None:
    """The own prior of a precision's factor to whose rate no data speak without other latents.

    As messages; ``None`` for others, and for a prior that is not vague.
    """
    if not isinstance(block, FamilyBlock) or not block.family.is_precision:
        return None
    own = _own_prior(block)
    if own is None or not bool((own[0] + 1 < VAGUE).all()):
        return None
    zero = torch.zeros((), dtype=torch.float64)
    rate = model.messages(block, given=()).get(1.0, zero).expand(block.batch_shape)
    if not bool(torch.isclose(rate, own[1], rtol=1e-6, atol=0).all()):
        return None
    return dict(zip(block.family.statistics, own, strict=True))


def settle_scales(model: ConjugateModel) -> bool:
    """Start unseen scales from where the data have the latents under them; whether any was."""
    scales = [b for b in model.blocks if unseen_scale(model, b) is not None]
    under = [b for b in model.order if _is_gaussian(b) and _tied(model, b) & set(scales)]
    noise = [
        b
        for b in model.blocks
        if isinstance(b, FamilyBlock) and b.family.is_precision and b not in scales
    ]
    placed = [block for block in under if _place_by_data(model, block, noise)]
    if not placed:
        return False
    for block in under:
        if block not in placed:
            model.update(block)
    for scale in scales:
        if any(scale in _tied(model, block) for block in placed):
            model.update(scale)
    for _ in range(ROUNDS):
        for block in model.order:
            if _is_gaussian(block):
                model.update(block)
    return True


def _is_gaussian(block: Block) -> bool:
    return isinstance(block, DenseBlock) and block.family.is_gaussian


def _tied(model: ConjugateModel, block: Block) -> set[Block]:
    """The blocks that stand in a term with this one."""
    return {b for link in model.links[block] for b in model.term_blocks[link.term]} - {block}


def _place_by_data(model: ConjugateModel, block: Block, noise: Sequence[Block]) -> bool:
    """Set the factor by the terms it shares with data and their noise alone, if that is a density."""
    assert isinstance(block, DenseBlock)
    if not _tied(model, block) & set(noise):
        return False
    natural = block.gathered(model.messages(block, given=noise))
    if not bool(block.family.proper(natural).all()):
        return False
    block.restore(natural)
    return True
