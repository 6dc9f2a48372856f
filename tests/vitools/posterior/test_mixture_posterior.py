"""Mixtures of posteriors against scipy, and what they refuse."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import distributions as td

from vitools import load, save
from vitools.distributions.mixture import Mixture
from vitools.errors import NotSupportedError, OptionError
from vitools.posterior import DrawsPosterior, FactorisedPosterior, MixturePosterior, Status
from vitools.problem import Problem

COMMON = {"engine": "test", "status": Status.CONVERGED}
PARTS = [(0.3, -1.0, 0.5), (0.7, 2.0, 1.5)]


def model():
    pyro.sample("x", dist.Normal(torch.zeros((), dtype=torch.float64), 3.0))
    pyro.sample("z", dist.Bernoulli(torch.tensor(0.5, dtype=torch.float64)))
    pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))


PROBLEM = Problem(model)


def component(mean, sd, p=0.5):
    q = td.Normal(torch.tensor(mean, dtype=torch.float64), torch.tensor(sd, dtype=torch.float64))
    z = td.Bernoulli(torch.tensor(p, dtype=torch.float64))
    return FactorisedPosterior(PROBLEM, {"x": q, "z": z}, 0.0, **COMMON)


@pytest.fixture
def fit():
    parts = [component(mean, sd, p=w) for w, mean, sd in PARTS]
    return MixturePosterior(PROBLEM, [w for w, _, _ in PARTS], parts, bound=-1.5, **COMMON)


def density(x):
    return sum(w * stats.norm(mean, sd).pdf(x) for w, mean, sd in PARTS)


def test_density_moments_and_marginals_are_the_weighted_sums(fit):
    x = torch.linspace(-5, 8, 50, dtype=torch.float64)
    expected = torch.as_tensor(density(x.numpy())).log()
    torch.testing.assert_close(fit.log_prob({"x": x}), expected)
    torch.testing.assert_close(fit.marginal("x").log_prob(x), expected)
    mean = 0.3 * -1 + 0.7 * 2
    variance = 0.3 * (0.25 + (mean + 1) ** 2) + 0.7 * (2.25 + (mean - 2) ** 2)
    assert float(fit.mean()["x"]) == pytest.approx(mean)
    assert float(fit.sd()["x"]) == pytest.approx(math.sqrt(variance))
    assert float(fit.marginal("z").mean) == pytest.approx(0.3 * 0.3 + 0.7 * 0.7)
    assert fit.elbo().value == -1.5


def test_quantiles_invert_the_cdf(fit):
    marginal = fit.marginal("x")
    p = torch.tensor([1e-6, 0.1, 0.29, 0.3, 0.9, 1 - 1e-9], dtype=torch.float64)
    torch.testing.assert_close(marginal.cdf(marginal.icdf(p)), p, rtol=1e-9, atol=1e-12)


@pytest.mark.uses_global_generator
def test_draws_follow_the_mixture_and_repeat(fit):
    draws = fit.sample(4000, seed=3)["x"]
    assert torch.equal(draws, fit.sample(4000, seed=3)["x"])

    def cdf(x):
        return sum(w * stats.norm(mean, sd).cdf(x) for w, mean, sd in PARTS)

    assert stats.kstest(draws.numpy(), cdf).pvalue > 1e-3
    assert stats.kstest(fit.marginal("x").sample((4000,)).numpy(), cdf).pvalue > 1e-3
    values, log_q = fit.sample_with_log_prob(20)
    torch.testing.assert_close(log_q, torch.as_tensor(density(values["x"].numpy())).log())


def test_components_on_disjoint_cells_are_asked_for_their_own_draws_only():
    low, high = (torch.tensor(x, dtype=torch.float64) for x in ((0.0, 1.0), (1.0, 3.0)))

    def uniform(bounds):
        q = {"x": td.Uniform(*bounds, validate_args=False), "z": td.Bernoulli(bounds[0] * 0 + 0.5)}
        return FactorisedPosterior(PROBLEM, q, 0.0, **COMMON)

    fit = MixturePosterior(
        PROBLEM, [0.25, 0.75], [uniform(low), uniform(high)], apart=["x"], **COMMON
    )
    x = torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64)
    expected = torch.tensor([0.25, 0.75 / 2, 0.0], dtype=torch.float64).log()
    torch.testing.assert_close(fit.log_prob({"x": x}), expected)


def test_it_is_saved_and_loaded(fit, tmp_path):
    save(fit, tmp_path / "mixture.safetensors")
    again = load(tmp_path / "mixture.safetensors", PROBLEM)
    assert isinstance(again, MixturePosterior)
    assert again.fingerprint == fit.fingerprint
    assert torch.equal(again.sample(50)["x"], fit.sample(50)["x"])
    assert again.elbo() == fit.elbo()


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0], "one for each of 2"),
        ([[0.5, 0.5]], "one for each of 2"),
        ([0.5, -0.5], "from 0 up"),
        ([0.0, 0.0], "not all 0"),
        ([math.nan, 1.0], "from 0 up"),
        ([math.inf, 1.0], "from 0 up"),
    ],
)
def test_wrong_weights_are_refused(weights, words):
    parts = [component(0.0, 1.0), component(1.0, 1.0)]
    with pytest.raises(OptionError, match=words):
        MixturePosterior(PROBLEM, weights, parts, **COMMON)


def test_what_has_no_density_or_another_problem_is_refused():
    draws = DrawsPosterior(PROBLEM, {"x": torch.zeros(1, 5, dtype=torch.float64)}, **COMMON)
    with pytest.raises(NotSupportedError, match="no density"):
        MixturePosterior(PROBLEM, [1.0], [draws], **COMMON)

    def other():
        pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    with pytest.raises(OptionError, match="Give fits of one Problem"):
        MixturePosterior(Problem(other), [1.0], [component(0.0, 1.0)], **COMMON)


def test_a_mixture_of_moments_that_are_infinite_where_there_is_no_weight():
    cauchy = td.Cauchy(torch.tensor(0.0), torch.tensor(1.0))
    mixture = Mixture(torch.tensor([1.0, 0.0]), [td.Normal(0.0, 1.0), cauchy])
    assert float(mixture.variance) == 1.0
