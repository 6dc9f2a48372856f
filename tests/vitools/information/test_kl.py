"""Divergences: registered ones, against quadrature by scipy, between fits."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, stats
from seeds import assert_within_errors
from torch.distributions import (
    Beta,
    Gamma,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
    Uniform,
)

from vitools import Problem, exact
from vitools.errors import OptionError
from vitools.information import kl
from vitools.models import coin
from vitools.posterior import FactorisedPosterior, Posterior, Status


def T(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def by_scipy(p, q, low, high):
    def integrand(x):
        return np.exp(p.logpdf(x)) * (p.logpdf(x) - q.logpdf(x))

    return integrate.quad(integrand, low, high, limit=500, epsabs=1e-12)[0]


@pytest.mark.parametrize(
    ("p", "q", "exact"),
    [
        (Gamma(T(2.0), T(3.0)), dist.LogNormal(T(0.0), T(1.0)),
         by_scipy(stats.gamma(2, scale=1 / 3), stats.lognorm(1), 0, 20)),
        (dist.StudentT(T(3.0)), Normal(T(0.0), T(2.0)),
         math.log(2 * math.sqrt(2 * math.pi)) + 3 / 8 - stats.t(3).entropy()),
        (dist.Poisson(T(3.0)), dist.NegativeBinomial(T(5.0), T(0.4)),
         sum(stats.poisson(3).pmf(k) * (stats.poisson(3).logpmf(k) - stats.nbinom(5, 0.6).logpmf(k))
             for k in range(80))),
        (Normal(T(0.0), T(1.0)), dist.StudentT(T(3.0)),
         by_scipy(stats.norm(), stats.t(3), -12, 12)),
        (Beta(T(2.0), T(3.0)), Uniform(T(-1.0), T(2.0)),
         by_scipy(stats.beta(2, 3), stats.uniform(-1, 3), 0, 1)),
    ],
)  # fmt: skip
def test_what_has_no_closed_form(p, q, exact):
    found = kl(p, q)
    assert found.standard_error < 1e-8
    assert found.value == pytest.approx(exact, abs=1e-8)


def test_the_registered_are_exact_and_batches_add_up():
    found = kl(Normal(T([0.0, 1.0]), T(1.0)), Normal(T(1.0), T(2.0)))
    one = math.log(2) + (1 + 1) / 8 - 0.5
    other = math.log(2) + 1 / 8 - 0.5
    assert found.is_exact
    assert found.value == pytest.approx(one + other)
    both = Independent(Laplace(T([0.0, 1.0]), T([1.0, 1.0])), 1)
    normals = Independent(Normal(T([0.0, 0.0]), T([1.0, 1.0])), 1)
    apart = [kl(Laplace(T(m), T(1.0)), Normal(T(0.0), T(1.0))).value for m in (0.0, 1.0)]
    assert kl(both, normals).value == pytest.approx(sum(apart))


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (Normal(T(0.0), T(1.0)), Beta(T(2.0), T(2.0))),
        (Uniform(T(0.0), T(2.0)), Beta(T(2.0), T(2.0))),
        (dist.Poisson(T(3.0)), dist.Binomial(T(4.0), T(0.5))),
        (Laplace(T(0.0), T(1.0)), Gamma(T(2.0), T(2.0))),
    ],
)
def test_where_q_is_nothing_it_is_infinite(p, q):
    assert kl(p, q).value == math.inf


def test_two_dims():
    a = T([[1.0, 0.9], [0.9, 1.0]])
    student = dist.MultivariateStudentT(T(5.0), T([0.0, 0.0]), torch.linalg.cholesky(a))
    normal = MultivariateNormal(T([0.0, 0.0]), 2 * a)
    found = kl(student, normal)
    # E log q: E xᵀ(2a)⁻¹x = ½ · 2 · 5/3
    cross = math.log(2 * math.pi) + 0.5 * float(torch.logdet(2 * a)) + 0.5 * 5 / 3
    exact_value = cross - stats.multivariate_t(df=5, shape=a.numpy()).entropy()
    assert found.value == pytest.approx(exact_value, abs=1e-6)


def test_draws_are_within_their_errors():
    size = 4
    p = Independent(Laplace(torch.zeros(size), torch.ones(size)), 1)
    q = MultivariateNormal(torch.zeros(size), torch.eye(size))
    exact_value = size * kl(Laplace(T(0.0), T(1.0)), Normal(T(0.0), T(1.0))).value
    found = [kl(p, q, num_samples=400, seed=s) for s in range(25)]
    assert_within_errors(found, exact_value)


# ---- fits -------------------------------------------------------------------------------------


def model(y):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    tau = pyro.sample("tau", dist.Gamma(2.0, 2.0))
    pyro.sample("y", dist.Normal(mu.sum(), tau), obs=y)


def test_gaussian_fits_have_the_closed_form_and_others_draws():
    problem = Problem(model, T(0.3))
    first = Posterior.from_gaussian(problem, T([0.0, 0.0, 0.0]), T([1.0, 2.0, 3.0]))
    second = Posterior.from_gaussian(problem, T([0.0, 1.0, 0.0]), T([1.0, 1.0, 1.0]))
    found = kl(first, second)
    by_hand = kl(
        *(MultivariateNormal(f.location, scale_tril=f.scale_tril) for f in (first, second))
    )
    assert found.is_exact
    assert found.value == pytest.approx(by_hand.value)
    blocks = {
        "mu": Independent(Normal(T([0.0, 0.0]), T([1.0, 1.0])), 1),
        "tau": Gamma(T(2.0), T(3.0)),
    }
    product = FactorisedPosterior(problem, blocks, 0.0, engine="cavi", status=Status.CONVERGED)
    assert kl(product, product).value == 0
    # tau of ``second`` is lognormal: KL(Gamma ‖ LogNormal(0, 1)) + that of mu
    exact_value = kl(Gamma(T(2.0), T(3.0)), dist.LogNormal(T(0.0), T(1.0))).value + 0.5
    assert_within_errors(
        [kl(product, second, num_samples=400, seed=s) for s in range(25)], exact_value
    )


@pytest.mark.parametrize(
    ("p", "q", "words"),
    [
        (1.0, Normal(0.0, 1.0), "p: expected a distribution .* got float"),
        (Normal(0.0, 1.0), "q", "q: expected a distribution .* got str"),
        (dist.Poisson(1.0), Normal(0.0, 1.0), "q: expected a discrete distribution as p is, got a continuous one"),
        (Normal(0.0, 1.0), dist.Poisson(1.0), "q: expected a continuous distribution as p is, got a discrete one"),
        (Normal(0.0, 1.0), MultivariateNormal(torch.zeros(2), torch.eye(2)), r"q: expected event shape \[\] as of p, got \[2\]"),
    ],
)  # fmt: skip
def test_what_is_refused(p, q, words):
    with pytest.raises(OptionError, match=words):
        kl(p, q)


def test_fits_of_other_latents_are_refused():
    flips = T([1.0, 0.0])
    other = Posterior.from_gaussian(Problem(model, T(0.3)), torch.zeros(3), torch.eye(3))
    with pytest.raises(
        OptionError, match=r"q: expected a fit of the latents p .* got one of mu, tau"
    ):
        kl(exact(Problem(coin.model, flips)), other)
