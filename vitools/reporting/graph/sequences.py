"""Numbered sites as sequences: z_1, z_2, … kept side by side, and long ones shortened to a ⋯.

A model that loops over time names a site for each step. On paper z₁ → z₂ → z₃ → ⋯ → z₁₀₀ says as
much as a hundred circles do.
"""

from dataclasses import replace
from itertools import pairwise

from vitools.reporting.graph.names import numbered
from vitools.reporting.graph.record import GraphNode, ModelGraph

__all__ = ["abridged", "sequences"]

LONGEST = 12  # steps that are drawn one by one
KEPT = 3  # of a longer sequence, these first ones and the last one


def sequences(graph: ModelGraph) -> list[list[str]]:
    """Names that share a stem, by number, where every step is an arrow or none is.

    Elsewhere numbers are only names, as in a network of x0, x1, x2 with arrows as they come.
    """
    families: dict[str, dict[int, str]] = {}
    for node in graph.nodes:
        if stem_and_number := numbered(node.name):
            stem, number = stem_and_number
            families.setdefault(stem, {})[number] = node.name
    found = []
    for family in families.values():
        names = [family[number] for number in sorted(family)]
        inner = {edge for edge in graph.edges if set(edge) <= set(names)}
        consecutive = max(family) - min(family) + 1 == len(family) > 1
        if consecutive and (not inner or set(pairwise(names)) <= inner):
            found.append(names)
    return found


def abridged(graph: ModelGraph) -> tuple[ModelGraph, list[list[str]]]:
    """The graph with the middle of long sequences as one node of role "elided"; its sequences."""
    runs = sequences(graph)
    stand_in: dict[str, str] = {}
    for index, names in enumerate(runs):
        if len(names) > LONGEST:
            dots = f"{names[KEPT]}…{names[-2]}"
            stand_in.update(dict.fromkeys(names[KEPT:-1], dots))
            runs[index] = [*names[:KEPT], dots, names[-1]]
    if not stand_in:
        return graph, runs
    together = {name: i for i, names in enumerate(runs) for name in names}

    def shown(name: str) -> str:
        return stand_in.get(name, name)

    nodes = {
        name: GraphNode(name, "", "elided") if name != node.name else node
        for node in graph.nodes
        for name in [shown(node.name)]
    }
    edges: dict[tuple[str, str], None] = {}
    for u, v in graph.edges:
        parent, child = shown(u), shown(v)
        # What enters or leaves the ⋯ from outside its own sequence repeats what the others show.
        elided = "elided" in (nodes[parent].role, nodes[child].role)
        same = together.get(parent, -1) == together.get(child, -2)
        if parent != child and (same or not elided):
            edges[parent, child] = None
    plates = tuple(
        replace(plate, nodes=tuple(dict.fromkeys(map(shown, plate.nodes))))
        for plate in graph.plates
    )
    return ModelGraph(tuple(nodes.values()), tuple(edges), plates), runs
