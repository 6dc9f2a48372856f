"""The groups that no fit is needed for: draws from the prior, and the data it predicts."""

from collections.abc import Mapping

from torch import Tensor

from vitools.problem import Problem
from vitools.problem.dims import site_dims
from vitools.problem.sites import Site
from vitools.reporting.arviz.dims import over_draws
from vitools.reporting.arviz.groups import Variable


def has_prior(problem: Problem) -> bool:
    """Whether all latents can be drawn from the prior (a flat density has no draws)."""
    return all(site.distribution != "ImproperUniform" for site in problem.latents.values())


def prior_groups(problem: Problem, num_samples: int, seed: int) -> dict[str, dict[str, Variable]]:
    """``prior`` (latents and deterministic sites) and ``prior_predictive``, of the same draws."""
    drawn = problem.prior(num_samples, seed)
    derived = problem.predictive(drawn, seed + 1, num_samples=num_samples)
    deterministic = {name: derived[name] for name in problem.deterministics}
    sites = problem.latents | problem.deterministics
    return {
        "prior": _named(sites, drawn | deterministic, num_samples),
        "prior_predictive": _named(problem.observed, derived, num_samples),
    }


def _named(
    sites: Mapping[str, Site], values: Mapping[str, Tensor], num_samples: int
) -> dict[str, Variable]:
    return {
        name: over_draws(
            (1, num_samples), *site_dims(site, tuple(values[name].shape[1:])), values[name]
        )
        for name, site in sites.items()
    }
