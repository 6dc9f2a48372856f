"""Is a fit that looks wrong the reference with other labels?

The components of a mixture may be numbered in any order: each order is a mode of the same height,
and two fits of one posterior may number them differently. Sorting tells: where each site's means,
sorted along a plate, are the reference's sorted, no mean is wrong but the labels.
"""

from collections.abc import Mapping

from torch import Tensor

from vitools.diagnostics.moments import Moments
from vitools.problem import Problem

CLOSE = 1.0
"""Standard deviations that two sorted means may be apart."""


def exchanged_plate(
    problem: Problem, found: Mapping[str, Moments], reference: Mapping[str, Moments]
) -> str | None:
    """The plate of components whose labels differ between a fit and a reference, or ``None``.

    Asked of models with discrete latents that are judged on their sites, and of plates
    without observations.
    """
    if not problem.discrete or problem.invariants is not None:
        return None
    observed = {name for site in problem.observed.values() for name in site.plates}
    for plate in problem.plates:
        sites = {
            name: site.plates.index(plate)
            for name, site in problem.continuous.items()
            if plate in site.plates and name in reference
        }
        if plate in observed or not sites:
            continue
        as_it_is = [_distance(found[k], reference[k]) for k in sites]
        matched = [_distance(found[k], reference[k], dim) for k, dim in sites.items()]
        if max(as_it_is) > CLOSE >= max(matched):
            return plate
    return None


def _distance(found: Moments, reference: Moments, sorted_along: int | None = None) -> float:
    """The largest error of a mean, in the reference's sds."""
    q, p, sd = found.mean, reference.mean, reference.sd
    if sorted_along is not None:
        q = q.sort(sorted_along).values
        p, order = p.sort(sorted_along)
        sd = sd.gather(sorted_along, order)
    return _largest((q - p).abs() / sd)


def _largest(errors: Tensor) -> float:
    """NaN, of a constant that is met, counts for nothing."""
    return float(errors.nan_to_num(nan=0.0).max())


def advise(plate: str) -> str:
    """What to do about it, in a sentence."""
    return (
        f"these are the reference's means with the labels of plate '{plate}' exchanged: judge by "
        "what no label changes (give the model a function as attribute model.invariants), or "
        "start both from one fit (start=)"
    )
