"""Nested factors against quadrature over the nested sites, and what cells must keep."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, stats

from vitools import Problem, cavi, load, save
from vitools.errors import NotSupportedError, OptionError
from vitools.posterior import FactorisedPosterior, MixturePosterior, Status

EFFECTS = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12], dtype=torch.float64)
ERRORS = torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18], dtype=torch.float64)


def schools(effects, errors):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(effects)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("effect", dist.Normal(theta, errors), obs=effects)


def exact_schools():
    """log evidence, mean and sd of tau: given tau the effects are jointly normal."""
    y, s = EFFECTS.numpy(), ERRORS.numpy()

    def joint(t):
        covariance = np.diag(s**2 + t**2) + 25.0
        at = stats.multivariate_normal(np.zeros(8), covariance).pdf(y)
        return 1e14 * at * stats.halfcauchy(scale=5).pdf(t)

    z, m, v = (
        integrate.quad(lambda t, k=k: t**k * joint(t), 0, np.inf, limit=500)[0] for k in range(3)
    )
    return math.log(z) - 14 * math.log(10), m / z, math.sqrt(v / z - (m / z) ** 2)


@pytest.fixture(scope="module")
def problem():
    return Problem(schools, EFFECTS, ERRORS)


@pytest.fixture(scope="module")
def fit(problem):
    return cavi(problem, nested=["tau"])


def test_the_bound_reaches_the_evidence_from_below_where_the_rest_is_exact(problem, fit):
    evidence, mean, sd = exact_schools()
    bound = fit.elbo().value
    assert evidence - 0.03 < bound < evidence
    assert cavi(problem, nested=()).elbo().value < bound - 1.0
    assert float(fit.mean()["tau"]) == pytest.approx(mean, abs=0.02 * sd)
    assert float(fit.sd()["tau"]) == pytest.approx(sd, rel=0.01)


def test_effects_and_their_mean_are_as_wide_as_the_posterior(fit):
    """Given tau they are jointly normal: quadrature over tau of their moments."""
    y, s = EFFECTS.numpy(), ERRORS.numpy()
    nodes, weights = np.polynomial.legendre.leggauss(600)
    tau, weights = 100 * (nodes + 1), weights * stats.halfcauchy(scale=5).pdf(100 * (nodes + 1))
    within = tau[:, None, None] ** 2 * np.eye(8) + 25.0  # of the effects, and of them with mu
    seen = within + np.diag(s**2)
    logs = np.array([stats.multivariate_normal(np.zeros(8), c).logpdf(y) for c in seen])
    chance = weights * np.exp(logs - logs.max())
    chance /= chance.sum()
    both = np.concatenate([within, np.full((600, 1, 8), 25.0)], 1)
    gain = both @ np.linalg.inv(seen)
    mean = gain @ y
    prior = np.concatenate([np.diagonal(within, axis1=1, axis2=2), np.full((600, 1), 25.0)], 1)
    variance = prior - (gain * both).sum(-1)
    whole = chance @ mean
    sd = np.sqrt(chance @ (variance + (mean - whole) ** 2))
    found = torch.cat([fit.sd()["theta"], fit.sd()["mu"].reshape(1)])
    torch.testing.assert_close(found, torch.as_tensor(sd), rtol=0.02, atol=0)


def test_cutting_never_lowers_the_bound(fit):
    assert bool((torch.tensor(fit.history.elbo).diff() >= -1e-9).all())
    assert fit.status is Status.CONVERGED
    assert "cells of its values" in fit.detail


def test_weights_average_to_the_bound_and_draws_to_the_moments(fit):
    weights = fit.log_weights(4000, seed=1)
    error = float(weights.std()) / math.sqrt(len(weights))
    assert float(weights.mean()) == pytest.approx(fit.elbo().value, abs=4.5 * error)
    draws = fit.sample(4000, seed=2)
    for name in ("tau", "theta", "mu"):
        error = fit.sd()[name] / math.sqrt(4000)
        assert bool(((draws[name].mean(0) - fit.mean()[name]).abs() < 4.5 * error).all())


def test_the_marginal_of_the_nested_site_is_whole(fit):
    tau = fit.marginal("tau")
    grid = torch.linspace(0.01, 60, 30_000, dtype=torch.float64)
    assert float(torch.trapezoid(tau.log_prob(grid).exp(), grid)) == pytest.approx(1.0, abs=2e-3)
    p = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    torch.testing.assert_close(tau.cdf(tau.icdf(p)), p, rtol=1e-8, atol=0)


def test_it_is_saved_loaded_and_made_again(problem, fit, tmp_path):
    save(fit, tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors", problem)
    assert isinstance(again, MixturePosterior)
    assert again.fingerprint == fit.fingerprint
    torch.testing.assert_close(again.log_weights(50), fit.log_weights(50))


def groups(y, group):
    tau = pyro.sample("tau", dist.HalfNormal(2.0))
    rate = pyro.sample("rate", dist.Gamma(2.0, 2.0))
    with pyro.plate("groups", 4):
        u = pyro.sample("u", dist.Normal(0.0, tau))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(u[group], rate.rsqrt()), obs=y)


@pytest.mark.slow
def test_more_nested_sites_raise_the_bound_to_the_evidence():
    group = torch.arange(12) % 4
    y = torch.tensor([1.0, -2, 0.5, 3, 1.5, -1, 0, 2, 0.2, -2.5, 1, 2.5], dtype=torch.float64)
    problem = Problem(groups, y, group)
    bounds = [
        cavi(problem, nested=nested).elbo().value for nested in ((), ["tau"], ["tau", "rate"])
    ]
    assert bounds[0] < bounds[1] < bounds[2]

    # given both, a group's three rows have covariance 1/rate + tau² everywhere
    nodes, weights = np.polynomial.legendre.leggauss(400)
    at, weights = 6 * (nodes + 1), 6 * weights
    tau, rate = at[:, None, None], at[None, :, None]
    rows = y.numpy().reshape(3, 4)
    total, squares = rows.sum(0), (rows**2).sum(0)
    share = rate * tau**2 / (1 + 3 * rate * tau**2)
    log = 1.5 * np.log(rate / (2 * math.pi)) - 0.5 * np.log1p(3 * rate * tau**2)
    log = (log - 0.5 * rate * (squares - share * total**2)).sum(-1)
    prior = stats.halfnorm(scale=2).pdf(at)[:, None] * stats.gamma(2, scale=0.5).pdf(at)
    evidence = math.log(weights @ (np.exp(log) * prior) @ weights)
    assert evidence - 0.04 < bounds[2] < evidence


def test_predictors_under_curved_functions_are_nested_too():
    generator = torch.Generator().manual_seed(3)
    group = torch.arange(60) % 6
    y = torch.bernoulli(
        torch.rand(6, generator=generator, dtype=torch.float64)[group], generator=generator
    )

    def model(y):
        tau = pyro.sample("tau", dist.HalfNormal(1.0))
        with pyro.plate("groups", 6):
            u = pyro.sample("u", dist.Normal(0.0, tau))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Bernoulli(logits=u[group]), obs=y)

    problem = Problem(model, y)
    plain, nested = cavi(problem, nested=()), cavi(problem, nested=["tau"])
    assert nested.elbo().value > plain.elbo().value
    assert float(nested.sd()["tau"]) > float(plain.sd()["tau"])
    # groups are independent given tau: quadrature over both
    counts = torch.zeros(6, dtype=torch.float64).index_add_(0, group, y).numpy()

    def of_group(k, tau):
        def at(u):
            log = k * u - 10 * np.logaddexp(0, u) - u**2 / (2 * tau**2)
            return np.exp(log) / (tau * math.sqrt(2 * math.pi))

        return integrate.quad(at, -12 * tau, 12 * tau, limit=200)[0]

    def joint(tau):
        return math.prod(of_group(k, tau) for k in counts) * stats.halfnorm.pdf(tau)

    z, m, v = (integrate.quad(lambda t, k=k: t**k * joint(t) * 1e15, 1e-3, 5)[0] for k in range(3))
    assert nested.elbo().value < math.log(z) - 15 * math.log(10)
    assert float(nested.mean()["tau"]) == pytest.approx(m / z, rel=0.03)
    assert float(nested.sd()["tau"]) == pytest.approx(math.sqrt(v / z - (m / z) ** 2), rel=0.05)


def test_where_nothing_depends_on_the_site_few_cells_do():
    def model():
        a = pyro.sample("a", dist.HalfNormal(torch.tensor(1.0, dtype=torch.float64)))
        pyro.sample("b", dist.Normal(0.0, torch.tensor(1.0, dtype=torch.float64)))
        pyro.sample("y", dist.Normal(a, 1.0), obs=torch.tensor(0.5, dtype=torch.float64))

    problem = Problem(model)
    fit = cavi(problem, nested=["a"])
    assert fit.elbo().value == pytest.approx(cavi(problem, nested=()).elbo().value, abs=1e-6)
    assert len(fit.components) <= 4


def test_interrupted_it_is_whole(problem):
    def stop(report):
        raise KeyboardInterrupt

    fit = cavi(problem, nested=["tau"], progress=stop)
    assert fit.status is Status.INTERRUPTED
    assert isinstance(fit, FactorisedPosterior | MixturePosterior)
    assert bool(fit.log_weights(20).isfinite().all())


@pytest.mark.parametrize(
    ("nested", "error", "words"),
    [
        ("tau", OptionError, "expected a list"),
        (3, OptionError, "expected a list"),
        (["tou"], OptionError, "no latent site 'tou'.*tau"),
        ([3], OptionError, "no latent site 3"),
        (["tau", "tau"], OptionError, "named twice"),
        (["mu", "tau", "theta"], OptionError, "'theta' take 10 numbers, at most 6"),
        (["theta"], OptionError, r"'theta' takes 8 numbers, at most 6"),
        (["effect"], OptionError, "no latent site 'effect'"),
    ],
)
def test_wrong_names_are_refused(problem, nested, error, words):
    with pytest.raises(error, match=words):
        cavi(problem, nested=nested)


def test_a_discrete_site_is_refused():
    def model():
        z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    with pytest.raises(NotSupportedError, match="'z' is discrete"):
        cavi(Problem(model), nested=["z"])


def test_a_site_inside_a_curved_function_is_refused():
    def model():
        a = pyro.sample("a", dist.Normal(torch.tensor(0.0).double(), 1.0))
        b = pyro.sample("b", dist.HalfNormal(torch.tensor(3.0).double()))
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Gumbel(a, b), obs=torch.tensor([0.3, 1.2, 0.7]).double())

    with pytest.raises(NotSupportedError, match="'a' inside a function of another latent"):
        cavi(Problem(model), nested=["a"])
