"""A fit whose nested sites stand on a lattice of values."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vitools.calculus import ConjugateModel
from vitools.calculus.recession import check_determined
from vitools.calculus.values.reading import Reader, Reading
from vitools.engines.cavi.coordinate_ascent import Schedule
from vitools.engines.cavi.nested.given import RestOfModel
from vitools.engines.cavi.nested.lattice import Lattice
from vitools.engines.cavi.outcome import REPORTED_ERROR, factors
from vitools.engines.progress import Listener
from vitools.engines.start_values import StartMoments
from vitools.posterior import FactorisedPosterior, MixturePosterior
from vitools.problem import Problem
from vitools.problem.coordinates.boxes import NestedSpace

STARTS = 8
"""Draws from the prior of which the best is where the search for the maximum begins, for each start."""


def fit_on_lattice(
    problem: Problem,
    names: Sequence[str],
    reader: Reader,
    make: Callable[[Reading], ConjugateModel],
    initialise: Callable[[ConjugateModel], object],
    schedule: Schedule,
    start: StartMoments,
    seed: int,
    restarts: int,
    began: float,
    progress: Listener | None,
    remarks: Sequence[str],
) -> MixturePosterior:
    """The mixture over the cells of a lattice, inside the store that holds the model's parameters."""
    space = NestedSpace(problem, names)
    points = _starting_points(problem, space, start, seed, restarts)
    rest = RestOfModel(reader, space, make, initialise, schedule, points[0], 2**space.size)
    lattice = Lattice(rest, points, began, progress)
    status = lattice.run()
    assert lattice.panels is not None
    rest.model.load(max(lattice.cells, key=lambda cell: cell.bound).fitted.state)
    error = max(lattice.error, rest.model.integral_error())
    common: dict[str, Any] = {"engine": "cavi", "status": status, "seed": seed}
    parts = []
    edges, heights = lattice.panels.edges, lattice.panels.log_density
    for cell in lattice.cells:
        rest.model.load(cell.fitted.state)
        check_determined(rest.model)
        of_nested = space.densities(edges[cell.panel], heights[cell.panel])
        made = factors(rest.model)
        made.update(of_nested)
        parts.append(FactorisedPosterior(problem, made, cell.bound, bound_error=error, **common))
    words = [lattice.in_words(), *remarks]
    if error > REPORTED_ERROR:
        words.append(
            f"averages over cells and integrals in the bound accurate to about {error:.1g} nats"
        )
    return MixturePosterior(
        problem,
        lattice.bounds.softmax(0),
        parts,
        apart=space.names,
        bound=lattice.bound,
        bound_error=error if error > REPORTED_ERROR else 0.0,
        detail="; ".join(words),
        history=lattice.history,
        seconds=time.perf_counter() - began,
        **common,
    )


def _starting_points(
    problem: Problem, space: NestedSpace, start: StartMoments, seed: int, restarts: int
) -> Tensor:
    """Where sites are not given: draws from the prior."""
    drawn = problem.starting_draws(STARTS * restarts, seed)
    for name in space.names:
        if name in start.sites:
            drawn[name] = start.sites[name].mean.to(drawn[name]).expand_as(drawn[name])
    points = space.point({name: drawn[name] for name in space.names})
    return torch.unique(points, dim=0)
