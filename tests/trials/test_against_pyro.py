"""What Pyro's own runs say of the collection: densities to the last digits, bounds within Monte Carlo error."""

import math
from functools import cache

import discrete  # noqa: F401  (each fills the collection)
import groups  # noqa: F401
import pyros_own
import pytest
import regressions  # noqa: F401
import sequences  # noqa: F401
import structured  # noqa: F401
import torch
from trial import COLLECTION

from vitools import Posterior, Problem
from vitools.errors import NotSupportedError
from vitools.posterior import Estimate

POINTS = 3
BOUNDS = 200

NO_DENSITY = {
    "admissions": "through a transformation",
    "overdispersed_counts": "through a transformation",
    "mixture_guide": "through a transformation",
    "point_estimate": "is a point estimate",
}
"""Trials whose guides' density at given values is not to be had, and the words that say so."""

ONE_BY_ONE = {"drawn_discrete", "diagnosis", "indexed_annotators"}
"""Trials that Pyro does not enumerate in parallel: tables are indexed plainly, or the guide draws too."""

DROPOUT = {"grey_vae"}
"""Whose model draws in its network, so that a point has no one density."""

ALL = [pytest.param(t, id=t.name) for t in COLLECTION if t.name not in DROPOUT]
SOME = [
    pytest.param(t, id=t.name, marks=[] if t.is_quick else [pytest.mark.slow]) for t in COLLECTION
]


@cache
def _made(trial):
    model, guide, arguments = trial.make()
    return Problem(model, *arguments), model, guide, arguments


def _points(problem):
    if any(site.distribution == "ImproperUniform" for site in problem.latents.values()):
        return problem.starting_draws(POINTS)
    return problem.prior(POINTS)


@pytest.mark.parametrize("trial", ALL)
def test_the_log_joint_is_that_of_pyros_trace(trial):
    problem, model, _, arguments = _made(trial)
    points = {name: value for name, value in _points(problem).items() if name in problem.drawn}
    found = problem.log_joint(points)
    for i in range(POINTS if points else 1):
        values = {name: value[i] for name, value in points.items()}
        with pyros_own.own_run():
            expected = pyros_own.log_joint(model, arguments, values, problem.discrete)
        torch.testing.assert_close(found[i] if points else found, expected, rtol=1e-12, atol=1e-12)


def _posterior(trial):
    """What the trial's own guide says at its first parameters, and a draw of Pyro's with its log q."""
    problem, _, guide, arguments = _made(trial)
    if guide is None or "own_guide" in trial.refused:
        pytest.skip("there is none to be had")
    values, log_q = pyros_own.guide_draw(guide, arguments, problem.discrete)
    fit = Posterior.from_guide(problem, guide)
    return fit, {name: values[name] for name in problem.drawn}, log_q


@pytest.mark.parametrize("trial", [p for p in SOME if p.id not in DROPOUT])
def test_the_density_of_its_own_guide_is_that_of_pyros_trace(trial):
    for seed in range(POINTS):
        with pyros_own.own_run(seed):
            fit, values, log_q = _posterior(trial)
        if trial.name in NO_DENSITY:
            with pytest.raises(NotSupportedError, match=NO_DENSITY[trial.name]):
                fit.log_prob(values)
            return
        found = fit.log_prob(values)
        torch.testing.assert_close(found, log_q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("trial", SOME)
def test_the_bound_of_its_own_guide_is_that_of_pyros_loss(trial):
    """Of draws: Pyro's are one by one, on batches where the plates take them; ours are all rows'."""
    problem, model, guide, arguments = _made(trial)
    with pyros_own.own_run():
        if _posterior(trial)[0].points:
            pytest.skip("a point has no bound")
        alone = trial.name in ONE_BY_ONE
        bounds = pyros_own.bounds_one_by_one if alone else pyros_own.bounds
        expected = Estimate.of_mean(
            bounds(model, guide, arguments, problem.discrete, 40 if alone else BOUNDS)
        )
        fit, _, _ = _posterior(trial)  # with the parameters of the model, which has run by now
    found = fit.elbo(2000)
    error = math.hypot(found.standard_error, expected.standard_error)
    assert abs(found.value - expected.value) < 4.5 * error + 1e-10 * abs(expected.value)
