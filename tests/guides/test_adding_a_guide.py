"""A guide family added here, in one file and one line of the table, serves under ``AutoMeanField``.

The Laplace distribution on the real line: x = μ + b ε. On a normal posterior N(m, s²) the member with the
smallest divergence is known:

    KL(La(μ, b) ‖ N(m, s²)) = -1 - log 2b + ½ log 2πs² + (2b² + (μ-m)²) / 2s²,   least at μ = m, b = s/√2.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from vitools import Problem, Status, svi
from vitools.errors import OptionError
from vitools.guides import AutoMeanField
from vitools.guides.family import GuideFamily, Parameter
from vitools.guides.mean_field.families import FAMILIES
from vitools.supports import base_support


class LaplaceGuideFamily(GuideFamily):
    """Parameters ``loc`` and ``log_scale``, of the shape of the value."""

    name = "laplace"

    def fits(self, support):
        return base_support(support) is constraints.real

    def start(self, site, init_scale):
        scale = site.scale * (0.1 if init_scale is None else init_scale) / math.sqrt(2)
        return {
            "loc": Parameter(site.location, site.event_dim),
            "log_scale": Parameter(scale.log(), site.event_dim),
        }

    def distribution(self, site, parameters):
        q = dist.Laplace(parameters["loc"], parameters["log_scale"].exp(), validate_args=False)
        return q.to_event(site.event_dim)

    def units(self, parameters):
        return {"loc": math.sqrt(2) * parameters["log_scale"].exp()}


@pytest.fixture
def added(monkeypatch):
    monkeypatch.setitem(FAMILIES, "laplace", LaplaceGuideFamily)


def model(y):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


ROWS = torch.tensor([0.3, 1.2, 0.7])
PRECISION = 1.0 + len(ROWS)


def divergence(loc, scale):
    """KL(La ‖ posterior), which is N(Σ y / P, 1 / P)."""
    mean, variance = float(ROWS.sum()) / PRECISION, 1 / PRECISION
    energy = (2 * scale**2 + (loc - mean) ** 2) / (2 * variance)
    return -1 - math.log(2 * scale) + 0.5 * math.log(2 * math.pi * variance) + energy


def test_it_comes_to_the_nearest_member(added):
    problem = Problem(model, ROWS)
    fit = svi(problem, AutoMeanField(model, families={"mean": "laplace"}), compile=False, seed=1)
    assert fit.status is Status.CONVERGED
    q = fit.marginal("mean")
    least = 0.5 * math.log(math.pi) - 0.5
    # "converged" says that less than a hundredth of a nat is left
    assert 0 <= divergence(float(q.mean), float(q.variance.sqrt()) / math.sqrt(2)) - least < 0.01


def test_it_is_offered_by_name_and_refused_where_it_does_not_fit(added):
    def positive(y):
        scale = pyro.sample("scale", dist.Gamma(2.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(0.0, scale), obs=y)

    with pytest.raises(OptionError, match="laplace"):
        AutoMeanField(positive, families={"scale": "laplace"})(ROWS)
