"""Curved functions of Gaussian predictors: the bound against importance weights, the optimum against
direct maximisation, the ascent against itself."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss
from torch.nn.functional import softplus

from vitools import Problem, cavi
from vitools.calculus import ConjugateModel
from vitools.errors import NotConjugateError

X = torch.randn(60, 2, generator=torch.Generator().manual_seed(1)).double()
ETA = X @ torch.tensor([0.5, -0.3]).double() + 1.0

LIKELIHOODS = {
    "Bernoulli logits": lambda e: dist.Bernoulli(logits=e),
    "Bernoulli of a sigmoid": lambda e: dist.Bernoulli(torch.sigmoid(e)),
    "Binomial": lambda e: dist.Binomial(10, logits=e),
    "Geometric": lambda e: dist.Geometric(logits=e),
    "Poisson exp": lambda e: dist.Poisson(e.exp()),
    "Poisson softplus": lambda e: dist.Poisson(softplus(e)),
    "Poisson with exposure": lambda e: dist.Poisson(3.0 * (e + 0.1).exp()),
    "NegativeBinomial": lambda e: dist.NegativeBinomial(3.0, logits=e),
    "GammaPoisson": lambda e: dist.GammaPoisson(2.0, 2.0 / e.exp()),
    "Exponential": lambda e: dist.Exponential(e.exp()),
    "Gamma": lambda e: dist.Gamma(2.0, 2.0 / e.exp()),
    "Weibull": lambda e: dist.Weibull(e.exp(), 1.5),
    "Gumbel": lambda e: dist.Gumbel(e, 1.5),
    "StudentT": lambda e: dist.StudentT(3.0, e, 0.7),
    "Cauchy": lambda e: dist.Cauchy(e, 0.7),
    "Laplace": lambda e: dist.Laplace(e, 0.7),
    "log-linear scale": lambda e: dist.Normal(0.5, (0.5 * e).exp()),
}


def regression(likelihood, features=X):
    def model(y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        b = pyro.sample("b", dist.Normal(0.0, 3.0))
        with pyro.plate("rows", len(features)):
            pyro.sample("y", likelihood(features @ w + b), obs=y)

    with pyro.poutine.block(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        data = likelihood(ETA[: len(features)]).sample()
    return Problem(model, data)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_bound_is_that_of_the_weights(name):
    """E log p(y, θ) - log q(θ) by draws, with the problem's own density."""
    fit = cavi(regression(LIKELIHOODS[name]))
    assert fit.status.label == "converged"
    weights = fit.log_weights(4000, seed=1)
    assert abs(fit.bound - weights.mean()) < 4 * weights.std() / math.sqrt(4000)
    assert weights.std() < 0.5  # close to the posterior at 60 rows
    rises = np.diff(fit.history.elbo)
    assert rises.min() > -1e-9 * abs(fit.bound)


