"""Models without conjugacy, their factors one-dimensional integrals.

The truth is quadrature of Pyro's own log density, or a mean field worked out by itself on grids.
"""

import functools
import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugacy_checks import (
    assert_bound_matches_monte_carlo,
    assert_never_falls,
    assert_updates_are_optimal,
    fitted,
    log_joint,
)
from pyro import sample
from scipy import integrate, special, stats

from vitools import Problem, cavi
from vitools.engines.cavi.outcome import distributions

Y = torch.tensor([0.5, 1.5, -0.3], dtype=torch.float64)
_generator = torch.Generator().manual_seed(0)
Z = torch.randn(25, generator=_generator, dtype=torch.float64)


# ---- one scalar: the evidence and the moments ----------------------------------------------------

SCALARS = {}


def scalar(low, high):
    def register(model):
        SCALARS[model.__name__] = (model, low, high)
        return model

    return register


@scalar(0, math.inf)
def half_cauchy():
    s = sample("s", dist.HalfCauchy(1.0))
    sample("y", dist.Normal(0.0, s).expand([3]).to_event(1), obs=Y)


@scalar(0, 4)
def scale_between_bounds():
    s = sample("s", dist.Uniform(0.0, 4.0))
    with pyro.plate("n", 3):
        sample("y", dist.Normal(0.5, s), obs=Y)


@scalar(0, math.inf)
def log_normal_scale():
    s = sample("s", dist.LogNormal(0.0, 1.0))
    with pyro.plate("n", 3):
        sample("y", dist.Normal(0.5, s), obs=Y)


@scalar(-math.inf, math.inf)
def logistic():
    s = sample("s", dist.Normal(0.0, 1.0))
    sample("y", dist.Bernoulli(logits=2 * s - 1), obs=torch.tensor(1.0))


@scalar(-math.inf, math.inf)
def sigmoid():
    s = sample("s", dist.Normal(0.0, 1.0))
    sample("y", dist.Bernoulli(torch.sigmoid(s)), obs=torch.tensor(1.0))


@scalar(-math.inf, math.inf)
def exponent():
    s = sample("s", dist.Normal(0.0, 1.0))
    sample("y", dist.Poisson(s.exp()), obs=torch.tensor(2.0))


@scalar(-math.inf, math.inf)
def fourth_power():
    s = sample("s", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(s**2, 1.0), obs=torch.tensor(2.0))


@scalar(-math.inf, math.inf)
def absolute_value():
    s = sample("s", dist.Normal(0.3, 1.0))
    sample("y", dist.Normal((s * s).sqrt(), 1.0), obs=torch.tensor(2.0))


@scalar(-math.inf, math.inf)
def density_by_hand():
    s = sample("s", dist.Normal(0.5, 1.0))
    pyro.factor("y", s.cos())


@scalar(-math.inf, math.inf)
def laplace_prior():
    s = sample("s", dist.Laplace(0.0, 0.5))
    with pyro.plate("n", 3):
        sample("y", dist.Normal(s, 1.0), obs=Y)


@scalar(0, math.inf)
def gamma_as_location():
    s = sample("s", dist.Gamma(1.0, 1.0))
    sample("y", dist.Normal(s, 1.0), obs=torch.tensor(2.0))


@scalar(0, math.inf)
def scale_of_a_student():
    s = sample("s", dist.Gamma(1.0, 1.0))
    sample("y", dist.StudentT(3.0, 0.0, s.rsqrt()).expand([3]).to_event(1), obs=Y)


@scalar(0, math.inf)
def degrees_of_freedom():
    s = sample("s", dist.Gamma(2.0, 0.1))
    with pyro.plate("n", 3):
        sample("y", dist.StudentT(s, 0.0, 1.0), obs=4 * Y)


@scalar(0, math.inf)
def counts_that_scatter():
    s = sample("s", dist.Gamma(2.0, 1.0))
    with pyro.plate("n", 3):
        sample("y", dist.NegativeBinomial(s, torch.tensor(0.4)), obs=torch.tensor([2.0, 0.0, 5.0]))


@scalar(0, math.inf)
def concentration():
    s = sample("s", dist.Gamma(1.0, 1.0))
    with pyro.plate("n", 3):
        sample("y", dist.Beta(s, s), obs=torch.tensor([0.2, 0.5, 0.6]))


