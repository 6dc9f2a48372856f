"""The guide of a model for which nobody names one."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, svi
from vitools.guides import AutoMeanField, AutoMultivariate
from vitools.guides.default import MOST_JOINT, default_guide


def normals(size):
    def model():
        x = pyro.sample("x", dist.Normal(torch.zeros(size), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(x[0] + x[1], 0.5), obs=torch.tensor(1.0))

    return Problem(model)


def counts():
    """Its values cannot be listed, and a guide draws them."""
    n = pyro.sample("n", dist.Poisson(torch.tensor(3.0)))
    rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0), 1.0))
    pyro.sample("y", dist.Normal(n * rate, 1.0), obs=torch.tensor(1.0))


@pytest.mark.parametrize(
    ("problem", "guide"),
    [
        (normals(2), AutoMultivariate),
        (normals(MOST_JOINT), AutoMultivariate),
        (normals(MOST_JOINT + 1), AutoMeanField),
        (Problem(counts), AutoMeanField),
    ],
    ids=["two", "300", "301", "counts"],
)
def test_it_is_joint_as_long_as_that_is_cheap(problem, guide):
    assert default_guide(problem) is guide


def test_svi_without_a_guide_takes_it_and_says_so():
    problem = normals(2)
    fit = svi(problem, max_steps=300)
    assert type(fit.guide) is AutoMultivariate
    assert fit.detail.startswith("AutoMultivariate by default; 300 steps")
    named = svi(problem, AutoMultivariate, max_steps=300)
    assert "default" not in named.detail
    assert fit.fingerprint == named.fingerprint
