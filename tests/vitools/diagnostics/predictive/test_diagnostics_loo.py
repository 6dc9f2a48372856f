"""Leave-one-out scores of a conjugate regression, where they have a closed form."""

import math
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td

from vitools import Problem, to_arviz
from vitools.diagnostics.predictive.loo import elpd_difference, loo, waic
from vitools.diagnostics.predictive.predictive_checks import predictive_checks
from vitools.diagnostics.weights.khat import khat_threshold
from vitools.errors import DataError, OptionError
from vitools.posterior import DrawsPosterior, FactorisedPosterior, Status
from vitools.reporting.arviz.groups import import_arviz

N = 40


def regression(x, y):
    slope = pyro.sample("slope", dist.Normal(0.0, 10.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(N, generator=generator, dtype=torch.float64)
    return x, 1.5 * x + torch.randn(N, generator=generator, dtype=torch.float64)


def posterior_of(x, y):
    precision = float(x @ x) + 0.01
    return float(x @ y) / precision, precision**-0.5


def fit(x, y, mean, sd):
    q = td.Normal(torch.tensor(mean), torch.tensor(sd))
    problem = Problem(regression, x, y)
    return FactorisedPosterior(problem, {"slope": q}, 0.0, engine="cavi", status=Status.CONVERGED)


def truth(x, y):
    """log p(y_n | y_{-n}): N(x_n m_{-n}, 1 + x_n² / precision_{-n})."""
    mean, sd = posterior_of(x, y)
    rest = sd**-2 - x**2
    centre = (mean * sd**-2 - x * y) / rest
    return td.Normal(centre * x, (1 + x**2 / rest).sqrt()).log_prob(y)


def test_exact_posterior(data):
    found = loo(fit(*data, *posterior_of(*data)), num_samples=4000)
    expected = truth(*data)
    assert found.pointwise["y"].numpy() == pytest.approx(expected.numpy(), abs=0.02)
    spread = math.sqrt(N * float(expected.var()))
    assert found.elpd.value == pytest.approx(float(expected.sum()), abs=0.05)
    assert found.elpd.standard_error == pytest.approx(spread, rel=0.05)
    assert found.effective_parameters == pytest.approx(1.0, abs=0.6)
    assert found.num_above == 0


def test_an_approximation_is_corrected(data):
    """q is off by half an sd and a fifth too wide; only the correction brings the score back."""
    mean, sd = posterior_of(*data)
    crude = fit(*data, mean + 0.7 * sd, 1.3 * sd)
    found, expected = loo(crude, num_samples=8000), float(truth(*data).sum())
    assert found.elpd.value == pytest.approx(expected, abs=0.08)
    values, _ = crude.sample_with_log_prob(8000)
    naive = DrawsPosterior(
        crude.problem, {"slope": values["slope"][None]}, engine="nuts", status=Status.SAMPLED
    )
    assert abs(loo(naive).elpd.value - expected) > 0.15


def test_draws_agree_with_arviz(data):
    mean, sd = posterior_of(*data)
    generator = torch.Generator().manual_seed(0)
    draws = mean + sd * torch.randn(4, 500, generator=generator)
    problem = Problem(regression, *data)
    chains = DrawsPosterior(problem, {"slope": draws}, engine="nuts", status=Status.SAMPLED)
    found = loo(chains)
    arviz = import_arviz()
    theirs = arviz.loo(to_arviz(chains), pointwise=True)
    elpd = float(theirs.elpd if hasattr(theirs, "elpd") else theirs.elpd_loo)
    assert found.elpd.value == pytest.approx(elpd, abs=0.01)
    khats = np.asarray(theirs.pareto_k)
    assert np.abs(found.khats["y"].numpy() - khats).max() < 0.05
    if hasattr(arviz, "waic"):
        assert waic(chains).elpd.value == pytest.approx(
            float(arviz.waic(to_arviz(chains)).elpd_waic), abs=0.01
        )


@pytest.mark.parametrize("correlation", [0.9, -0.6])
def test_correlated_draws_have_the_tails_of_arviz(data, correlation):
    """The tail's length follows the effective sample size, which the draws' correlation sets."""
    mean, sd = posterior_of(*data)
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(4, 500, generator=generator).double()
    for i in range(1, 500):
        draws[:, i] = correlation * draws[:, i - 1] + math.sqrt(1 - correlation**2) * draws[:, i]
    problem = Problem(regression, *data)
    slope = mean + 3 * sd * draws  # wider than the posterior, so that tails are heavy
    chains = DrawsPosterior(problem, {"slope": slope}, engine="nuts", status=Status.SAMPLED)
    found = loo(chains)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that some k̂ are above the threshold
        theirs = import_arviz().loo(to_arviz(chains), pointwise=True)
    khats = np.asarray(theirs.pareto_k)
    assert found.khats["y"].numpy() == pytest.approx(khats, abs=1e-5)
    assert found.num_above == int((khats > khat_threshold(2000)).sum()) > 0
    independent = loo(
        DrawsPosterior(
            problem, {"slope": slope.reshape(1, -1)}, engine="nuts", status=Status.SAMPLED
        )
    )
    assert np.abs(independent.khats["y"].numpy() - khats).max() > 0.05


def test_waic_is_near_loo_where_all_is_well(data):
    exact = fit(*data, *posterior_of(*data))
    assert waic(exact).elpd.value == pytest.approx(loo(exact).elpd.value, abs=0.05)


def test_models_are_compared_in_pairs(data):
    x, y = data
    good = loo(fit(x, y, *posterior_of(x, y)))
    blind = loo(fit(torch.zeros_like(x), y, 0.0, 10.0))
    found = elpd_difference(good, blind)
    terms = good.pointwise["y"] - blind.pointwise["y"]
    assert found.value == pytest.approx(float(terms.sum()))
    assert found.standard_error == pytest.approx(math.sqrt(N) * float(terms.std()))
    assert found.value > 2 * found.standard_error
    with pytest.raises(OptionError, match="40 and 30 units"):
        elpd_difference(good, loo(fit(x[:30], y[:30], 1.5, 0.2)))


def test_predictive_checks(data):
    exact = fit(*data, *posterior_of(*data))
    found = predictive_checks(exact)
    assert set(found) == {"mean", "sd", "min", "max"}
    assert all(0.01 < check.p_value.value < 0.99 for check in found.values())
    # E x_rep has variance x̄² sd² + 1/N around x̄ m: p by the normal distribution
    x, y = data
    mean, sd = posterior_of(x, y)
    spread = math.sqrt(float(x.mean()) ** 2 * sd**2 + 1 / N)
    expected = float(1 - td.Normal(mean * x.mean(), spread).cdf(y.mean()))
    check = found["mean"]
    assert abs(check.p_value.value - expected) < 4 * check.p_value.standard_error
    wrong = fit(x, y, 6.0, 0.1)
    assert predictive_checks(wrong, {"sd": torch.std})["sd"].p_value.value > 0.999
    with pytest.raises(OptionError, match=r"no observed site 'Y'"):
        predictive_checks(exact, site="Y")
    with pytest.raises(DataError, match="'bad' is NaN"):
        predictive_checks(exact, {"bad": lambda x: x.mean() * math.nan})
