"""exact(): against closed forms and scipy's quadrature."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, stats

from vitools import Problem, Status, exact
from vitools.errors import NotSupportedError, NumericalError
from vitools.models import coin


def test_beta_bernoulli_evidence_and_moments_are_exact():
    flips = coin.simulate(30, seed=3)
    fit = exact(Problem(coin.model, flips, 2.0, 3.0))
    heads = float(flips.sum())
    a, b = 2.0 + heads, 3.0 + 30 - heads
    assert fit.log_evidence.value == pytest.approx(
        coin.exact_log_evidence(flips, 2.0, 3.0), abs=1e-8
    )
    assert float(fit.mean()["p"]) == pytest.approx(a / (a + b), abs=1e-7)
    assert float(fit.sd()["p"]) == pytest.approx(stats.beta(a, b).std(), abs=1e-7)
    assert fit.status is Status.EXACT


def test_draws_follow_the_posterior():
    flips = coin.simulate(30, seed=3)
    fit = exact(Problem(coin.model, flips))
    heads = float(flips.sum())
    draws = fit.sample(2000, seed=1)["p"].numpy()
    assert stats.kstest(draws, stats.beta(1 + heads, 31 - heads).cdf).pvalue > 1e-3


def test_two_dimensions_match_scipy():
    data = torch.tensor([0.3, 1.9, 2.2, 0.4])

    def model():
        mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
        scale = pyro.sample("scale", dist.HalfCauchy(torch.tensor(2.0)))
        with pyro.plate("rows", 4):
            pyro.sample("y", dist.Normal(mean, scale), obs=data)

    def density(mean, log_scale):
        """N(mean | 0, 3) half-Cauchy(scale | 2) scale Π N(y | mean, scale), written out."""
        scale = math.exp(log_scale)
        squares = sum((y - mean) ** 2 for y in data.tolist()) / scale**2 + (mean / 3.0) ** 2
        halves = 2 / (math.pi * 2.0 * (1.0 + (scale / 2.0) ** 2))
        return halves * scale / (3.0 * scale**4 * (2 * math.pi) ** 2.5) * math.exp(-squares / 2)

    value, error = integrate.dblquad(density, -8, 8, -15, 15, epsabs=1e-9, epsrel=1e-6)
    fit = exact(Problem(model))
    assert fit.log_evidence.value == pytest.approx(math.log(value), abs=1e-6 + error / value)


def test_two_distant_modes_are_both_counted():
    def model():
        x = pyro.sample("x", dist.Normal(0.0, 10.0))
        pyro.sample("y", dist.Normal(x.abs(), 0.1), obs=torch.tensor(6.0))

    def density(x):
        return stats.norm(0, 10).pdf(x) * stats.norm(abs(x), 0.1).pdf(6.0)

    half, _ = integrate.quad(density, 5, 7, epsabs=1e-14)
    fit = exact(Problem(model))
    assert fit.log_evidence.value == pytest.approx(math.log(2 * half), abs=1e-6)
    assert float(fit.mean()["x"]) == pytest.approx(0.0, abs=1e-5)


def test_discrete_only_model_is_summed():
    prior, likelihood = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.9, 0.1, 0.4])

    def model():
        z = pyro.sample("z", dist.Categorical(prior))
        pyro.sample("x", dist.Bernoulli(likelihood[z]), obs=torch.tensor(1.0))

    fit = exact(Problem(model))
    assert fit.log_evidence.value == pytest.approx(math.log(float(prior @ likelihood)), abs=1e-12)
    drawn = fit.sample(400, seed=0, discrete=True)["z"]
    expected = prior * likelihood / (prior @ likelihood)
    frequency = torch.bincount(drawn, minlength=3) / 400
    error = (expected * (1 - expected) / 400).sqrt()
    assert bool(((frequency - expected).abs() < 4 * error).all())


def test_a_large_problem_is_refused_with_its_size():
    def model():
        x = pyro.sample("x", dist.Normal(torch.zeros(8), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(x.sum(), 1.0), obs=torch.tensor(0.0))

    with pytest.raises(NotSupportedError, match=r"8 continuous dimensions.*1e\+12"):
        exact(Problem(model))


def test_what_needs_more_than_the_limit_of_evaluations_is_refused_before_the_first():
    def model():
        x = pyro.sample("x", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(x.sum(), 1.0), obs=torch.tensor(0.0))

    with pytest.raises(NotSupportedError, match=r"4 continuous dimensions.*300000 evaluations"):
        exact(Problem(model))


def test_a_density_that_is_nan_is_not_taken_for_zero():
    def model():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        scale = torch.where(x > -3.0, x, torch.nan).abs()  # NaN three sds out
        pyro.sample("y", dist.Normal(scale, 1.0), obs=torch.tensor(1.0))

    with pytest.raises(NumericalError, match=r"NaN at x = -"):
        exact(Problem(model))
