"""From terms to messages: a term of several blocks sends each of them the einsum of all else in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from vitools.calculus.algebra.atoms import Atom, Unsupported, is_open
from vitools.calculus.blocks.block import Block, Resolved, next_version
from vitools.calculus.blocks.links import Link, label_sizes, make_link, separated
from vitools.calculus.densities.closed_terms import ClosedTerm, ExpectedLogJoint
from vitools.calculus.reduction.contraction import Contractor, Operand
from vitools.calculus.reduction.rows import DistinctRows
from vitools.calculus.streams.streamed import StreamedBlock
from vitools.errors import ModelError, NotConjugateError


@dataclass
class Links:
    """The messages to every block, and the blocks of every term."""

    of: dict[Block, list[Link]]
    term_blocks: list[list[Block]]


class OpenConstants:
    """Constants that follow from values: like the statistics of a block, they change between updates.

    They are known by the numbers of their term and of their place in it.
    """

    def __init__(self) -> None:
        self.version = 0
        self.moments: dict[Any, Tensor] = {}

    def take(self, terms: Sequence[ClosedTerm]) -> None:
        """Those of these terms."""
        self.moments = open_constants(terms)
        self.changed()

    def changed(self) -> None:
        self.version = next_version()


def open_constants(terms: Sequence[ClosedTerm]) -> dict[tuple[int, int], Tensor]:
    """Those of these terms, by the numbers of their term and of their place in it."""
    return {
        (number, place): constant.tensor
        for number, term in enumerate(terms)
        for place, constant in enumerate(term.constants)
        if is_open(constant.tensor)
    }


def compile_links(
    joint: ExpectedLogJoint,
    block_of: Mapping[str, Block],
    rows: Mapping[str, DistinctRows],
    moving: OpenConstants,
) -> Links:
    """Every message of every term, sharing the contractions they have in common."""
    moving.take(joint.terms)
    links: dict[Block, list[Link]] = {block: [] for block in block_of.values()}
    term_blocks: list[list[Block]] = []
    contractor = Contractor()
    for number, written in enumerate(joint.terms):
        term, resolved = _resolve(separated(written, block_of), block_of)
        sizes = label_sizes(term, resolved)
        places = {id(c): (number, place) for place, c in enumerate(written.constants)}
        constants = [
            Operand(
                contractor.statistic(moving, places[id(c)])
                if is_open(c.tensor)
                else contractor.fixed(c.tensor),
                c.labels,
            )
            for c in term.constants
        ]
        statistics = {
            block: Operand(contractor.statistic(block, r.key), r.labels)
            for block, r in resolved.items()
        }
        for block, target in resolved.items():
            others = [o for b, o in statistics.items() if b is not block]
            others += [
                Operand(contractor.fixed(distinct.multiplicity), (joint.plate_labels[plate],))
                for plate, distinct in rows.items()
                if plate not in block.batch_plates
                and joint.plate_labels[plate] in sizes
                and any(plate in b.batch_plates for b in resolved)
            ]
            message = contractor.message(
                [*constants, *others], term.selections, target.labels, sizes
            )
            links[block].append(make_link(message, target, sizes, term.coefficient, number))
        term_blocks.append(list(resolved))
    for block, found in links.items():
        if isinstance(block, StreamedBlock):
            block.write_features()
        if not found:
            raise ModelError(f"site {block.title!r} has no density: its prior contributes nothing")
    return Links(links, term_blocks)


def _resolve(
    term: ClosedTerm, block_of: Mapping[str, Block]
) -> tuple[ClosedTerm, dict[Block, Resolved]]:
    """The statistic of each block in a term, and the term less the data that are part of one."""
    by_block: dict[Block, list[Atom]] = {}
    for atom in term.atoms:
        by_block.setdefault(block_of[atom.site], []).append(atom)
    resolved: dict[Block, Resolved] = {}
    left, selections = list(term.constants), list(term.selections)
    for block, atoms in by_block.items():
        try:
            part = replace(term, constants=tuple(left), selections=tuple(selections))
            resolved[block], left, selections = block.resolve_term(part, atoms)
        except Unsupported as error:
            raise NotConjugateError(
                f"site {term.origin!r}: not conjugate to its parent {block.title!r}: the expected "
                f"log density needs {error}",
                [name for other in by_block for name in other.names],
            ) from error
    return replace(term, constants=tuple(left), selections=tuple(selections)), resolved
