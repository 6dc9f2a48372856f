"""Where a run begins: narrow, tilted and far posteriors reached with default options."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, load, save, svi
from vitools.distributions import Kumaraswamy
from vitools.errors import NumericalError, OptionError
from vitools.guides import (
    AutoFlow,
    AutoKumaraswamy,
    AutoLogisticNormal,
    AutoMeanField,
    AutoMultivariate,
)

double = torch.float64


def line(x, y):
    """y = a + b x + noise of sd .1; with x far from 0, a and b are all but one number."""
    a = pyro.sample("a", dist.Normal(torch.zeros((), dtype=double), 1000.0))
    b = pyro.sample("b", dist.Normal(torch.zeros((), dtype=double), 100.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(a + b * x, 0.1), obs=y)


@pytest.fixture(scope="module")
def years():
    x = torch.linspace(1950.0, 2010.0, 40, dtype=double)
    noise = torch.randn(40, dtype=double, generator=torch.Generator().manual_seed(0))
    return x, 300.0 - 0.14 * x + 0.1 * noise


def exact_line(x, y):
    design = torch.stack([torch.ones_like(x), x], 1)
    prior = torch.tensor([1e-6, 1e-4], dtype=double).diag()
    precision = prior + design.mT @ design / 0.01
    mean = torch.linalg.solve(precision, design.mT @ y / 0.01)
    return torch.distributions.MultivariateNormal(mean, precision_matrix=precision)


def gaussian_of(fit):
    draws = fit.sample(4000, seed=5)
    vector = torch.stack([draws["a"], draws["b"]], 1)
    return torch.distributions.MultivariateNormal(vector.mean(0), torch.cov(vector.mT))


@pytest.mark.parametrize(
    "guide", [AutoMultivariate, pytest.param(AutoFlow, marks=pytest.mark.slow)]
)
def test_a_ridge_a_hundred_times_longer_than_wide_is_fitted(years, guide):
    exact = exact_line(*years)
    covariance = exact.covariance_matrix
    correlation = covariance[0, 1] / covariance.diagonal().prod().sqrt()
    assert correlation < -0.9999
    fit = svi(Problem(line, *years), guide, max_steps=6000, compile=False)
    assert fit.status.label == "converged"
    assert "from a quick search" in fit.detail
    # 4000 draws of a Gaussian in 2 dimensions have an expected KL of 5/8000 themselves
    assert torch.distributions.kl_divergence(gaussian_of(fit), exact) < 0.02


def test_without_the_search_it_is_not(years):
    """What the search is for: the same run from the prior's centre stays far away."""
    fit = svi(Problem(line, *years), AutoMultivariate, max_steps=3000, compile=False, start="guide")
    assert "from the guide as it was" in fit.detail
    assert torch.distributions.kl_divergence(gaussian_of(fit), exact_line(*years)) > 10


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_a_fit_does_not_depend_on_the_unit_of_measurement(scale):
    """The same heights in other units take the same steps to the same posterior."""
    heights = scale * torch.tensor([170.0, 182.0, 165.0, 177.0, 171.0], dtype=double)

    def model():
        level = pyro.sample("level", dist.Normal(scale * heights.new_zeros(()), 1000.0 * scale))
        with pyro.plate("people", 5):
            pyro.sample("x", dist.Normal(level, 7.0 * scale), obs=heights)

    fit = svi(Problem(model), AutoMeanField, compile=False)
    precision = 5 / 49 + 1e-6
    mean = heights.sum() / 49 / precision
    sd = scale / precision**0.5
    assert abs(fit.mean()["level"] - mean) < 0.05 * sd
    assert abs(fit.marginal("level").stddev / sd - 1) < 0.05
    assert len(fit.history) < 4000


