"""Which latents are nested on a lattice of their values unless asked otherwise, by counts.

Two kinds: the covariance of few group effects, of which a factor that knows none of them is as much too narrow
as one of their scale; and sites that need values (:mod:`.needed_values`), if these are few numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import torch

from vitools.calculus.algebra.expression import Expression
from vitools.calculus.blocks.block import DenseBlock
from vitools.calculus.blocks.dependence import FEW_GROUPS, MOST_NUMBERS, num_observed
from vitools.calculus.blocks.tree import TreeBlock
from vitools.calculus.model import ConjugateModel
from vitools.calculus.tracing.trace import ModelTrace, TracedSite
from vitools.calculus.values.reading import Reader, Reading
from vitools.errors import NotConjugateError
from vitools.problem import Problem
from vitools.problem.coordinates.boxes import coordinate_count, has_boxes

MOST_COORDINATES = 6
"""Numbers of all sites on a lattice."""
FEW_COORDINATES = 3
"""The same where nobody asked for it."""
SWEEPS = {1: 300, 2: 1200, 3: 4000}
"""About how many sweeps of the rest a lattice of so many coordinates takes: 4000 are 100 fits of 40 sweeps."""
MOST_OPERATIONS = 1e10


def covariances_of_few(trace: ModelTrace, but: Collection[str] = ()) -> tuple[str, ...]:
    """The latent matrix that is alone the covariance (or precision) of the fewest group effects, if these are few."""
    if num_observed(trace) > MOST_NUMBERS:
        return ()
    groups: dict[str, int] = {}
    for site in trace.sites.values():
        count = _number_of_groups(site)
        if not 1 < count < FEW_GROUPS:
            continue
        for argument in ("precision_matrix", "covariance_matrix", "scale_tril"):
            matrix = site.arguments.get(argument)
            names = matrix.sites() if isinstance(matrix, Expression) else set()
            for name in names if len(names) == 1 else ():
                if _is_one_matrix(trace.sites[name]) and name not in {*but, *trace.auxiliary}:
                    groups[name] = min(count, groups.get(name, count))
    return tuple(sorted(groups, key=lambda name: groups[name])[:1])


def _number_of_groups(site: TracedSite) -> int:
    """Of a latent vector in plates alone, else 0."""
    if not site.is_latent or site.distribution != "MultivariateNormal" or site.to_event:
        return 0
    return math.prod(site.batch_shape) if len(site.plates) == len(site.batch_shape) else 0


def _is_one_matrix(site: TracedSite) -> bool:
    return (
        site.is_latent and site.base_event_dim == 2 and not site.batch_shape and site.mask is None
    )


def operations(model: ConjugateModel) -> float:
    """Multiplications of a sweep, about: those of all terms, and of the normal factors."""
    total = 0.0
    sizes = model.joint.sizes
    for term in model.joint.terms:
        labels = term.constant_labels() | term.atom_labels()
        read = {selection.target for selection in term.selections}
        total += math.prod(sizes.get(x, 1) for x in labels - read)
    for block in model.blocks:
        if isinstance(block, TreeBlock):
            total += block.tree.operations
        elif isinstance(block, DenseBlock) and block.family.is_gaussian and block.natural:
            shape = block.natural[-1].shape
            total += math.prod(shape) * shape[-1]
    return total


def fits_a_lattice(problem: Problem, names: Sequence[str], model: ConjugateModel) -> bool:
    """Whether a lattice over these sites is made without being asked for.

    Args:
        model: of all latents, or of the rest.
    """
    sites = [problem.latents[name] for name in names]
    if not names or not all(has_boxes(site) for site in sites):
        return False
    count = sum(map(coordinate_count, sites))
    return count <= FEW_COORDINATES and SWEEPS[count] * operations(model) <= MOST_OPERATIONS


def lattice_of_few(
    problem: Problem, model: ConjugateModel, but: Collection[str] = ()
) -> tuple[str, ...]:
    """The covariance of few effects, where a lattice of it is small."""
    names = covariances_of_few(model.trace, but)
    return names if fits_a_lattice(problem, names, model) else ()


def can_stand_on_a_lattice(
    problem: Problem,
    names: Sequence[str],
    make: Callable[[Reading], ConjugateModel] = ConjugateModel.of_reading,
) -> bool:
    """Whether sites that need values get those of a lattice, by default."""
    if not names:
        return False
    draws = problem.starting_draws(1)
    try:
        with torch.no_grad():
            reader = Reader(problem.model, problem.args, problem.kwargs)
            return fits_a_lattice(problem, names, make(reader({n: draws[n] for n in names})))
    except NotConjugateError:  # found at other values: the sites are refused elsewhere, by name
        return False
