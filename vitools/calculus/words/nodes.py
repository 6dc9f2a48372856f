"""Factors on nodes in words: which densities are tabled, and what a sweep costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vitools.calculus.algebra.atoms import Predictor
from vitools.calculus.blocks.nodes.nodes_block import NodesBlock
from vitools.calculus.densities.closed_terms import ClosedTerm
from vitools.calculus.start.on_nodes import ENOUGH


def on_nodes(block: NodesBlock, terms: Sequence[ClosedTerm]) -> str:
    """``density ∝ exp(E[log p(r) + log p(y)]), at about 25 nodes``."""
    own = [term for term in terms if any(atom.site in block.names for atom in term.atoms)]
    origins = dict.fromkeys(t.origin for t in own if not isinstance(t.origin, Predictor))
    densities = " + ".join(f"log p({name})" for name in origins)
    averaged = any(atom.site not in block.names for term in own for atom in term.atoms)
    what = f"E[{densities}]" if averaged else densities
    return f"density ∝ exp({what}), at about {_counted(len(block.names))} nodes"


def _counted(sites: int) -> str:
    return " × ".join([str(ENOUGH)] * sites)


def cost(block: NodesBlock, terms: Sequence[ClosedTerm]) -> str:
    """What stands at nodes, why, and the expectations that are taken there in a sweep."""
    count = ENOUGH ** len(block.names)
    rows = sum(
        {
            atom.site: math.prod(atom.site.expression.shape)
            for term in terms
            for atom in term.atoms
            if isinstance(atom.site, Predictor) and at_nodes(term, set(block.names))
        }.values()
    )
    taken = f"; {rows} × {count} expectations a sweep" if rows else ""
    why = (
        "with one joint table, which keeps their dependence"
        if len(block.names) > 1
        else "since the densities are no sums of products of functions of each latent"
    )
    return (
        f"{', '.join(block.names)}: on the nodes of a quadrature, {why};\n    the trapezoid rule, refined until "
        f"the bound and every average stand{taken}."
    )


def at_nodes(term: ClosedTerm, names: set[str]) -> bool:
    """Whether a function in a term is expected at every node of one of the sites."""
    supports = {a.labels[-1] for a in term.atoms if a.site in names and a.function == "indicator"}
    return any(
        supports & set(atom.labels) for atom in term.atoms if isinstance(atom.site, Predictor)
    )
