"""``nested=``: which sites it may name, and which of them stand on a lattice."""

from __future__ import annotations

from collections.abc import Sequence

from vitools.calculus.lattices import MOST_COORDINATES
from vitools.errors import NotSupportedError, OptionError
from vitools.problem import Problem
from vitools.problem.coordinates.boxes import coordinate_count, has_boxes
from vitools.problem.sites import nearest

MOST_CUT = 1
"""Scalars whose values are cut into cells as finely as it needs; of more of them there is a lattice."""


def check_nested(problem: Problem, nested: Sequence[str]) -> None:
    """Refuse what has no cells, by name."""
    if len(set(nested)) < len(nested):
        raise OptionError(f"nested: a site is named twice in {list(nested)}.")
    total = 0
    for name in nested:
        site = problem.latents.get(name) if isinstance(name, str) else None
        if site is None:
            raise OptionError(
                f"nested: no latent site {name!r}; latents are {list(problem.latents)}."
                f"{nearest(str(name), problem.latents)}"
            )
        if not has_boxes(site):
            what = "is discrete" if site.is_discrete else f"has the support {site.support}"
            raise NotSupportedError(
                f"nested: site '{name}' {what}, and cells are boxes of numbers. Name sites that are numbers, "
                "covariance or precision matrices, or Cholesky factors of correlations, such as the scale of "
                "the group effects."
            )
        total += coordinate_count(site)
    if total > MOST_COORDINATES:
        raise OptionError(
            f"nested: {' and '.join(map(repr, nested))} take{'s' * (len(nested) == 1)} {total} numbers, at "
            f"most {MOST_COORDINATES} can be nested: cells multiply with each. Name the sites that the others "
            "hang on most."
        )


def needs_a_lattice(problem: Problem, nested: Sequence[str]) -> bool:
    """Whether they are more than one number."""
    return sum(coordinate_count(problem.latents[name]) for name in nested) > MOST_CUT
