"""A scale for each element weighs its log density: the updates are those of weighted data."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugacy_checks import (
    assert_bound_matches_monte_carlo,
    assert_never_falls,
    assert_updates_are_optimal,
    fitted,
)
from pyro import poutine, sample

from vitools.engines.cavi.outcome import distributions

_generator = torch.Generator().manual_seed(0)
Y = torch.randn(12, 3, generator=_generator, dtype=torch.float64)
WEIGHTS = torch.rand(12, generator=_generator, dtype=torch.float64)


def location_and_precision():
    m, t = sample("m", dist.Normal(0.0, 1.0)), sample("t", dist.Gamma(1.0, 1.0))
    with pyro.plate("n", 12), poutine.scale(scale=WEIGHTS):
        sample("y", dist.Normal(m, t.rsqrt()), obs=Y[:, 0])


def mixture():
    with pyro.plate("k", 2):
        m = sample("m", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("n", 12):
        z = sample("z", dist.Bernoulli(0.4)).long()
        with poutine.scale(scale=WEIGHTS):
            sample("y", dist.Normal(m[z], 1.0).to_event(1), obs=Y)


@pytest.mark.parametrize("model", [location_and_precision, mixture])
def test_bound_and_updates(model):
    conjugate, bounds = fitted(model)
    assert_never_falls(bounds)
    assert_updates_are_optimal(conjugate)
    assert_bound_matches_monte_carlo(conjugate, model, ())


def test_weighted_counts():
    """Beta(1 + Σ w x, 1 + Σ w (1-x))."""
    heads = (Y[:, 0] > 0).double()

    def coin():
        p = sample("p", dist.Beta(1.0, 1.0))
        with pyro.plate("n", 12), poutine.scale(scale=WEIGHTS):
            sample("heads", dist.Bernoulli(p), obs=heads)

    p = distributions(fitted(coin)[0])["p"]
    torch.testing.assert_close(p.concentration1, 1 + (WEIGHTS * heads).sum())
    torch.testing.assert_close(p.concentration0, 1 + (WEIGHTS * (1 - heads)).sum())
