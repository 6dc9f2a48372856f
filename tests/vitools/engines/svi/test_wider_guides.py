"""Guides over more than the prior's support: taken where little lies beyond, which is said."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints

from vitools import Problem, exact, preflight, svi
from vitools.errors import NumericalError, OptionError


def _model(x):
    level = pyro.sample("level", dist.Uniform(0.0, 10.0))
    pyro.sample("x", dist.Normal(level, 0.5), obs=x)


def _guide(make, scale=0.1):
    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.5))
        width = pyro.param("width", torch.tensor(scale), constraint=constraints.positive)
        pyro.sample("level", make(loc, width))

    return guide


@pytest.fixture
def problem():
    return Problem(_model, torch.tensor(3.0))


def test_a_lognormal_on_a_uniform_prior_is_fitted_and_the_mass_beyond_is_said(problem):
    guide = _guide(dist.LogNormal)
    assert "LogNormal of 'level' is wider than the model's Uniform" in " ".join(
        str(preflight(problem, guide)).split()
    )
    fit = svi(problem, guide)
    truth = exact(problem)
    assert "mass of 'level' outside (0, 10): " in fit.detail
    assert float(fit.detail.rpartition(": ")[2]) < 1e-6
    bound = fit.elbo()
    assert abs(bound.value - truth.log_evidence.value) < 0.05 + 4 * bound.standard_error
    assert float(fit.mean()["level"]) == pytest.approx(float(truth.mean()["level"]), abs=0.05)


def test_half_open_supports_are_the_same():
    def model(x):
        scale = pyro.sample("scale", dist.HalfNormal(1.0))
        pyro.sample("x", dist.Normal(0.0, scale), obs=x)

    def guide(x):
        shape = pyro.param("shape", torch.tensor(2.0), constraint=constraints.positive)
        pyro.sample("scale", dist.Gamma(shape, shape))

    report = preflight(Problem(model, torch.tensor(0.5)), guide)
    assert "those of the priors" in str(report)
    assert report.wide == ()


def test_much_mass_beyond_is_another_support(problem):
    with pytest.raises(OptionError, match="draws 'level' outside its support"):
        svi(problem, _guide(dist.Normal, scale=3.0))


def test_a_run_lost_to_a_draw_beyond_says_so(problem):
    with pytest.raises(NumericalError, match=r"mass of 'level' outside \(0, 10\).*start the guide"):
        svi(problem, _guide(dist.LogNormal, scale=1.3))
