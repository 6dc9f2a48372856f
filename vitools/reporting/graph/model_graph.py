"""A Pyro model as a directed graph with plates, and its picture.

A model factorises as p(x₁, …, xₙ) = Π_d p(x_d | parents(d)): an arrow for each parent, and a plate
round what is repeated independently. Read by ``graph_extraction.py``, drawn by
``graph_drawing.py``.

Reference: Bishop (2006), Pattern Recognition and Machine Learning, section 8.1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ModelGraph", "Node", "Plate", "draw"]

Role = Literal["latent", "observed", "deterministic", "parameter", "constant", "elided"]


@dataclass(frozen=True)
class Node:
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
class Plate:
    """Independent repetitions: the plate's name, its full size, and the nodes inside it."""

    name: str
    size: int
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class ModelGraph:
    """Nodes in model order, edges (parent, child), and vectorised plates, outermost first.

    >>> import torch, pyro, pyro.distributions as dist
    >>> def model(y):
    ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("rows", len(y)):
    ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
    >>> graph = ModelGraph.from_model(model, torch.zeros(3))
    >>> graph.edges
    (('mu', 'y'),)
    >>> graph.plates
    (Plate(name='rows', size=3, nodes=('y',)),)
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]
    plates: tuple[Plate, ...]

    @classmethod
    def from_model(cls, model: Callable, *args: Any, **kwargs: Any) -> "ModelGraph":
        """The graph of ``model(*args, **kwargs)``: its latent and observed sites."""
        from vitools.reporting.graph.extraction import extract

        return extract(model, args, kwargs)

    def node(self, name: str) -> Node:
        """The node of that name."""
        return next(node for node in self.nodes if node.name == name)

    def parents(self, name: str) -> tuple[str, ...]:
        """Names of the direct parents of a node, in model order."""
        return tuple(parent for parent, child in self.edges if child == name)


def draw(
    problem: Any,
    path: str | PathLike[str] | None = None,
    *,
    hyperparameters: bool = False,
    deterministic: bool = False,
) -> "Figure":
    """Draw the model's graph with its plates; save it where ``path`` says (.svg, .png or .pdf).

    ``problem`` is anything with ``model``, ``args`` and ``kwargs``. Circles are unknowns, shaded
    circles are data, rounded rectangles are plates. ``hyperparameters`` adds a dot for the fixed
    arguments of each distribution and for each ``pyro.param``; ``deterministic`` adds
    ``pyro.deterministic`` sites, dashed, which otherwise are seen through. Of a sequence of more
    than twelve numbered sites the first three and the last are drawn, and a ⋯ for the others.
    """
    from vitools.reporting.graph.drawing import render, save
    from vitools.reporting.graph.extraction import extract

    graph = extract(
        problem.model,
        problem.args,
        problem.kwargs,
        hyperparameters=hyperparameters,
        deterministic=deterministic,
    )
    figure = render(graph)
    if path is not None:
        save(figure, path)
    return figure
