"""Jeffreys' priors against their names in textbooks, and inside of models."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, stats

from vitools import Problem, cavi, exact, laplace, nuts, svi
from vitools.errors import OptionError
from vitools.guides import AutoNormal
from vitools.information import jeffreys_prior


def T(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def bernoulli_prior():
    return jeffreys_prior(lambda p: dist.Bernoulli(p), 0.0, 1.0)


GRID = T([1e-6, 1e-3, 0.1, 0.37, 0.5, 0.9, 0.999])


def test_of_a_share_it_is_beta_one_half():
    prior = bernoulli_prior()
    assert torch.allclose(prior.log_prob(GRID), dist.Beta(T(0.5), T(0.5)).log_prob(GRID), atol=1e-7)
    p = T([0.01, 0.3, 0.8])
    assert torch.allclose(prior.cdf(p), 2 / math.pi * p.sqrt().asin(), atol=1e-8)
    several = jeffreys_prior(lambda p: dist.Binomial(7, p), 0.0, 1.0)  # however many are counted
    assert torch.allclose(several.log_prob(GRID), prior.log_prob(GRID), atol=1e-7)


def test_of_a_rate_between_bounds():
    """Counts: 1 / √λ; scales: 1 / s, uniform in log s."""
    rate = T([0.01, 1.0, 30.0])
    counts = jeffreys_prior(lambda r: dist.Poisson(r), 0.0, 50.0)
    assert torch.allclose(
        counts.log_prob(rate), -0.5 * rate.log() - math.log(2 * 50**0.5), atol=1e-7
    )
    scales = jeffreys_prior(lambda s: dist.Normal(0.0, s), 0.1, 100.0)
    s = T([0.11, 1.0, 30.0])
    assert torch.allclose(scales.log_prob(s), -s.log() - math.log(math.log(1000)), atol=1e-7)


@pytest.mark.parametrize("count", [3, 241])  # as many as the prior has nodes
def test_of_data_that_differ_by_covariate(count):
    x = torch.linspace(0, 2, count, dtype=torch.float64)
    prior = jeffreys_prior(lambda theta: dist.Bernoulli(logits=theta * x), -1.0, 3.0)

    def root(theta):  # F = Σ x² p (1 - p)
        share = torch.sigmoid(theta * x)
        return float((x**2 * share * (1 - share)).sum().sqrt())

    mass = integrate.quad(root, -1.0, 3.0)[0]
    density = float(prior.log_prob(torch.tensor(2.0).double()).exp())
    assert density == pytest.approx(root(2.0) / mass, rel=1e-6)


def test_of_a_whole_design():
    """A slope through 0 in a logistic regression: each row adds x² p (1 - p)."""
    x = T([-1.0, 0.5, 2.0])
    prior = jeffreys_prior(lambda w: dist.Bernoulli(logits=w.unsqueeze(-1) * x))
    w = torch.linspace(-60, 60, 60001)
    density = (x**2 * torch.sigmoid(w[:, None] * x) * torch.sigmoid(-w[:, None] * x)).sum(1).sqrt()
    density = density / torch.trapezoid(density, w)
    at = slice(10_000, 50_001, 5000)
    assert torch.allclose(prior.log_prob(w[at]).exp(), density[at], rtol=1e-5, atol=1e-12)


def test_it_draws_what_it_says():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = bernoulli_prior().sample((2000,))
    assert stats.kstest(draws.numpy(), stats.beta(0.5, 0.5).cdf).pvalue > 1e-3


HEADS = T([1, 1, 0, 1, 0, 1, 1, 1.0])


@pytest.fixture(scope="module")
def problem():
    torch.set_default_dtype(torch.float64)
    prior = bernoulli_prior()

    def model(flips):
        p = pyro.sample("p", prior)
        with pyro.plate("flips", len(flips)):
            pyro.sample("heads", dist.Bernoulli(p), obs=flips)

    return Problem(model, HEADS)


POSTERIOR = stats.beta(6.5, 2.5)


def test_exact_has_the_conjugate_posterior(problem):
    fit = exact(problem)
    assert float(fit.mean()["p"]) == pytest.approx(POSTERIOR.mean(), abs=1e-7)
    assert float(fit.sd()["p"]) == pytest.approx(POSTERIOR.std(), abs=1e-7)


def test_cavi_takes_it(problem):
    fit = cavi(problem)
    assert float(fit.mean()["p"]) == pytest.approx(POSTERIOR.mean(), abs=1e-6)
    assert float(fit.sd()["p"]) == pytest.approx(POSTERIOR.std(), abs=1e-6)


@pytest.mark.slow
def test_laplace_and_svi_take_it(problem):
    fit = svi(problem, AutoNormal, seed=0)
    assert float(fit.mean()["p"]) == pytest.approx(POSTERIOR.mean(), abs=0.02)
    assert float(laplace(problem).mean()["p"]) == pytest.approx(POSTERIOR.mean(), abs=0.05)


@pytest.mark.slow
def test_nuts_takes_it(problem):
    fit = nuts(problem, seed=0)
    error = POSTERIOR.std() / min(fit.ess.values()) ** 0.5
    assert abs(float(fit.mean()["p"]) - POSTERIOR.mean()) < 4 * error


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: jeffreys_prior(lambda m: dist.Normal(m, 1.0)), "low: Jeffreys' prior is improper on"),
        (lambda: jeffreys_prior(lambda s: dist.Normal(0.0, s), 0.0), "low: Jeffreys' prior is improper on"),
        (lambda: jeffreys_prior(lambda r: dist.Poisson(r), 0.0), "high: Jeffreys' prior is improper on"),
        (lambda: jeffreys_prior(lambda s: dist.Normal(0.0, s), 0.0, 1.0), "low: Jeffreys' prior is improper on"),
        (lambda: jeffreys_prior(lambda p: p, 0.0, 1.0), "returns a distribution, got Tensor"),
        (lambda: jeffreys_prior(lambda p: 1 / 0, 0.0, 1.0), "likelihood raised ZeroDivisionError .* division by zero"),
        (lambda: jeffreys_prior(lambda p: dist.Bernoulli(math.sqrt(p)), 0.0, 1.0), "likelihood raised (ValueError|RuntimeError|TypeError)"),
        (lambda: jeffreys_prior(3, 0.0, 1.0), "likelihood: expected a function .* got int"),
        (lambda: jeffreys_prior(lambda p: dist.Bernoulli(p), 1.0, 0.0), "high: expected a number above low"),
        (lambda: jeffreys_prior(lambda p: dist.Bernoulli(p), "a", 1.0), "low: expected a number, got 'a'"),
        (lambda: jeffreys_prior(lambda p: dist.Bernoulli(p), 0.0, math.nan), "high: expected a number, got nan"),
    ],
)  # fmt: skip
def test_what_is_refused(call, words):
    with pytest.raises(OptionError, match=words) as found:
        call()
    assert str(found.value).endswith(("…", "."))
