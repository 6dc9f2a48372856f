"""Which blocks are streamed over which plate: those whose rows are independent given the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from vitools.calculus.blocks.block import Block, DenseBlock
from vitools.calculus.blocks.gates.gate import GateBlock
from vitools.calculus.blocks.gaussian import GaussianBlock
from vitools.calculus.blocks.markov_chain import MarkovChainBlock
from vitools.calculus.blocks.single import DiscreteBlock
from vitools.calculus.blocks.trajectory import TrajectoryBlock
from vitools.calculus.densities.closed_terms import ClosedTerm, ExpectedLogJoint
from vitools.calculus.reduction.rows import DistinctRows
from vitools.calculus.streams.streamed import StreamedBlock

# Below this many rows, statistics that are stored cost less than sums that are formed again.
STREAMED_ROWS = 10_000


def streamed(
    blocks: Sequence[Block],
    joint: ExpectedLogJoint,
    rows: Mapping[str, DistinctRows],
    only: str | None = None,
) -> list[Block]:
    """The blocks, those that can be swept in chunks of a plate replaced by streamed ones.

    Args:
        only: the one plate that may be, where one is named.
    """
    result = list(blocks)
    taken: set[str] = set()
    for block, plate in _candidates(blocks):
        if taken & set(block.names) or only not in (None, plate):
            continue
        local = {n for b in blocks if plate in b.batch_plates for n in b.names}
        if can_stream(block, plate, joint.terms, local, taken):
            few = rows.get(plate)
            multiplicity = None if few is None else few.multiplicity
            result[result.index(block)] = StreamedBlock(block, plate, multiplicity)
            taken |= set(block.names)
    return result


def _candidates(blocks: Sequence[Block]) -> list[tuple[DenseBlock, str]]:
    """Blocks and their plates, the longest plates first."""
    found = [
        (size, block, plate)
        for block in blocks
        if isinstance(block, DenseBlock)
        for size, plate in zip(block.batch_shape, block.batch_plates, strict=True)
        if plate is not None
    ]
    return [(block, plate) for _, block, plate in sorted(found, key=lambda f: -f[0])]


def can_stream(
    block: DenseBlock,
    plate: str,
    terms: Sequence[ClosedTerm],
    local: Collection[str],
    taken: Collection[str],
) -> bool:
    """Whether the block's rows along the plate are independent given everything else.

    ``local`` are all latents inside the plate, ``taken`` those streamed already. A term may then
    hold none of them beside the block, and the block must be read along the plate alone (by
    whatever label the term gives its rows: the data may stand in a plate of their own).
    """
    axis = block.batch_plates.index(plate)
    size = block.batch_shape[axis]
    if isinstance(block, GaussianBlock) and (block.elementwise or block.kept is not None):
        return False
    if isinstance(block, MarkovChainBlock | TrajectoryBlock | GateBlock):
        return False
    if isinstance(block, DiscreteBlock) and bool(block.masked_entropy.any()):
        return False
    if size < (2 if isinstance(block, DiscreteBlock) else STREAMED_ROWS):
        return False
    place = {s.name: d for s in block.sites for d, p in s.plates.items() if p.name == plate}
    for term in terms:
        mine = [a for a in term.atoms if a.site in block.names]
        if not mine:
            continue
        label = mine[0].labels[place[mine[0].site]]
        for atom in mine:
            if [i for i, x in enumerate(atom.labels) if x == label] != [place[atom.site]]:
                return False
        for other in term.atoms:
            if other.site in block.names:
                continue
            if other.site in local or other.site in taken or label in other.labels:
                return False
        own = {x for a in mine for x in a.labels}
        selected = [s for s in term.selections if label in s.labels]
        along = [c for c in term.constants if label in c.labels]
        if len(selected) > 1 or any(s.labels != (label,) or s.target in own for s in selected):
            return False
        if selected and any(len(c.labels) > 1 for c in along):
            return False
    return True
