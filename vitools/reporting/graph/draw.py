"""The picture of a model's graph, from the problem to the file."""

from os import PathLike
from typing import Any

from matplotlib.figure import Figure

from vitools.reporting.graph.drawing import render, save
from vitools.reporting.graph.extraction import extract


def draw(
    problem: Any,
    path: str | PathLike[str] | None = None,
    *,
    hyperparameters: bool = False,
    deterministic: bool = False,
) -> Figure:
    """Draw the model's graph with its plates; save it where ``path`` says (.svg, .png or .pdf).

    ``problem`` is anything with ``model``, ``args`` and ``kwargs``. Circles are unknowns, shaded
    circles are data, rounded rectangles are plates. ``hyperparameters`` adds a dot for the fixed
    arguments of each distribution and for each ``pyro.param``; ``deterministic`` adds
    ``pyro.deterministic`` sites, dashed, which otherwise are seen through. Of a sequence of more
    than twelve numbered sites the first three and the last are drawn, and a ⋯ for the others.
    """
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
