"""A simplex seen a hundred thousand times: guides reach the bound that their family allows."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, svi
from vitools.distributions import StickBreaking
from vitools.guides import AutoDirichlet, AutoKumaraswamy, AutoLogisticNormal

COUNTS = torch.tensor([40_117.0, 29_903.0, 15_240.0, 9_871.0, 4_869.0], dtype=torch.float64)
TOTAL = int(COUNTS.sum())
PRIOR = dist.Dirichlet(torch.ones(5, dtype=torch.float64))


def model():
    p = pyro.sample("p", PRIOR)
    pyro.sample("x", dist.Multinomial(TOTAL, p, validate_args=False), obs=COUNTS)


def log_evidence():
    """The Dirichlet-multinomial, in closed form."""
    return float(dist.DirichletMultinomial(torch.ones(5).double(), TOTAL).log_prob(COUNTS))


@pytest.mark.slow
@pytest.mark.parametrize("guide", [AutoDirichlet, AutoLogisticNormal, AutoKumaraswamy])
def test_bounds_are_those_of_the_family(guide):
    least = 0.0
    if guide is AutoKumaraswamy:
        least = float(StickBreaking.closest_to(dist.Dirichlet(1 + COUNTS))[1])
    bound = svi(Problem(model), guide).elbo(4000)
    short = log_evidence() - bound.value
    assert least - 4 * bound.standard_error < short < least + 0.02 + 4 * bound.standard_error
