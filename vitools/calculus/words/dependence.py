"""Discrete latents that the model ties together while q keeps them apart.

A fully factorised q over the states of a chain, or over two dice of one throw, is a choice that the
reader should know of: their dependence in the posterior is lost, and the bound with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from vitools.calculus.blocks.block import Block
from vitools.calculus.densities.log_joint import ClosedTerm
from vitools.calculus.words.tables import span


def kept_apart(blocks: Sequence[Block], terms: Sequence[ClosedTerm]) -> list[list[str]]:
    """Groups of discrete latents that terms tie together and that stand in blocks of their own."""
    block_of = {name: block for block in blocks for name in block.names}
    group_of = {name: [name] for name in block_of}
    for term in terms:
        tied = sorted({a.site for a in term.atoms if a.function == "indicator"})
        if len({block_of[name].title for name in tied if name in block_of}) < 2:
            continue
        together = list(dict.fromkeys(n for name in tied for n in group_of[name]))
        group_of.update(dict.fromkeys(together, together))
    found = {id(group): group for group in group_of.values() if len(group) > 1}
    order = list(block_of)
    return [sorted(group, key=order.index) for group in found.values()]


def in_words(group: Sequence[str]) -> str:
    """``q(z0) … q(z39) factorised, their dependence is lost``."""
    factors = [f"q({name})" for name in group]
    return f"{span(factors, ' · ')} factorised, their dependence is lost"
