"""Curved functions of predictors whose data are far from unit scale, and what shares a factor there."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi

STEPS = torch.arange(10.0)


def spread_by_row(x, y):
    level = pyro.sample("level", dist.Normal(0.0, 10.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 10.0))
    log_scale = pyro.sample("log_scale", dist.Normal(0.0, 10.0))
    growth = pyro.sample("growth", dist.Normal(0.0, 10.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(level + slope * x, (log_scale + growth * x).exp()), obs=y)


def fitted(scale, **options):
    return cavi(Problem(spread_by_row, scale * STEPS, STEPS + torch.sin(9 * STEPS)), **options)


def test_a_log_scale_of_data_in_tens_starts_where_its_exponential_is_a_number():
    fit = fitted(10.0)
    assert fit.bound < -31.09  # the log evidence by importance sampling
    assert fit.bound > -31.6
    assert max(fit.history.elbo) < 0  # it was 1e56: rounding alone


def test_location_and_log_scale_each_share_a_factor_by_default():
    asked = fitted(1.0, joint=[("level", "slope"), ("log_scale", "growth")])
    assert fitted(1.0).bound == pytest.approx(asked.bound, abs=1e-6)
    assert fitted(1.0).bound > fitted(1.0, joint=()).bound + 0.1


def test_counts_by_calendar_year_are_those_by_year_from_the_first():
    counts = torch.tensor([0.0, 1, 0, 3, 1, 0, 5, 1, 8, 10])

    def by_year(x, y):
        level = pyro.sample("level", dist.ImproperUniform(dist.constraints.real, (), ()))
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Poisson((level + slope * x).exp()), obs=y)

    near, far = (cavi(Problem(by_year, STEPS + origin, counts)) for origin in (0.0, 2000.0))
    assert far.bound == pytest.approx(near.bound, abs=1e-5)
    for moment in ("mean", "sd"):
        found, wanted = (float(getattr(fit, moment)()["slope"]) for fit in (far, near))
        assert found == pytest.approx(wanted, rel=1e-3)
