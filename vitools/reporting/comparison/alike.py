"""Whether fits are fits of one problem: the same sites, data and density."""

import math
from collections.abc import Mapping

import torch

from vitools.errors import OptionError
from vitools.posterior import Posterior


def check_alike(fits: Mapping[str, Posterior], verb: str) -> None:
    """Raise, by the names of two fits, unless all are of one problem. ``verb``: what is done with them."""
    (first, one), *others = fits.items()
    for name, other in others:
        if other.problem.fingerprint != one.problem.fingerprint:
            raise OptionError(
                f"'{first}' and '{name}' are fits of different problems: '{one.problem!r}' and "
                f"'{other.problem!r}' differ in their sites or observed values. {verb} fits of one "
                "Problem."
            )
        if not _have_equal_densities(one, other):
            raise OptionError(
                f"'{first}' and '{name}' have the same sites and data, but their models give "
                f"different densities (another prior or hyperparameter?). {verb} fits of one Problem."
            )


def have_equal_params(one: Posterior, other: Posterior) -> bool:
    """Whether the models' own parameters have the same values in two fits."""
    first, second = (fit.problem.params["params"] for fit in (one, other))
    return all(
        name in first and name in second and torch.equal(first[name], second[name])
        for name in one.problem.free_params
    )


def _have_equal_densities(one: Posterior, other: Posterior) -> bool:
    """Whether two problems agree at a draw from the prior (models with parameters may differ)."""
    first, second = one.problem, other.problem
    if first is second or first.params["params"] or second.params["params"]:
        return True
    point = {k: v[0] for k, v in first.starting_draws(1).items() if k in first.drawn}
    with torch.no_grad():
        values = [float(problem.log_joint(point)) for problem in (first, second)]
    return math.isclose(*values, rel_tol=1e-4, abs_tol=1e-4) or not all(map(math.isfinite, values))
