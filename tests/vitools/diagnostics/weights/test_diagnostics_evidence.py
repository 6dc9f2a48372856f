"""Bounds against closed forms and quadrature."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from scipy import integrate, stats
from torch.distributions import Bernoulli, Beta, Normal, kl_divergence

from vitools import Problem
from vitools.diagnostics import bound, importance_weighted_bound, marginal_bound
from vitools.errors import NotSupportedError, OptionError
from vitools.isolation import isolated, seeded
from vitools.models import coin
from vitools.posterior import (
    DrawsPosterior,
    Estimate,
    FactorisedPosterior,
    GridPosterior,
    GuidePosterior,
    Status,
)

FLIPS = coin.simulate(20)
HEADS = float(FLIPS.sum())
COIN = Problem(coin.model, FLIPS)


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def beta_fit(a: float, b: float) -> FactorisedPosterior:
    q = Beta(number(a), number(b))
    return FactorisedPosterior(COIN, {"p": q}, 0.0, engine="test", status=Status.CONVERGED)


@pytest.mark.parametrize(("a", "b"), [(10.0, 8.0), (20.0, 9.0), (4.0, 2.0)])
def test_elbo_is_evidence_minus_kl(a, b):
    kl = kl_divergence(Beta(number(a), number(b)), Beta(number(1 + HEADS), number(21 - HEADS)))
    truth = coin.exact_log_evidence(FLIPS) - float(kl)
    found = marginal_bound(beta_fit(a, b), num_samples=4000, seed=1)
    assert 0.0 < found.standard_error < 0.1
    assert abs(found.value - truth) < 4 * found.standard_error


def test_bound_of_the_exact_posterior_has_neither_gap_nor_error():
    found = marginal_bound(beta_fit(1 + HEADS, 21 - HEADS), num_samples=500)
    assert found.standard_error == 0.0
    assert found.value == pytest.approx(coin.exact_log_evidence(FLIPS), abs=1e-12)


def test_discrete_latents_are_summed_out_of_a_coordinate_ascent_fit():
    x = torch.tensor([-0.3, 0.4, 0.9, 1.7, 2.0], dtype=torch.float64)

    def mixture(x):
        p = pyro.sample("p", dist.Beta(number(2.0), number(2.0)))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Bernoulli(p))
            pyro.sample("x", dist.Normal(2 * z, 1.0), obs=x)

    q = Beta(number(5.0), number(4.0))
    factors = {"p": q, "z": Bernoulli(torch.full((5,), 0.5, dtype=torch.float64))}
    fit = FactorisedPosterior(
        Problem(mixture, x), factors, -99.0, engine="test", status=Status.CONVERGED
    )

    def integrand(p: float) -> float:
        rows = p * stats.norm.pdf(x.numpy(), 2) + (1 - p) * stats.norm.pdf(x.numpy(), 0)
        log_joint = stats.beta.logpdf(p, 2, 2) + sum(math.log(r) for r in rows)
        return stats.beta.pdf(p, 5, 4) * (log_joint - stats.beta.logpdf(p, 5, 4))

    truth, _ = integrate.quad(integrand, 0, 1)
    found = marginal_bound(fit, num_samples=4000)
    assert abs(found.value - truth) < 4 * found.standard_error < 0.1


def test_elbo_of_a_guide():
    data = torch.tensor([0.5, 1.5, 1.0], dtype=torch.float64)

    def model(data):
        mu = pyro.sample("mu", dist.Normal(number(0.0), 1.0))
        with pyro.plate("rows", 3):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=data)

    guide = AutoNormal(model, init_loc_fn=lambda site: number(0.4), init_scale=0.7)
    with seeded(0), isolated() as params:
        guide(data)
    fit = GuidePosterior(
        Problem(model, data), guide, params, engine="test", status=Status.CONVERGED
    )
    # posterior N(3/4, 1/4); log evidence by the multivariate normal with covariance 1 + I
    cov = torch.eye(3).double() + 1
    evidence = dist.MultivariateNormal(torch.zeros(3).double(), cov).log_prob(data)
    kl = kl_divergence(Normal(number(0.4), 0.7), Normal(number(0.75), 0.5))
    found = marginal_bound(fit, num_samples=4000)
    assert abs(found.value - float(evidence - kl)) < 4 * found.standard_error < 0.2


def test_grid_reports_its_evidence_and_draws_have_none():
    grid = GridPosterior(
        COIN,
        nodes=torch.zeros(1, 1).double(),
        log_masses=torch.zeros(1).double(),
        cell=torch.eye(1).double(),
        log_evidence=Estimate(-12.5, 1e-6),
        engine="exact",
        status=Status.EXACT,
    )
    assert marginal_bound(grid) == Estimate(-12.5, 1e-6)
    draws = DrawsPosterior(
        COIN,
        {"p": torch.linspace(0.1, 0.9, 100).reshape(2, 50).double()},
        engine="nuts",
        status=Status.SAMPLED,
    )
    with pytest.raises(NotSupportedError, match="draws"):
        marginal_bound(draws)


def test_importance_weighted_bound_against_quadrature():
    generator = torch.Generator().manual_seed(0)
    log_weights = torch.randn(20_000, generator=generator, dtype=torch.float64)
    nodes, weights = map(torch.from_numpy, _gauss_hermite(60))
    pairs = torch.logsumexp(torch.stack(torch.meshgrid(nodes, nodes, indexing="ij")), 0)
    truth = float((weights[:, None] * weights * (pairs - math.log(2))).sum())
    found = importance_weighted_bound(log_weights, 2)
    assert abs(found.value - truth) < 4 * found.standard_error < 0.05
    one, whole = (importance_weighted_bound(log_weights, k) for k in (1, len(log_weights)))
    assert one == bound(log_weights)
    assert whole.value == pytest.approx(
        float(log_weights.logsumexp(0)) - math.log(len(log_weights))
    )
    assert one.value < found.value < whole.value
    with pytest.raises(OptionError, match="between 1 and"):
        importance_weighted_bound(log_weights, 0)


def _gauss_hermite(order: int):
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    return nodes, weights / math.sqrt(2 * math.pi)


def test_undefined_weights_do_not_pass_for_a_bound():
    assert bound(torch.tensor([0.0, -math.inf, 1.0])).value == -math.inf
    assert math.isnan(bound(torch.tensor([0.0, math.nan])).value)
