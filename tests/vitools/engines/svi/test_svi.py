"""svi(): against exact posteriors, and what it says when things go wrong."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

from vitools import Problem, Status, VitoolsError, exact, preflight, svi
from vitools.engines.progress import Progress
from vitools.errors import NumericalError, OptionError, VitoolsWarning
from vitools.guides import AutoKumaraswamy
from vitools.models import coin


def gaussian_model(features, target):
    with pyro.plate("columns", features.shape[1]):
        w = pyro.sample("w", dist.Normal(torch.zeros((), dtype=features.dtype), 1.0))
    with pyro.plate("rows", len(target)):
        pyro.sample("y", dist.Normal(features @ w, 0.5), obs=target)


@pytest.fixture
def gaussian():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 3, generator=generator)
    target = features @ torch.tensor([1.0, -0.5, 0.2]) + 0.5 * torch.randn(40, generator=generator)
    precision = features.T @ features / 0.25 + torch.eye(3)
    mean = torch.linalg.solve(precision, features.T @ target / 0.25)
    covariance = 0.25 * torch.eye(40) + features @ features.T
    evidence = torch.distributions.MultivariateNormal(torch.zeros(40), covariance).log_prob(target)
    return Problem(gaussian_model, features, target), mean, precision, float(evidence)


def test_full_rank_guide_finds_the_gaussian_posterior(gaussian):
    problem, mean, precision, evidence = gaussian
    fit = svi(problem, AutoMultivariateNormal, seed=1)
    assert fit.status is Status.CONVERGED
    sd = precision.inverse().diagonal().sqrt()
    marginal = fit.sample(20_000, seed=2)["w"]
    error = sd / math.sqrt(20_000)
    assert bool(((marginal.mean(0) - mean).abs() < 4 * error + 0.02 * sd).all())
    bound = fit.elbo(2000)
    assert bound.value <= evidence + 4 * bound.standard_error
    assert bound.value > evidence - 0.01 - 4 * bound.standard_error


def test_mean_field_guide_has_the_sd_theory_gives(gaussian):
    problem, mean, precision, _ = gaussian
    fit = svi(problem, AutoNormal, seed=1, num_particles=2)
    draws = fit.sample(20_000, seed=2)["w"]
    expected = precision.diagonal().rsqrt()
    assert bool(((draws.std(0) / expected - 1).abs() < 0.05).all())
    assert bool(((draws.mean(0) - mean).abs() < 0.06 * expected).all())


def test_model_parameters_are_fitted_and_kept():
    data = torch.tensor([1.0, 2.0, 3.0, 6.0])

    def model():
        shift = pyro.param("shift", torch.tensor(0.0))
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 4):
            pyro.sample("y", dist.Normal(x + shift, 1.0), obs=data)

    fit = svi(Problem(model), AutoNormal, seed=0)
    # log p(y | shift) is maximal at shift = mean(y), where x has mean 0
    assert float(fit.problem.params["params"]["shift"].detach()) == pytest.approx(3.0, abs=0.05)
    assert float(fit.mean()["x"]) == pytest.approx(0.0, abs=0.1)
    assert len(pyro.get_param_store()) == 0


def test_discrete_latents_are_summed_out():
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(60, generator=generator) < 0.3
    data = torch.where(z, 3.0, -2.0) + 0.3 * torch.randn(60, generator=generator)

    def model():
        share = pyro.sample("share", dist.Beta(1.0, 1.0))
        with pyro.plate("rows", 60):
            component = pyro.sample("component", dist.Bernoulli(share))
            pyro.sample("y", dist.Normal(5.0 * component - 2.0, 0.3), obs=data)

    fit = svi(Problem(model), AutoKumaraswamy, seed=0)
    count = float((data > 0.5).sum())  # components are unmistakable
    exact = torch.distributions.Beta(1 + count, 61 - count)
    assert float(fit.mean()["share"]) == pytest.approx(float(exact.mean), abs=0.01)
    assert float(fit.sd()["share"]) == pytest.approx(float(exact.stddev), rel=0.1)


def test_a_guide_without_reparameterisation_still_fits():
    def model():
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        pyro.sample("n", dist.Poisson(rate), obs=torch.tensor(4.0))

    def guide():
        a = pyro.param("a", torch.tensor(0.0)).exp() + 0.5
        b = pyro.param("b", torch.tensor(0.0)).exp()
        pyro.sample("rate", dist.testing.fakes.NonreparameterizedGamma(a, b))

    fit = svi(Problem(model), guide, num_particles=10, seed=0)
    mean = fit.sample(4000, seed=1)["rate"].mean()
    assert float(mean) == pytest.approx(3.0, abs=0.25)  # Gamma(6, 2)


def test_same_seed_same_numbers_and_another_seed_others(gaussian):
    problem = gaussian[0]
    fits = [svi(problem, AutoNormal, seed=s, max_steps=200).history.elbo for s in (5, 5, 6)]
    assert fits[0] == fits[1]
    assert fits[0] != fits[2]


def test_the_limit_is_reported(gaussian):
    fit = svi(gaussian[0], AutoNormal, max_steps=50)
    assert fit.status is Status.STOPPED_AT_LIMIT
    assert len(fit.history) == 50


def test_progress_is_reported_and_ctrl_c_keeps_the_state(gaussian):
    seen = []

    def interrupt(progress: Progress) -> None:
        seen.append(progress)
        raise KeyboardInterrupt

    fit = svi(gaussian[0], AutoNormal, progress=interrupt)
    assert fit.status is Status.INTERRUPTED
    assert seen[0].engine == "svi"
    assert fit.sample(3)["w"].shape == (3, 3)


def test_nan_names_the_site_and_keeps_the_last_good_state():
    def model():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        y = pyro.sample("y", dist.Normal(0.0, 1.0))
        pyro.sample("seen", dist.Normal((x - 0.2).sqrt() + y, 1.0), obs=torch.tensor(0.0))

    def guide():
        loc = pyro.param("loc", torch.tensor(4.0))
        pyro.sample("x", dist.Normal(loc, 0.01))
        pyro.sample("y", dist.Normal(0.0, 1.0))

    with pytest.raises(NumericalError, match=r"step \d+: .*'seen' in the model became nan") as info:
        svi(_trusted(model), guide, seed=0)
    kept = info.value.posterior
    assert kept.status is Status.DIVERGED
    assert bool(torch.isfinite(kept.sample(5)["x"]).all())


def _trusted(model) -> Problem:
    """A problem whose prior draw happens to be fine (Problem itself checks at one draw)."""
    for seed in range(50):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            try:
                return Problem(model)
            except VitoolsError:
                continue
    raise AssertionError("no good start")


def test_a_model_that_branches_on_values_falls_back_with_one_notice():
    def model():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        loc = x if bool(x > 0) else 2 * x
        pyro.sample("y", dist.Normal(loc, 1.0), obs=torch.tensor(1.0))

    problem = Problem(model)
    with pytest.warns(VitoolsWarning, match="runs step by step") as caught:
        fit = svi(problem, AutoNormal, max_steps=300)
    assert len(caught) == 1
    assert len(fit.history) == 300


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: lambda flips: None, OptionError, "does not draw p"),
        (
            lambda: lambda flips: pyro.sample("q", dist.Beta(1.0, 1.0)),
            OptionError,
            r"draws 'q', which is no latent",
        ),
        (
            lambda: lambda flips: pyro.sample("p", dist.Beta(torch.ones(2), 1.0).to_event(1)),
            OptionError,
            r"draws 'p' with shape \(2,\)",
        ),
        (lambda: lambda: pyro.sample("p", dist.Beta(1.0, 1.0)), OptionError, "same arguments"),
        (
            lambda: lambda flips: pyro.sample("p", dist.Beta(1.0, 1.0)),
            OptionError,
            "no parameters to fit",
        ),
    ],
)
def test_guides_that_do_not_fit_are_refused_by_name(make, error, words):
    with pytest.raises(error, match=words):
        svi(Problem(coin.model, torch.tensor([1.0, 0.0])), make())


def test_a_guide_with_its_own_minibatch_is_refused():
    data = torch.arange(20.0)

    def model():
        with pyro.plate("rows", 20, subsample_size=5) as index:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=data[index])

    def guide():
        loc = pyro.param("loc", torch.zeros(20))
        index = torch.randperm(20)[:5]
        with pyro.plate("other", 5):
            pyro.sample("z", dist.Normal(loc[index], 1.0))

    with pytest.raises(OptionError, match="its own minibatch of plate 'rows'"):
        svi(Problem(model), guide)


def test_minibatches_reach_the_full_data_posterior():
    generator = torch.Generator().manual_seed(0)
    data = 2.0 + torch.randn(200, generator=generator)

    def model():
        mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", 200, subsample_size=20) as index:
            pyro.sample("y", dist.Normal(mean, 1.0), obs=data[index])

    fit = svi(Problem(model), AutoNormal, seed=0)
    precision = 200 + 0.01
    exact_mean, exact_sd = float(data.sum()) / precision, precision**-0.5
    assert float(fit.mean()["mean"]) == pytest.approx(exact_mean, abs=0.5 * exact_sd)
    assert float(fit.sd()["mean"]) == pytest.approx(exact_sd, rel=0.25)


def test_a_guide_weighted_otherwise_than_the_model_is_refused_before_any_step():
    data = torch.arange(4.0)

    def model():
        with pyro.plate("rows", 4):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=data)

    @pyro.poutine.scale(scale=0.5)
    def guide():
        loc = pyro.param("loc", torch.zeros(4))
        with pyro.plate("rows", 4):
            pyro.sample("z", dist.Normal(loc, 1.0))

    with pytest.raises(OptionError, match=r"weighs 'z' by 0\.5, the model by 1"):
        preflight(Problem(model), guide).enforce()
    assert len(pyro.get_param_store()) == 0


def test_a_start_of_another_model_is_refused(gaussian):
    other = exact(Problem(coin.model, torch.tensor([1.0, 0.0])))
    with pytest.raises(OptionError, match="start is a fit of model 'coin'"):
        svi(gaussian[0], AutoNormal, start=other)
