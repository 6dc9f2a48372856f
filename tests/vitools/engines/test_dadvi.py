"""dadvi(): exact on Gaussian posteriors, its errors as large as they are, references elsewhere."""

import json
import math
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, Status, load, save
from vitools.engines.dadvi import dadvi
from vitools.engines.progress import Progress
from vitools.errors import NotSupportedError, OptionError
from vitools.models import coin

POSTERIORDB = Path(__file__).resolve().parents[4] / "shared" / "data" / "posteriordb"


def regression(features, target):
    with pyro.plate("columns", features.shape[1]):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(target)):
        pyro.sample("y", dist.Normal(features @ w, 0.5), obs=target)


@pytest.fixture
def gaussian():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 3, generator=generator)
    features[:, 1] += 2 * features[:, 0]  # correlated coefficients
    target = features @ torch.tensor([1.0, -0.5, 0.2]) + 0.5 * torch.randn(40, generator=generator)
    precision = features.T @ features / 0.25 + torch.eye(3)
    mean = torch.linalg.solve(precision, features.T @ target / 0.25)
    return Problem(regression, features, target), mean, precision


def test_linear_response_is_exact_on_a_gaussian_posterior(gaussian):
    problem, mean, precision = gaussian
    fit = dadvi(problem, num_samples=10, covariance="linear_response", seed=3)
    assert fit.status is Status.CONVERGED
    covariance = precision.inverse()
    assert torch.allclose(fit.location, mean, atol=1e-6)
    assert torch.allclose(fit.scale_tril @ fit.scale_tril.mT, covariance, rtol=1e-9)
    assert torch.allclose(fit.mean()["w"], mean, atol=1e-6)
    assert torch.allclose(fit.sd()["w"], covariance.diagonal().sqrt(), rtol=1e-9)
    assert bool((fit.location_error < 1e-12).all())  # z and -z leave no error of the mean
    assert abs(fit.elbo(100).value - _log_evidence(problem)) < 1e-6


def _log_evidence(problem):
    features, target = problem.args
    covariance = 0.25 * torch.eye(40) + features @ features.T
    return float(
        torch.distributions.MultivariateNormal(torch.zeros(40), covariance).log_prob(target)
    )


def test_the_mean_field_has_the_spread_theory_gives(gaussian):
    problem, _, precision = gaussian
    fit = dadvi(problem, num_samples=600)
    ratio = fit.sd()["w"] * precision.diagonal().sqrt()
    assert bool(((ratio - 1).abs() < 4 / math.sqrt(600)).all())  # relative error 1/√M
    assert not bool(fit.scale_tril.tril(-1).any())


def poisson(counts):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(counts)):
        pyro.sample("n", dist.Poisson(rate), obs=counts)


@pytest.mark.slow
def test_the_stated_error_is_that_of_another_choice_of_draws():
    """q(log rate) has its exact optimum in closed form, and the error over seeds is measured."""
    problem = Problem(poisson, torch.tensor([1.0, 0.0]))
    fits = [dadvi(problem, num_samples=400, seed=seed) for seed in range(40)]
    locations = torch.stack([fit.location[0] for fit in fits])
    stated = torch.stack([fit.location_error[0] for fit in fits])
    # E log p = (2 + 1) m - (1 + 2) exp(m + s²/2) + …, at its maximum where s² = 1/3, m = -s²/2
    spread = float(locations.std())
    assert abs(float(locations.mean()) + 1 / 6) < 4 * spread / math.sqrt(40)
    # a standard deviation from 40 values is known to 1/√80
    assert float(stated.square().mean().sqrt()) / spread == pytest.approx(1, abs=4 / math.sqrt(80))