@pytest.mark.parametrize("name", ["Bernoulli logits", "Poisson exp", "StudentT"])
def test_the_optimum_is_that_of_direct_maximisation(name):
    """Over means and covariance roots, the expectation by 60 Gauss-Hermite nodes a row."""
    problem = regression(LIKELIHOODS[name], X[:25])
    fit = cavi(problem, tol=1e-13)
    y = problem.args[0]
    design = torch.cat([X[:25], torch.ones(25, 1)], -1)
    z, weight = (torch.from_numpy(v) for v in hermegauss(60))
    weight = weight / weight.sum()
    prior = dist.Normal(torch.zeros(3), torch.tensor([1.0, 1.0, 3.0]))
    mean = torch.zeros(3, requires_grad=True)
    root = torch.eye(3).mul(0.3).requires_grad_()

    def bound():
        lower = root.tril()
        sd = (design @ lower).square().sum(-1).sqrt()
        eta = (design @ mean)[:, None] + sd[:, None] * z
        rows = (LIKELIHOODS[name](eta).log_prob(y[:, None]) * weight).sum()
        ratio = lower / prior.scale[:, None]
        divergence = 0.5 * (ratio.square().sum() + (mean / prior.scale).square().sum() - 3)
        return rows - divergence + (ratio.diagonal().abs()).log().sum()

    search = torch.optim.LBFGS(
        [mean, root],
        max_iter=500,
        tolerance_grad=1e-11,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure():
        search.zero_grad()
        loss = -bound()
        loss.backward()
        return loss

    search.step(closure)
    assert fit.bound == pytest.approx(bound().item(), abs=1e-8)
    found = torch.cat([fit.mean()["w"], fit.mean()["b"].reshape(1)])
    torch.testing.assert_close(found, mean.detach(), atol=1e-5, rtol=0)
    covariance = (root.tril() @ root.tril().mT).detach()
    sds = torch.cat([fit.sd()["w"], fit.sd()["b"].reshape(1)])
    torch.testing.assert_close(sds, covariance.diagonal().sqrt(), atol=1e-5, rtol=0)


def test_location_and_log_scale_are_both_regressions():
    def model(y):
        a = pyro.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        g = pyro.sample("g", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", 60):
            pyro.sample("y", dist.Normal(X @ a, (X @ g).exp()), obs=y)

    noise = torch.randn(60, generator=torch.Generator().manual_seed(2))
    fit = cavi(Problem(model, X[:, 0] + noise * (0.4 * X[:, 1]).exp()))
    weights = fit.log_weights(4000, seed=1)
    assert abs(fit.bound - weights.mean()) < 4 * weights.std() / math.sqrt(4000)


def test_the_dispersion_of_counts_is_learnt_beside_their_logits():
    def model(y):
        r = pyro.sample("r", dist.Gamma(2.0, 0.5))
        b = pyro.sample("b", dist.Normal(0.0, 2.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.NegativeBinomial(r, logits=b + 0.2 * X[:, 0]), obs=y)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        y = dist.NegativeBinomial(3.0, logits=0.5 + 0.2 * X[:, 0]).sample()
    fit = cavi(Problem(model, y))
    weights = fit.log_weights(4000, seed=1)
    assert abs(fit.bound - weights.mean()) < 4 * weights.std() / math.sqrt(4000)


@pytest.mark.parametrize("size", [1e3, 1e9])
def test_counts_of_any_size_are_reached(size):
    """The log of a Poisson rate, of which so many counts leave log y ± (n y)^-½."""

    def model(y):
        b = pyro.sample("b", dist.Normal(0.0, 30.0))
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 10):
            pyro.sample("y", dist.Poisson((a * torch.tensor([1.0, -1.0] * 5) + b).exp()), obs=y)

    fit = cavi(Problem(model, torch.full((10,), size)))
    assert fit.status.label == "converged"
    assert float(fit.mean()["b"]) == pytest.approx(math.log(size), abs=3 / (10 * size) + 1e-9)
    assert float(fit.sd()["b"]) == pytest.approx((10 * size) ** -0.5, rel=1e-3)


@pytest.mark.slow
def test_separable_outcomes_under_a_wide_prior_end_where_the_prior_holds_them():
    def model(x, y):
        w = pyro.sample("w", dist.Normal(0.0, 100.0))
        b = pyro.sample("b", dist.Normal(0.0, 100.0))
        with pyro.plate("rows", 20):
            pyro.sample("y", dist.Bernoulli(logits=w * x + b), obs=y)

    x = torch.linspace(-1, 1, 20)
    fit = cavi(Problem(model, x, (x > 0).double()))
    weights = fit.log_weights(4000, seed=1)
    assert abs(fit.bound - weights.mean()) < 4 * weights.std() / math.sqrt(4000)
    assert float(fit.mean()["w"]) > 30


@pytest.mark.parametrize(
    ("predictor", "words"),
    [
        (lambda a, b: a * b, "'a', 'b': its log density needs softplus of what is not linear"),
        (lambda a, b: a * a + b, "'a', 'b': its log density needs softplus of what is not linear"),
    ],
)
def test_what_is_no_affine_predictor_is_refused(predictor, words):
    def model(y):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Bernoulli(logits=predictor(a, b)), obs=y)

    with pytest.raises(NotConjugateError, match=words):
        ConjugateModel(model, (torch.tensor(1.0),))


def test_a_latent_that_is_not_gaussian_in_a_predictor_is_refused():
    def model(y):
        a = pyro.sample("a", dist.Gamma(2.0, 1.0))
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Bernoulli(logits=a + b), obs=y)

    with pytest.raises(NotConjugateError, match="'a' is not Gaussian"):
        ConjugateModel(model, (torch.tensor(1.0),))


CLASSES = dist.Categorical(logits=X @ torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.8, -0.5]]).double())
SOFTMAXES = {
    "Categorical logits": lambda e, y: pyro.sample("y", dist.Categorical(logits=e), obs=y),
    "Categorical of a softmax": lambda e, y: pyro.sample(
        "y", dist.Categorical(torch.softmax(e, -1)), obs=y
    ),
    "Multinomial logits": lambda e, y: pyro.sample(
        "y", dist.Multinomial(logits=e), obs=torch.nn.functional.one_hot(y, 3).double()
    ),
}


@pytest.mark.parametrize("name", SOFTMAXES)
def test_a_softmax_is_bounded_from_its_own_side_and_nearly_met(name):
    def model(y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
        shared = pyro.sample("shared", dist.Normal(0.0, 1.0))  # in all classes: it cancels
        with pyro.plate("rows", 60):
            SOFTMAXES[name](X @ w + shared, y)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        y = CLASSES.sample()
    fit = cavi(Problem(model, y))
    assert fit.status.label == "converged"
    weights = fit.log_weights(4000, seed=1)
    error = weights.std() / math.sqrt(4000)
    assert -4 * error < weights.mean() - fit.bound < 0.1 + 4 * error
    assert float(fit.sd()["shared"]) == pytest.approx(1.0, rel=1e-3)  # the data say nothing of it
    assert np.diff(fit.history.elbo).min() > -1e-9 * abs(fit.bound)


def test_a_softmax_of_two_classes_is_close_to_the_logistic():
    """The same model twice: the class of two logits, and the sign of their difference."""

    def two(y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2, 2), 1.0).to_event(2))
        with pyro.plate("rows", 60):
            pyro.sample("y", dist.Categorical(logits=X @ w), obs=y)

    def one(y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), math.sqrt(2.0)).to_event(1))
        with pyro.plate("rows", 60):
            pyro.sample("y", dist.Bernoulli(logits=X @ w), obs=y.double())

    y = (ETA > 1.0).long()
    fits = cavi(Problem(two, y)), cavi(Problem(one, y))
    assert 0 < fits[1].bound - fits[0].bound < 0.1
    difference = fits[0].mean()["w"].diff(dim=-1).squeeze(-1)
    assert float((difference - fits[1].mean()["w"]).abs().max()) < 0.1 * float(
        fits[1].sd()["w"].min()
    )
