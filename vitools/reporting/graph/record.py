"""A Pyro model as a directed graph with plates.

A model factorises as p(x₁, …, xₙ) = Π_d p(x_d | parents(d)): an arrow for each parent, and a plate
round what is repeated independently. Read by ``extraction``, laid out and put on paper by ``drawing``.

Reference: Bishop (2006), Pattern Recognition and Machine Learning, section 8.1.
"""

from dataclasses import dataclass
from typing import Literal

__all__ = ["DrawnPlate", "GraphNode", "ModelGraph"]

Role = Literal["latent", "observed", "deterministic", "parameter", "constant", "elided"]


@dataclass(frozen=True)
class GraphNode:
    """A site: its name, the class of its distribution, its role, whether its values are discrete.

    A node of role ``"constant"`` stands for the fixed arguments of one site's distribution and its
    ``distribution`` is their text, such as ``"loc = 0, scale = 5"``. A node of role ``"elided"``
    is the ⋯ of a long sequence.
    """

    name: str
    distribution: str
    role: Role
    discrete: bool = False


@dataclass(frozen=True)
class DrawnPlate:
    """Independent repetitions: the plate's name, its full size, and the nodes inside it."""

    name: str
    size: int
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class ModelGraph:
    """Nodes in model order, edges (parent, child), and vectorised plates, outermost first."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[tuple[str, str], ...]
    plates: tuple[DrawnPlate, ...]

    def node(self, name: str) -> GraphNode:
        """The node of that name."""
        return next(node for node in self.nodes if node.name == name)

    def parents(self, name: str) -> tuple[str, ...]:
        """Names of the direct parents of a node, in model order."""
        return tuple(parent for parent, child in self.edges if child == name)
