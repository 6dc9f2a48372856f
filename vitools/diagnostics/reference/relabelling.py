"""Is a fit that looks wrong the reference with other labels? Are chains that disagree one another's?

The components of a mixture may be numbered in any order: each order is a mode of the same height,
and two fits of one posterior, or two chains of a sampler, may number them differently. Sorting tells:
where each site's means, sorted along a plate, are the reference's sorted, no mean is wrong but the
labels.
"""

from collections.abc import Mapping

from torch import Tensor

from vitools.diagnostics.reference.moments import Moments
from vitools.posterior import DrawsPosterior
from vitools.problem import Problem

CLOSE = 1.0
"""Standard deviations that two sorted means may be apart."""


def exchanged_plate(
    problem: Problem, found: Mapping[str, Moments], reference: Mapping[str, Moments]
) -> str | None:
    """The plate of components whose labels differ between a fit and a reference, or ``None``.

    Asked of mixtures (models with discrete latents, or whose data are of a mixture distribution)
    that are judged on their sites, and of plates without observations.
    """
    mixes = any("Mixture" in site.distribution for site in problem.observed.values())
    if not (problem.discrete or mixes) or problem.invariants is not None:
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


def switched_plate(posterior: DrawsPosterior) -> str | None:
    """The plate whose labels alone make chains disagree, or ``None``: each chain's means are the
    first's, or the first's with the labels of that plate exchanged."""
    problem = posterior.problem
    first, *others = (
        {
            name: Moments.of_chains(draws[chain : chain + 1])
            for name, draws in posterior.draws.items()
        }
        for chain in range(len(next(iter(posterior.draws.values()))))
    )
    plates = {
        exchanged_plate(problem, found, first) for found in others if not _agree(found, first)
    }
    return plates.pop() if len(plates) == 1 else None


def _agree(found: Mapping[str, Moments], reference: Mapping[str, Moments]) -> bool:
    return all(_distance(found[name], reference[name]) <= CLOSE for name in reference)


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
    """What to do about a fit with other labels, in a sentence."""
    return (
        f"these are the reference's means with the labels of plate '{plate}' exchanged: {_CURE}, or "
        "start both from one fit (start=)"
    )


def advise_chains(plate: str) -> str:
    """What to do about chains with other labels, in a sentence: to run longer is no use."""
    return (
        f"the chains sit in modes that differ by the labels of plate '{plate}' alone, and no length "
        f"of run mixes them: {_CURE}, or start all from one fit (start=)"
    )


_CURE = (
    "judge by what no label changes (give the model a function as attribute model.invariants "
    "before Problem(model, …) is made, and fit again)"
)