@pytest.mark.parametrize("name", SCALARS)
def test_one_scalar_is_exact(name):
    model, low, high = SCALARS[name]
    fit = cavi(Problem(model), tol=1e-13)
    q = fit.marginal("s")
    found = (fit.elbo().value, float(q.mean), float(q.variance))
    assert found == pytest.approx(moments(model, low, high), rel=1e-8, abs=1e-8)


@functools.cache
def moments(model, low, high):
    """log ∫ p(s, y) ds, the mean and the variance under it."""

    @functools.cache
    def density(s):
        return math.exp(float(log_joint(model, (), {"s": torch.tensor(s)})))

    def integral(power):
        ends = [end for end in (low, -4.0, -1.0, 0.0, 1.0, 4.0, high) if low <= end <= high]
        parts = [
            integrate.quad(lambda s: s**power * density(s), a, b, epsabs=0, epsrel=1e-10, limit=200)
            for a, b in itertools.pairwise(ends)
            if a < b
        ]
        return sum(value for value, _ in parts)

    total, first, second = integral(0), integral(1), integral(2)
    return math.log(total), first / total, second / total - (first / total) ** 2


# ---- several latents: an independent mean field --------------------------------------------------


def on_grid(log_density, s):
    """log ∫ exp, and the weights of the normalised density on the grid (trapezoid)."""
    step = np.gradient(s)
    top = log_density.max()
    weights = np.exp(log_density - top) * step
    return top + math.log(weights.sum()), weights / weights.sum()


def test_location_and_half_cauchy_scale():
    """q(m) normal with precision 1/4 + N E s⁻², q(s) ∝ p(s) s⁻ᴺ exp(-½ Σ E(y-m)² s⁻²)."""

    def model():
        m, s = sample("m", dist.Normal(0.0, 2.0)), sample("s", dist.HalfCauchy(1.5))
        with pyro.plate("n", 25):
            sample("y", dist.Normal(m, s), obs=Z + 1)

    y, u = (Z + 1).numpy(), np.linspace(-6, 6, 20001)
    s = np.exp(u)
    precision = 1.0
    for _ in range(100):
        v = 1 / (0.25 + 25 * precision)
        m = v * precision * y.sum()
        squares = ((y - m) ** 2).sum() + 25 * v
        log_z, w = on_grid(
            stats.halfcauchy.logpdf(s, scale=1.5) - 25 * u - squares / 2 / s**2 + u, u
        )
        precision = (w / s**2).sum()
    of_m = stats.norm.logpdf(m, 0, 2) - v / 8 + 0.5 * math.log(2 * math.pi * math.e * v)
    bound = log_z + of_m - 25 / 2 * math.log(2 * math.pi)
    fit = cavi(Problem(model), tol=1e-14)
    found = [fit.elbo().value, *(float(fit.marginal(n).mean) for n in "ms")]
    assert found == pytest.approx([bound, m, (w * s).sum()], rel=1e-8)


def test_shape_of_a_gamma():
    """q(a) ∝ exp(-a + a E log g) / Γ(a), q(g) = Gamma(2 + E a, 2)."""

    def model():
        a = sample("a", dist.Gamma(1.0, 1.0))
        g = sample("g", dist.Gamma(a, 1.0))
        sample("y", dist.Poisson(g), obs=torch.tensor(2.0))

    u = np.linspace(-30, 4, 40001)
    a, log_g = np.exp(u), 0.0
    for _ in range(200):
        log_z, w = on_grid(-a + a * log_g - special.gammaln(a) + u, u)
        shape = 2 + (w * a).sum()
        log_g = special.digamma(shape) - math.log(2)
    entropy = stats.gamma(shape, scale=0.5).entropy()
    bound = log_z + (2 - 1) * log_g - 2 * shape / 2 - math.log(2) + entropy
    fit = cavi(Problem(model), tol=1e-14, joint=())
    found = (fit.elbo().value, float(fit.marginal("a").mean), float(fit.marginal("g").mean))
    assert found == pytest.approx((bound, (w * a).sum(), shape / 2), rel=1e-8)


