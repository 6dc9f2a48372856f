"""Copies of a fit, and fits that went through pickle, say what the fit says."""

import copy
import pickle

import pyro.distributions as dist
import pytest
import torch
from pyro import param, plate, sample
from pyro.infer.autoguide import AutoNormal
from torch.distributions import constraints

from vitools import Problem, cavi, dadvi, exact, laplace, nuts, svi
from vitools.errors import NotSupportedError
from vitools.guides import AutoMeanField, AutoMultivariate

DATA = torch.tensor([0.3, -1.2, 0.8, 1.9, -0.4], dtype=torch.float64)
ZERO = torch.zeros((), dtype=torch.float64)


def model(y):
    mean = sample("mean", dist.Normal(ZERO, 2.0))
    precision = sample("precision", dist.Gamma(ZERO + 2.0, ZERO + 2.0))
    shares = sample("shares", dist.Dirichlet(ZERO.new_tensor([1.0, 2.0])))
    with plate("rows", len(y)):
        sample("y", dist.Normal(mean, precision.rsqrt()), obs=y)
        sample("kind", dist.Categorical(shares), obs=(y > 0).long())


def guide(y):
    sample("mean", dist.Normal(param("loc", ZERO), 1.0))
    concentration = param("concentration", ZERO + 3.0, constraint=constraints.positive)
    sample("precision", dist.Gamma(concentration, 2.0))
    sample("shares", dist.Dirichlet(ZERO.new_tensor([3.0, 4.0])))


KINDS = {
    "cavi": cavi,
    "laplace": laplace,
    "dadvi": dadvi,
    "exact": lambda problem: exact(problem, tol=0.1),
    "nuts": lambda problem: nuts(problem, num_samples=20, num_warmup=20, num_chains=1),
    "mean field": lambda problem: svi(problem, AutoMeanField, max_steps=50, compile=False),
    "multivariate": lambda problem: svi(problem, AutoMultivariate, max_steps=50, compile=False),
    "Pyro's guide": lambda problem: svi(problem, AutoNormal, max_steps=50, compile=False),
    "own guide": lambda problem: svi(problem, guide, max_steps=50, compile=False),
}


def numbers(fit):
    draws = fit.sample(5, seed=3)
    found = [*fit.mean().values(), *fit.sd().values(), *draws.values()]
    return found if fit.engine == "nuts" else [*found, fit.log_prob(draws), fit.log_weights(5)]


@pytest.mark.parametrize("kind", KINDS)
def test_copies_say_the_same(kind):
    fit = KINDS[kind](Problem(model, DATA))
    expected = numbers(fit)
    for made in (copy.copy(fit), copy.deepcopy(fit), pickle.loads(pickle.dumps(fit))):
        assert all(map(torch.equal, numbers(made), expected))


def test_copies_are_their_own():
    fit = laplace(Problem(model, DATA))
    before, other = fit.location.clone(), copy.deepcopy(fit)
    other.location.add_(1.0)
    torch.testing.assert_close(fit.location, before, rtol=0, atol=0)


def test_an_engine_fits_a_copied_problem_alike():
    problem = Problem(model, DATA)
    copied = copy.deepcopy(problem)
    assert laplace(copied).detail == laplace(problem).detail
    fits = [svi(p, AutoMeanField, max_steps=20, compile=False) for p in (problem, copied)]
    assert all(map(torch.equal, numbers(fits[0]), numbers(fits[1])))


def test_pickle_names_save_where_the_model_has_no_address():
    def local(y):
        model(y)

    fit = laplace(Problem(local, DATA))
    assert torch.equal(copy.deepcopy(fit).mean()["mean"], fit.mean()["mean"])
    with pytest.raises(NotSupportedError, match=r"'.*local' cannot be imported.*save\(fit, path\)"):
        pickle.dumps(fit)
