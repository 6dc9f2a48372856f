"""A minibatch: some rows of a plate that stand for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from vitools.calculus.blocks.block import Block
from vitools.calculus.streams.streamed import StreamedBlock
from vitools.calculus.tracing.trace import ModelTrace


@dataclass(frozen=True)
class Share:
    """Some rows of a plate in the place of all: each counts ``weight`` times (Hoffman et al. 2013).

    What rows say to latents outside the plate is ``weight`` times as much; those inside it are single.

    Attributes:
        points: the reference points of other rows, so that factors mean the same; sought in these
            rows if omitted.
    """

    plate: str
    weight: float
    points: Mapping[str, Tensor] | None = None

    def weighted(self, trace: ModelTrace) -> ModelTrace:
        """The model in which the rows count as often."""
        sites = {
            name: replace(site, scale=site.scale * self.weight)
            if any(plate.name == self.plate for plate in site.plates.values())
            else site
            for name, site in trace.sites.items()
        }
        return replace(trace, sites=sites)

    def is_local(self, block: Block) -> bool:
        """Whether the block is a factor of single rows."""
        own = block.dense if isinstance(block, StreamedBlock) else block
        return self.plate in own.batch_plates
