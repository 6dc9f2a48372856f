"""laplace(): modes, curvatures and evidences that are known in closed form or from pencil and paper."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, Status, laplace, load, save, svi
from vitools.errors import NotSupportedError, NumericalError, OptionError
from vitools.guides import AutoMultivariate


def regression(features, target):
    with pyro.plate("columns", features.shape[1]):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(target)):
        pyro.sample("y", dist.Normal(features @ w, 0.5), obs=target)


def logistic(features, labels):
    with pyro.plate("columns", features.shape[1]):
        w = pyro.sample("w", dist.Normal(0.0, 2.0))
    with pyro.plate("rows", len(labels)):
        pyro.sample("y", dist.Bernoulli(logits=features @ w), obs=labels)


@pytest.fixture
def features():
    made = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    made[:, 1] += 2 * made[:, 0]  # correlated coefficients
    return made


def test_a_gaussian_posterior_and_its_evidence_are_exact(features):
    noise = torch.randn(40, generator=torch.Generator().manual_seed(1))
    target = features @ torch.tensor([1.0, -0.5, 0.2]) + 0.5 * noise
    precision = features.T @ features / 0.25 + torch.eye(3)
    mean = torch.linalg.solve(precision, features.T @ target / 0.25)
    covariance = 0.25 * torch.eye(40) + features @ features.T
    zeros = torch.zeros(40)
    evidence = torch.distributions.MultivariateNormal(zeros, covariance).log_prob(target)
    fit = laplace(Problem(regression, features, target), seed=3)
    assert fit.status is Status.CONVERGED
    assert torch.allclose(fit.location, mean, atol=1e-6)
    assert torch.allclose(fit.scale_tril @ fit.scale_tril.mT, precision.inverse(), rtol=1e-9)
    assert f"log evidence {float(evidence):.2f} by" in fit.detail
    assert abs(fit.elbo(100).value - float(evidence)) < 1e-6


def test_logistic_regression_has_the_mode_and_hessian_of_pencil_and_paper(features):
    """w ← (X'SX + I/4)⁻¹ X'S (Xw + S⁻¹(y - p)), iteratively reweighted, with S = p (1 - p)."""
    labels = (torch.rand(40, generator=torch.Generator().manual_seed(2)) < 0.4).double()
    w = torch.zeros(3)
    for _ in range(30):
        p = torch.sigmoid(features @ w)
        weight = p * (1 - p)
        hessian = features.T @ (weight[:, None] * features) + torch.eye(3) / 4
        w = torch.linalg.solve(hessian, features.T @ (weight * (features @ w) + labels - p))
    fit = laplace(Problem(logistic, features, labels))
    assert torch.allclose(fit.location, w, atol=1e-6)
    assert torch.allclose(fit.scale_tril @ fit.scale_tril.mT, hessian.inverse(), rtol=1e-5)


def poisson(counts):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(counts)):
        pyro.sample("n", dist.Poisson(rate), obs=counts)


def test_a_positive_latent_is_approximated_on_the_log_scale():
    """Gamma(A, B) is A u - B eᵘ in u = log rate: its peak is at log A/B, its curvature A."""
    fit = laplace(Problem(poisson, torch.tensor([1.0, 4.0, 2.0])))
    shape, rate = 2.0 + 7.0, 1.0 + 3.0
    assert float(fit.location) == pytest.approx(math.log(shape / rate), abs=1e-6)
    assert float(fit.scale_tril) == pytest.approx(shape**-0.5, rel=1e-6)
    draws = fit.sample(20_000, seed=1)["rate"]
    mean = shape / rate * math.exp(0.5 / shape)  # of the log-normal
    assert abs(float(draws.mean()) - mean) < 4 * float(draws.std()) / math.sqrt(20_000)


def test_labels_are_summed_out():
    def model():
        centre = pyro.sample("centre", dist.Normal(0.0, 5.0))
        k = pyro.sample("k", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(centre + k, 1.0), obs=torch.tensor(2.0))

    fit = laplace(Problem(model))

    def log_density(c):
        pair = torch.stack([-0.5 * (2.0 - c) ** 2, -0.5 * (1.0 - c) ** 2])
        return pair.logsumexp(0) - 0.5 * (c / 5) ** 2

    grid = torch.linspace(0.0, 3.0, 300_001)
    assert float(fit.location) == pytest.approx(float(grid[log_density(grid).argmax()]), abs=2e-5)


def test_it_is_a_start_for_others_and_can_be_kept(features, tmp_path):
    problem = Problem(regression, features, features.sum(1))
    fit = laplace(problem)
    started = svi(problem, AutoMultivariate, start=fit, max_steps=4, compile=False)
    assert "from a fit by laplace" in started.detail
    assert started.elbo(500).value == pytest.approx(fit.elbo(500).value, abs=0.2)
    save(fit, tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors", problem)
    assert torch.equal(again.scale_tril, fit.scale_tril)
    assert again.detail == fit.detail


def test_a_density_without_a_peak_is_said_to_have_none():
    """log p grows like -8 log tau as tau and the effects go to 0 together."""

    def funnel():
        tau = pyro.sample("tau", dist.HalfCauchy(1.0))
        with pyro.plate("rows", 8):
            effect = pyro.sample("effect", dist.Normal(0.0, tau))
            pyro.sample("y", dist.Normal(effect, 10.0), obs=torch.zeros(8))

    with pytest.raises(NumericalError, match=r"no peak after \d+ steps.*farthest out: 'tau'"):
        laplace(Problem(funnel))


def test_a_mode_far_out_on_the_real_line_is_no_bound():
    """Heights around 1700 under a wide prior: N(m, 1/P) with P = 1e-6 + 3."""

    def model():
        level = pyro.sample("level", dist.Normal(0.0, 1000.0))
        with pyro.plate("rows", 3):
            pyro.sample("x", dist.Normal(level, 1.0), obs=torch.tensor([1699.0, 1700.0, 1701.0]))

    fit = laplace(Problem(model))
    assert float(fit.location) == pytest.approx(5100 / (3 + 1e-6), abs=1e-6)


def test_what_it_cannot_fit_is_refused_by_name():
    def only_discrete():
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("y", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    with pytest.raises(NotSupportedError, match="laplace needs continuous ones"):
        laplace(Problem(only_discrete))
    with pytest.raises(
        OptionError, match="max_steps: expected a whole number of at least 1, got 0"
    ):
        laplace(Problem(poisson, torch.tensor([1.0])), max_steps=0)


def test_a_run_cut_short_says_so():
    problem = Problem(poisson, torch.tensor([400.0, 420.0, 390.0]))
    assert laplace(problem, max_steps=1).status is Status.STOPPED_AT_LIMIT
    reports = []

    def stop(report):
        reports.append(report)
        raise KeyboardInterrupt

    assert laplace(problem, progress=stop).status is Status.INTERRUPTED
    assert [report.engine for report in reports] == ["laplace"]
