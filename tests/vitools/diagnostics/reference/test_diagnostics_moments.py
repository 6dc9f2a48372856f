"""Moments and their errors against closed forms."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td

from vitools import Problem
from vitools.diagnostics import Moments, moments
from vitools.diagnostics.reference.moments import quantities
from vitools.engines import exact
from vitools.models import coin
from vitools.posterior import DrawsPosterior, FactorisedPosterior, Status

FLIPS = coin.simulate(20)
HEADS = float(FLIPS.sum())


def posterior_of_coin() -> td.Beta:
    return td.Beta(torch.tensor(1 + HEADS).double(), torch.tensor(21 - HEADS).double())


def test_errors_of_independent_draws_match_their_scatter():
    generator = torch.Generator().manual_seed(0)
    draws = torch.empty(400, 500, dtype=torch.float64).exponential_(generator=generator)
    found = [Moments.of_draws(row) for row in draws]
    for value, error in [("mean", "mean_error"), ("sd", "sd_error")]:
        scatter = np.std([float(getattr(m, value)) for m in found], ddof=1)
        stated = np.mean([float(getattr(m, error)) for m in found])
        # heavy-tailed squares: their own noise adds to the 1/√(2·400) of the scatter
        assert stated == pytest.approx(scatter, rel=5 / math.sqrt(2 * 400))


def test_errors_of_a_markov_chain_count_its_autocorrelation():
    rho, chains, length = 0.8, 4, 5000
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(chains, length, 2, generator=generator, dtype=torch.float64)
    values = [noise[:, 0]]
    for t in range(1, length):
        values.append(rho * values[-1] + math.sqrt(1 - rho**2) * noise[:, t])
    found = Moments.of_chains(torch.stack(values, 1))
    # integrated autocorrelation times of x and of x², (1 + r) / (1 - r) with r = ρ and ρ²
    truth = math.sqrt((1 + rho) / (1 - rho) / (chains * length))
    assert found.mean_error.numpy() == pytest.approx(np.full(2, truth), rel=0.15)
    truth = math.sqrt(2 * (1 + rho**2) / (1 - rho**2) / (chains * length)) / 2
    assert found.sd_error.numpy() == pytest.approx(np.full(2, truth), rel=0.2)
    assert (found.mean.abs() < 4 * found.mean_error).all()
    assert ((found.sd - 1).abs() < 4 * found.sd_error).all()


def test_constant_entries_have_no_error():
    found = Moments.of_chains(torch.ones(2, 50, 3).double())
    assert torch.equal(found.mean, torch.ones(3).double())
    assert not found.sd.any()
    assert not found.sd_error.any()


def test_grid_moments_are_those_of_the_beta():
    fit = exact(Problem(coin.model, FLIPS))
    found = moments(fit, {})["p"]
    truth = posterior_of_coin()
    assert float(found.mean) == pytest.approx(float(truth.mean), abs=1e-9)
    assert float(found.sd) == pytest.approx(float(truth.stddev), abs=1e-9)
    assert float(found.mean_error) == 0.0


def test_closed_forms_are_preferred_to_draws():
    q = posterior_of_coin()
    fit = FactorisedPosterior(
        Problem(coin.model, FLIPS), {"p": q}, 0.0, engine="test", status=Status.CONVERGED
    )
    found = moments(fit, {"p": torch.full((10,), 0.123)})["p"]
    assert float(found.mean) == pytest.approx((1 + HEADS) / 22)
    assert float(found.sd_error) == 0.0


def test_invariants_replace_sites():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(mu.sum(), 1.0), obs=x)

    model.invariants = lambda values: {"sum": values["mu"].sum(-1)}
    problem = Problem(model, torch.tensor(1.0).double())
    q = td.Independent(td.Normal(torch.tensor([1.0, 2.0]).double(), 0.5), 1)
    fit = FactorisedPosterior(problem, {"mu": q}, 0.0, engine="test", status=Status.CONVERGED)
    draws = quantities(problem, fit.sample(4000))
    assert draws["sum"].shape == (4000,)
    found = moments(fit, draws)
    assert set(found) == {"sum"}
    assert abs(float(found["sum"].mean) - 3.0) < 4 * float(found["sum"].mean_error)
    assert abs(float(found["sum"].sd) - math.sqrt(0.5)) < 4 * float(found["sum"].sd_error)


def test_chains_are_used_whole():
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(4, 300, generator=generator, dtype=torch.float64)
    fit = DrawsPosterior(
        Problem(coin.model, FLIPS), {"p": draws}, engine="nuts", status=Status.SAMPLED
    )
    assert float(moments(fit, {})["p"].mean) == pytest.approx(float(draws.mean()))
