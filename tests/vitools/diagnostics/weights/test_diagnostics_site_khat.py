"""k̂ of single entries, where the marginal weights are known in closed form."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td

from vitools import Problem
from vitools.diagnostics import pareto_khat, site_khats
from vitools.diagnostics.weights.site_khat import marginal_log_weights
from vitools.posterior import FactorisedPosterior, Status


def correlated(rho: float, n: int, seed: int):
    """p = N(0, Σ), entries 0 and 1 correlated, entry 2 apart; q its optimal mean field."""
    sigma = torch.tensor([[1.0, rho, 0.0], [rho, 1.0, 0.0], [0.0, 0.0, 1.0]])
    precision = torch.linalg.inv(sigma)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator) / precision.diagonal().sqrt()
    log_p = -0.5 * torch.einsum("ni,ij,nj->n", x, precision, x)
    return x, log_p + 0.5 * (x.square() * precision.diagonal()).sum(-1)


@pytest.mark.parametrize("rho", [0.6, 0.8])
def test_marginal_weights_of_a_mean_field(rho):
    """var_q = 1 - ρ² and var_p = 1, so p(u) / q(u) = exp(½ u² (1/(1 - ρ²) - 1)) and k = ρ²."""
    x, log_weights = correlated(rho, 200_000, 0)
    fitted = marginal_log_weights(x, log_weights)
    curve = np.polynomial.polynomial.polyfit(x[:, 0], fitted[:, 0], 2)
    assert curve[2] == pytest.approx(0.5 * (1 / (1 - rho**2) - 1), rel=0.02)
    assert float(fitted[:, 2].std()) < 0.02


def test_the_culprits_are_named_and_the_innocent_left_alone():
    khats = []
    for seed in range(40):
        x, log_weights = correlated(0.8, 1000, seed)
        fitted = marginal_log_weights(x, log_weights)
        khats.append([pareto_khat(fitted[:, i]) for i in range(3)])
    mean, scatter = np.mean(khats, 0), np.std(khats, 0, ddof=1) / math.sqrt(40)
    tail = 95  # min(n/5, 3 √n)
    expected = (0.64 * tail + 5) / (tail + 10)  # the fit's prior: 10 draws of shape 1/2
    # 0.05: the quadratic is itself fitted to a thousand heavy-tailed weights
    assert abs(mean[0] - expected) < 4 * scatter[0] + 0.05
    assert abs(mean[1] - expected) < 4 * scatter[1] + 0.05
    assert mean[2] < 0.2


def two_sites(x):
    precise = pyro.sample("precise", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    pyro.sample("x", dist.Normal(precise.sum() + 0 * (scale + weights[0]), 100.0), obs=x)


def judged(scale_sd=1.0, precise_sd=(1.0, 1.0, 1.0), weights=(1.0, 1.0, 1.0)):
    problem = Problem(two_sites, torch.tensor(0.0))
    factors = {
        "precise": td.Independent(td.Normal(torch.zeros(3), torch.tensor(precise_sd)), 1),
        "scale": dist.LogNormal(0.0, torch.tensor(scale_sd)),
        "weights": td.Dirichlet(torch.tensor(weights)),
    }
    fit = FactorisedPosterior(problem, factors, 0.0, engine="test", status=Status.CONVERGED)
    values, log_q = fit.sample_with_log_prob(2000)
    return site_khats(problem, values, problem.log_joint(values) - log_q)


def test_sites_and_entries():
    found = judged(precise_sd=(1.0, 0.5, 1.0))
    assert found["precise"].at == "precise[1]"
    assert found["precise"].value > 0.35 > max(found["scale"].value, found["weights"].value)
    found = judged(scale_sd=0.5)
    assert found["scale"].value > 0.35 > found["precise"].value
    found = judged(weights=(3.0, 3.0, 3.0))
    assert found["weights"].at == "weights"
    assert found["weights"].value > 0.35 > found["precise"].value


def test_the_posterior_itself_has_no_culprit():
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    problem = Problem(two_sites, torch.tensor(0.0))
    values = {"precise": x, "scale": x[:, 0].exp(), "weights": torch.full((100, 3), 1 / 3)}
    found = site_khats(problem, values, torch.full((100,), -5.0))
    assert [k.value for k in found.values()] == [0.0, 0.0, 0.0]