def test_a_prior_with_a_latent_scale_under_an_integral():
    """q(s) ∝ p(s) s^(-1 + Σy) exp(-½ E m² s⁻² - N s E eᵐ), q(m) ∝ exp(-½ E s⁻² m² + Σy m - N E s eᵐ)."""
    counts = torch.tensor([0.0, 1.0, 2.0])

    def model():
        s = sample("s", dist.HalfNormal(1.0))
        m = sample("m", dist.Normal(0.0, s))
        with pyro.plate("n", 3):
            sample("y", dist.Poisson(s * m.exp()), obs=counts)

    u, m = np.linspace(-12, 3, 20001), np.linspace(-12, 8, 20001)
    s = np.exp(u)
    squares, exponential = 1.0, 1.0
    for _ in range(300):
        prior = stats.halfnorm.logpdf(s)
        log_z, w = on_grid(prior + 2 * u - squares / 2 / s**2 - 3 * s * exponential + u, u)
        precision, mean = (w / s**2).sum(), (w * s).sum()
        log_z_m, w_m = on_grid(-precision / 2 * m**2 + 3 * m - 3 * mean * np.exp(m), m)
        squares, exponential = (w_m * m**2).sum(), (w_m * np.exp(m)).sum()
    shared = -precision / 2 * squares - 3 * mean * exponential  # stands in both
    constant = -0.5 * math.log(2 * math.pi) - math.log(2)
    fit = cavi(Problem(model), tol=1e-14)
    found = [fit.elbo().value, *(float(fit.marginal(n).mean) for n in "sm")]
    bound = log_z + log_z_m - shared + constant
    assert found == pytest.approx([bound, mean, (w_m * m).sum()], rel=1e-7)


def test_cases_inside_a_link():
    """q(w_k) ∝ N(w_k) σ(w_k)^(Σ_n q(z_n=k) y_n) σ(-w_k)^(…), q(z_n=k) ∝ π_k exp E log σ(± w_k)."""
    prior, hits = torch.tensor([0.3, 0.7]), torch.tensor([1.0, 1.0, 0.0, 1.0])

    def model():
        with pyro.plate("k", 2):
            w = sample("w", dist.Normal(torch.tensor([0.0, 1.0]), 1.0))
        with pyro.plate("n", 4):
            z = sample("z", dist.Categorical(prior))
            sample("y", dist.Bernoulli(logits=w[z]), obs=hits)

    conjugate, bounds = fitted(model, sweeps=200)
    assert_never_falls(bounds)
    w, y = np.linspace(-12, 12, 4001), hits.numpy()
    responsibilities = distributions(conjugate)["z"].probs.numpy()
    yes, no = special.log_expit(w), special.log_expit(-w)
    log_z, weights = zip(
        *(
            on_grid(stats.norm.logpdf(w, k) + (r @ y) * yes + (r @ (1 - y)) * no, w)
            for k, r in enumerate(responsibilities.T)
        ),
        strict=True,
    )
    scores = np.log(prior.numpy()) + np.outer(y, [(p * yes).sum() for p in weights])
    scores += np.outer(1 - y, [(p * no).sum() for p in weights])
    again = special.softmax(scores, -1)
    np.testing.assert_allclose(again, responsibilities, atol=1e-7)
    entropy = special.entr(responsibilities).sum()
    bound = sum(log_z) + (responsibilities * np.log(prior.numpy())).sum() + entropy
    assert bounds[-1] == pytest.approx(bound, rel=1e-8)


def test_updates_of_integrals_are_optimal():
    def model():
        s = sample("s", dist.HalfCauchy(1.0))
        with pyro.plate("k", 3):
            t = sample("t", dist.Uniform(0.5, 3.0))
            m = sample("m", dist.Normal(0.0, s))
            sample("y", dist.Normal(m, t), obs=Y)

    conjugate, bounds = fitted(model, sweeps=20)
    assert_never_falls(bounds)
    assert_updates_are_optimal(conjugate)
    assert_bound_matches_monte_carlo(conjugate, model, (), draws=100)


def test_a_weibull_shape_alone_where_powers_of_the_data_overflow():
    """log We(y | 1, k) of ordinary y is a number at every k that a search looks at."""
    y = torch.tensor([0.4, 0.9, 1.3, 2.3], dtype=torch.float64)

    def model():
        k = pyro.sample("k", dist.Gamma(torch.tensor(2.0).double(), 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Weibull(torch.tensor(1.0).double(), k), obs=y)

    u = torch.linspace(-12, 5, 20_001, dtype=torch.float64)
    k, log_y = u.exp(), y.log().unsqueeze(-1)
    log_joint = (u + (k - 1) * log_y - (k * log_y).exp()).sum(0) + 2 * u - k
    fit = cavi(Problem(model))
    assert fit.bound == pytest.approx(
        float(log_joint.logsumexp(0)) + math.log(17 / 20_000), abs=1e-8
    )
    assert float(fit.mean()["k"]) == pytest.approx(
        float((log_joint.softmax(0) * k).sum()), rel=1e-8
    )
