"""The order of updates, and which blocks are local: swept to their own convergence before the rest.

Latents beside the data (the topic of each word, the weights of its document) depend on each other
more than on what they share. Where two such blocks stand in one term, a step of the globals
between two of their updates is taken in a poor direction (Hoffman, Blei and Bach 2010, "Online
learning for latent Dirichlet allocation", iterate them to convergence in every pass).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vitools.calculus.blocks.block import Block
from vitools.calculus.blocks.gaussian import GaussianBlock
from vitools.calculus.blocks.predictor import PredictorNode
from vitools.calculus.blocks.single import FamilyBlock
from vitools.calculus.densities.closed_terms import ExpectedLogJoint
from vitools.calculus.tracing.trace import ModelTrace
from vitools.errors import OptionError


def ordered(
    names: Sequence[str] | None, blocks: Sequence[Block], block_of: Mapping[str, Block]
) -> list[Block]:
    """Children before parents (locals see the current globals), or the user's order."""
    if names is None:
        return list(blocks[::-1])
    first = list(dict.fromkeys(_known("order", names, block_of)))
    missing = [block.title for block in blocks if block not in first]
    if missing:
        raise OptionError(f"order: every latent must be listed; missing are {missing}")
    return first


def with_predictors(
    order: Sequence[Block], nodes: Sequence[PredictorNode], term_blocks: Sequence[Sequence[Block]]
) -> list[Block]:
    """Each predictor before the factors below it, where others weigh its functions, and after them."""
    below = {
        node: {b for blocks in term_blocks if node in blocks for b in blocks} for node in nodes
    }
    own = {node: {b for b in below[node] if set(b.names) & node.sites} for node in nodes}
    result: list[Block] = []
    for block in order:
        touching = [node for node in nodes if block in own[node]]
        result += [node for node in touching if below[node] - own[node] - {node}]
        result += [block, *touching]
    return result


def inner_blocks(
    names: Sequence[str] | None,
    order: Sequence[Block],
    block_of: Mapping[str, Block],
    joint: ExpectedLogJoint,
    trace: ModelTrace,
) -> list[Block]:
    """The blocks iterated before the others move, in the order of updates; the user's or found."""
    if names is not None:
        asked = _known("inner", names, block_of)
        return [block for block in order if block in asked]
    groups = _groups(joint, trace)
    if groups is None:
        return []
    local = {
        block_of[site.name]
        for site in trace.sites.values()
        if site.is_latent and any(plate.name in groups for plate in site.plates.values())
    }
    coupled = set()
    for term in joint.terms:
        together = {block_of[atom.site] for atom in term.atoms if atom.site in block_of} & local
        if len(together) > 1:
            coupled |= together
    # Discrete latents alone follow from the globals at once; a table per group has to settle.
    if not any(isinstance(block, FamilyBlock | GaussianBlock) for block in coupled):
        return []
    return [block for block in order if block in coupled]


def _groups(joint: ExpectedLogJoint, trace: ModelTrace) -> set[str] | None:
    """The largest observed plate and the one plate by which its rows are grouped, if there is one."""
    observed = {
        plate.name
        for site in trace.sites.values()
        if site.observed is not None
        for plate in site.plates.values()
    }
    if not observed:
        return None
    rows = max(observed, key=lambda name: trace.plates[name].size)
    label = joint.plate_labels[rows]
    coarser: set[str] = set()
    for term in joint.terms:
        # a plate that rows read in order stands on their own label
        reads = {label, *(s.target for s in term.selections if label in s.labels)}
        for atom in term.atoms:
            if atom.site not in trace.sites:
                continue
            plates = trace.sites[atom.site].plates
            coarser |= {
                plates[axis].name
                for axis, x in enumerate(atom.labels)
                if x in reads and axis in plates
            }
    coarser.discard(rows)
    return {rows, *coarser} if len(coarser) == 1 else {rows}


def _known(option: str, names: Sequence[str], block_of: Mapping[str, Block]) -> list[Block]:
    for name in names:
        if name not in block_of:
            raise OptionError(f"{option}: no latent site {name!r}; latents are {list(block_of)}")
    return [block_of[name] for name in names]