def test_draws_double_until_the_error_is_small():
    """Four rates of which little is known: far from Gaussian, so that four draws are too few."""

    def rates(counts):
        with pyro.plate("kinds", 4):
            rate = pyro.sample("rate", dist.Gamma(0.2, 1.0))
        with pyro.plate("rows", len(counts)):
            pyro.sample("n", dist.Poisson(rate.sum()), obs=counts)

    problem = Problem(rates, torch.tensor([2.0, 0.0]))
    few = dadvi(problem, num_samples=4, max_samples=4, seed=1)
    assert few.status is Status.STOPPED_AT_LIMIT
    assert few.detail.startswith("4 draws")
    enough = dadvi(problem, num_samples=4, seed=1)
    assert enough.status is Status.CONVERGED
    assert int(enough.detail.split()[0]) > 4
    sd = enough.scale_tril.diagonal()
    assert float((enough.location_error / sd).max()) < float((few.location_error / sd).max())


def eight_schools(y, sigma):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * z, sigma), obs=y)


@pytest.mark.skipif(not POSTERIORDB.exists(), reason="the posteriordb data are not here")
def test_eight_schools_against_the_reference_draws():
    folder = POSTERIORDB / "eight_schools-eight_schools_noncentered"
    data = json.loads((folder / "data.json").read_text())
    problem = Problem(
        eight_schools, torch.tensor(data["y"]).double(), torch.tensor(data["sigma"]).double()
    )
    fit = dadvi(problem, num_samples=200, covariance="linear_response")
    theta, mu, tau = np.split(np.load(folder / "draws.npz")["draws"], [8, 9], axis=1)
    reference = torch.tensor(np.concatenate([mu, np.log(tau), (theta - mu) / tau], 1)).double()
    mean, sd = reference.mean(0), reference.std(0)
    error = torch.hypot(fit.location_error, sd / math.sqrt(len(reference)))
    found_sd = fit.scale_tril.square().sum(-1).sqrt()
    location = fit.location
    assert bool(((location - mean).abs() < 4 * error + 0.1 * sd).tolist() == [True] * 10)
    assert bool(((found_sd / sd - 1).abs() < 0.1).all())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda problem: dadvi(problem, num_samples=7),
            OptionError,
            "num_samples: expected an even",
        ),
        (lambda problem: dadvi(problem, covariance="full"), OptionError, "covariance: expected"),
    ],
)
def test_options_that_mean_nothing_are_refused(gaussian, call, error, words):
    with pytest.raises(error, match=words):
        call(gaussian[0])


def test_what_it_cannot_fit_is_refused_by_name():
    def only_discrete():
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("y", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    def with_parameter():
        shift = pyro.param("shift", torch.tensor(0.0))
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(x + shift, 1.0), obs=torch.tensor(1.0))

    def large():
        x = pyro.sample("x", dist.Normal(torch.zeros(1001), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(x.sum(), 1.0), obs=torch.tensor(1.0))

    for model, words in (
        (only_discrete, "only discrete latents"),
        (with_parameter, "parameters of its own .shift"),
        (large, "1001 continuous dimensions"),
    ):
        with pytest.raises(NotSupportedError, match=words):
            dadvi(Problem(model))


def test_progress_is_reported_and_ctrl_c_keeps_the_state(gaussian):
    seen = []

    def interrupt(progress: Progress) -> None:
        seen.append(progress)
        raise KeyboardInterrupt

    fit = dadvi(gaussian[0], progress=interrupt)
    assert fit.status is Status.INTERRUPTED
    assert seen[0].engine == "dadvi"
    assert len(fit.history) == 1
    assert fit.sample(3)["w"].shape == (3, 3)


def test_the_gaussian_posterior_scores_its_own_draws(tmp_path):
    """Against the density of a logit-normal, and its restored copy."""
    problem = Problem(coin.model, torch.tensor([1.0, 0.0, 1.0]))
    fit = dadvi(problem)
    values, log_q = fit.sample_with_log_prob(50, seed=1)
    base = torch.distributions.Normal(fit.location[0], fit.scale_tril[0, 0])
    logit_normal = torch.distributions.TransformedDistribution(
        base, [torch.distributions.SigmoidTransform()]
    )
    assert torch.allclose(log_q, logit_normal.log_prob(values["p"]), rtol=1e-8)
    assert torch.allclose(fit.log_prob(values), log_q, rtol=1e-8)
    save(fit, tmp_path / "fit")
    again = load(tmp_path / "fit", problem)
    assert torch.equal(again.sample(5, seed=2)["p"], fit.sample(5, seed=2)["p"])
