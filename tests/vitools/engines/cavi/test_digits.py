"""Components far apart for their spread: as if each had been fitted alone, about its own mean."""

import math
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, Status, cavi
from vitools.errors import NumericalError

NOISE = torch.randn(30, generator=torch.Generator().manual_seed(1)).double()
NEAR, AWAY = NOISE[:15], NOISE[15:]


def number(value):
    return torch.tensor(value).double()


def one_of_two(y, sd):
    mu = pyro.sample("mu", dist.Normal(number(0.0), number(1e8)))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Bernoulli(number(0.5)))
        pyro.sample("y", dist.Normal(torch.where(z.bool(), mu, number(0.0)), number(sd)), obs=y)


@pytest.mark.parametrize("far", [15, 30])
def test_a_location_beside_zero_keeps_its_digits(far):
    """Allocations are certain, so log p(y) = -30 log 2 + log N(y; 0, sd² I + 10¹⁶ 1 1ᵀ) is closed."""
    sd, distance = 0.1, 1e7
    away, rest = distance + sd * NOISE[:far], sd * NOISE[far:]
    fit = cavi(Problem(one_of_two, torch.cat([away, rest]), sd))
    # of the far rows, less their distance: mean m with the prior N(-10⁷, 10⁸)
    residuals = sd * NOISE[:far]
    precision = far / sd**2 + 1e-16
    mean = (float(residuals.sum()) / sd**2 - distance * 1e-16) / precision
    at_mean = dist.Normal(number(mean), number(sd)).log_prob(residuals).sum()
    prior = dist.Normal(number(-distance), number(1e8)).log_prob(number(mean))
    evidence = float(at_mean + prior) + 0.5 * math.log(2 * math.pi / precision)
    evidence += float(dist.Normal(number(0.0), number(sd)).log_prob(rest).sum())
    assert fit.elbo().value == pytest.approx(evidence + 30 * math.log(0.5), abs=1e-5)
    assert float(fit.mean()["mu"]) == pytest.approx(distance + mean, abs=1e-8)
    assert float(fit.sd()["mu"]) == pytest.approx(precision**-0.5, rel=1e-6)


def mixture(y, means):
    with pyro.plate("components", 2):
        mu = pyro.sample("mu", dist.Normal(means, number(1e6)))
        tau = pyro.sample("tau", dist.Gamma(number(1.0), number(1.0)))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(torch.ones(2).double() / 2))
        pyro.sample("y", dist.Normal(mu[z], tau[z].rsqrt()), obs=y)


def alone(y, mean):
    mu = pyro.sample("mu", dist.Normal(mean, number(1e6)))
    tau = pyro.sample("tau", dist.Gamma(number(1.0), number(1.0)))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, tau.rsqrt()), obs=y)


@pytest.mark.parametrize("distance", [1e5, 1e7])
@pytest.mark.parametrize("restarts", [1, 3])
def test_components_far_apart_are_fitted_as_if_alone(distance, restarts):
    means = torch.tensor([0.0, distance]).double()
    fit = cavi(Problem(mixture, torch.cat([NEAR, distance + AWAY]), means), restarts=restarts)
    parts = [cavi(Problem(alone, y, number(0.0)), joint=()) for y in (NEAR, AWAY)]
    order = fit.mean()["mu"].argsort()
    expected = [float(part.mean()["tau"]) for part in parts]
    assert fit.mean()["tau"][order].tolist() == pytest.approx(expected, rel=1e-7)
    expected = [float(part.mean()["mu"]) for part in parts]
    found = fit.mean()["mu"][order] - means
    # a prior of sd 10⁶ draws the mean to its own by 10⁻¹² of the distance
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    bounds = sum(part.elbo().value for part in parts) + 30 * math.log(0.5)
    if bool((order == torch.arange(2)).all()):  # else priors are those of the other component
        assert fit.elbo().value == pytest.approx(bounds, abs=1e-5)
    assert fit.status is Status.CONVERGED
    assert "cancel" not in fit.detail


def test_a_bound_that_is_large_itself_loses_nothing():
    """One location for data at 0 and at 10⁹: such squares are what the bound is."""

    def model(y):
        mu = pyro.sample("mu", dist.Normal(number(0.0), number(1e9)))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, number(1.0)), obs=y)

    y = torch.cat([NEAR, 1e9 + AWAY])
    fit = cavi(Problem(model, y))
    assert fit.elbo().value == pytest.approx(-0.5 * float((y - y.mean()).square().sum()), rel=1e-9)


def test_lost_digits_are_named(monkeypatch):
    """Where taking it about its own means is of no help, the error says what is the matter."""
    monkeypatch.setattr(sys.modules["vitools.engines.cavi.cavi"], "MOST_RETURNS", 0)
    y = torch.cat([NEAR, 1e5 + AWAY])
    with pytest.raises(NumericalError, match="lost to float64's rounding"):
        cavi(Problem(mixture_of_weights, y))


def mixture_of_weights(y):
    with pyro.plate("components", 2):
        mu = pyro.sample("mu", dist.Normal(number(0.0), number(1e6)))
        tau = pyro.sample("tau", dist.Gamma(number(1.0), number(1.0)))
    w = pyro.sample("w", dist.Dirichlet(torch.ones(2).double()))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(w))
        pyro.sample("y", dist.Normal(mu[z], tau[z].rsqrt()), obs=y)