def test_a_narrow_share_of_a_million_is_found():
    """Beta(300 001, 700 001): its sd is 5e-4. The truth is the Kumaraswamy nearest to it."""

    def model():
        share = pyro.sample("share", dist.Beta(torch.ones((), dtype=double), 1.0))
        counts = torch.tensor(300_000.0, dtype=double)
        pyro.sample("counts", dist.Binomial(1_000_000, share), obs=counts)

    fit = svi(Problem(model), AutoKumaraswamy, compile=False)
    exact = dist.Beta(*torch.tensor([300_001.0, 700_001.0], dtype=double))
    _, least = Kumaraswamy.closest_to(exact)
    lost = torch.distributions.kl_divergence(fit.marginal("share"), exact) - least
    assert lost < 0.02  # nats; the stopping rule looks for gains of .2


def test_a_start_that_is_worse_than_the_prior_s_is_not_taken():
    """Gaussians on the reals, which the search knows, are far from a sparse Dirichlet."""
    counts = torch.zeros(50, dtype=double)
    counts[[3, 17, 40]] = torch.tensor([6.0, 3.0, 1.0], dtype=double)

    def model():
        shares = pyro.sample("shares", dist.Dirichlet(torch.full_like(counts, 0.02)))
        pyro.sample("counts", dist.Multinomial(10, shares), obs=counts)

    problem = Problem(model)
    options = {"max_steps": 8, "compile": False}
    fit = svi(problem, AutoLogisticNormal, **options)
    assert "from the guide as it was (better than where a search led)" in fit.detail
    plain = svi(problem, AutoLogisticNormal, start="guide", **options)
    searched = svi(problem, AutoLogisticNormal, start="search", **options)
    assert fit.history.elbo == plain.history.elbo
    assert searched.history.elbo[0] < plain.history.elbo[0]


def test_an_old_fit_keeps_its_own_start_when_the_guide_is_moved(years, tmp_path):
    problem = Problem(line, *years)
    fit = svi(problem, AutoMultivariate, max_steps=500, compile=False)
    before = fit.sample(10, seed=1)
    save(fit, tmp_path / "fit.safetensors")
    svi(problem, fit.guide, max_steps=20, compile=False, start="search", seed=7)
    loaded = load(tmp_path / "fit.safetensors", problem)
    for again in (fit.sample(10, seed=1), loaded.sample(10, seed=1)):
        for name, draws in before.items():
            assert torch.equal(draws, again[name])


def test_a_guide_that_was_trained_goes_on_from_where_it_is(years):
    problem = Problem(line, *years)
    fit = svi(problem, AutoMultivariate, max_steps=1000, compile=False)
    more = svi(problem, fit.guide, max_steps=200, compile=False, seed=1)
    assert "from the guide as it was" in more.detail
    # a draw's bound scatters by a nat or two; from the prior's centre it is millions lower
    assert min(more.history.elbo) > min(fit.history.elbo[-400:]) - 10


def test_another_fit_as_start(years):
    problem = Problem(line, *years)
    first = svi(problem, AutoMultivariate, max_steps=400, compile=False)
    fit = svi(problem, AutoFlow, max_steps=8, compile=False, start=first)
    assert "from a fit by svi" in fit.detail


def nowhere():
    level = pyro.sample("level", dist.Normal(torch.zeros((), dtype=double), 1.0))
    pyro.factor("never", torch.where(level.abs() < 1e9, -torch.inf, 0.0) + 0 * level)


def test_what_start_may_be(years):
    problem = Problem(line, *years)
    with pytest.raises(OptionError, match="start: expected a fit, 'search' or 'guide', got 'mode'"):
        svi(problem, AutoMeanField, start="mode")
    with pytest.raises(OptionError, match="AutoNormal knows no search"):
        svi(problem, pyro.infer.autoguide.AutoNormal, start="search")


def test_a_search_that_was_asked_for_and_fails_is_an_error():
    with pytest.raises(NumericalError, match="no start of finite posterior density"):
        svi(Problem(nowhere), AutoMeanField, start="search")
