"""The factors of a run on minibatches, those of single rows for all rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vitools.calculus import ConjugateModel
from vitools.calculus.blocks.block import DenseBlock
from vitools.calculus.tracing.trace import TracedSite
from vitools.engines.cavi.minibatches.rows import RowBatches
from vitools.engines.cavi.minibatches.steps import outside
from vitools.engines.cavi.outcome import full

Factors = dict[str | tuple[str, ...], Distribution]


def factors_of_all_rows(
    batches: RowBatches,
    visit: Callable[[Tensor, Callable[[ConjugateModel], Any]], Any],
) -> Factors:
    """q as torch distributions, from a pass over all rows where single rows have factors.

    Args:
        visit: what is read off the model of some rows at the factors reached.
    """
    found: Factors = {}
    first: dict[str, DenseBlock] = {}
    parts: dict[str, list[RowFactors]] = {}
    for rows in batches.in_order():
        shared, own = visit(rows, _factors_of)
        found.update(shared)
        for block in own:  # of the others their numbers: a block holds the data of its rows
            first.setdefault(block.title, block)
            parts.setdefault(block.title, []).append(RowFactors.of(block, batches.plate))
        if not own:
            break
    for title, block in first.items():
        whole = _of_all_rows(block, parts[title], batches.plate)
        found.update(whole.factors())
    return found


def _factors_of(
    model: ConjugateModel,
) -> tuple[dict[str | tuple[str, ...], Distribution], list[DenseBlock]]:
    """The factors outside, and the blocks inside over all rows of the batch."""
    hidden = model.trace.auxiliary
    shared: Factors = {}
    for block in outside(model):
        if not set(block.names) <= hidden:
            shared.update(block.factors())
    own = [full(model, b) for b in model.weights if not set(b.names) <= hidden]
    return shared, [block for block in own if isinstance(block, DenseBlock)]


@dataclass(frozen=True)
class RowFactors:
    """Factors of some rows: how many, their natural parameters, and the masks of their sites."""

    count: int
    natural: tuple[Tensor, ...]
    masks: tuple[Tensor | None, ...]

    @classmethod
    def of(cls, block: DenseBlock, plate: str) -> RowFactors:
        count = block.batch_shape[block.batch_plates.index(plate)]
        masks = tuple(None if s.mask is None else s.mask.expand(s.batch_shape) for s in block.sites)
        return cls(count, block.natural, masks)


def _of_all_rows(first: DenseBlock, parts: Sequence[RowFactors], plate: str) -> DenseBlock:
    """A block like the first over the rows of all parts."""
    axis = first.batch_plates.index(plate)
    natural = []
    for number in range(len(first.natural)):
        own = [part.natural[number] for part in parts]
        by_row = all(
            x.dim() > axis and x.shape[axis] == part.count
            for x, part in zip(own, parts, strict=True)
        )
        natural.append(torch.cat(own, axis) if by_row else own[0])
    total = sum(part.count for part in parts)
    sites = [
        _with_rows(site, plate, total, [part.masks[i] for part in parts])
        for i, site in enumerate(first.sites)
    ]
    whole = first.made_of(sites)
    whole.set_factor(tuple(natural))
    return whole


def _with_rows(
    site: TracedSite, plate: str, total: int, masks: Sequence[Tensor | None]
) -> TracedSite:
    """The site with so many rows."""
    (axis,) = (dim for dim, p in site.plates.items() if p.name == plate)

    def longer(shape: Sequence[int]) -> tuple[int, ...]:
        return (*shape[:axis], total, *shape[axis + 1 :])

    known = [mask for mask in masks if mask is not None]
    return replace(
        site,
        shape=longer(site.shape),
        batch_shape=longer(site.batch_shape),
        mask=torch.cat(known, axis) if known else None,
    )
