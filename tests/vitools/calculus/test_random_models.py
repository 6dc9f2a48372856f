"""Models drawn from the grammar of supported pieces: every update is optimal, every bound exact."""

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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyro import sample

ROWS = 7


def build(pieces, data):
    """A model from choices: how cases are picked, the location, the scale, the likelihood."""
    cases, location, scale, likelihood, event = pieces

    def pick(table, z):
        return table[z] if z is not None else table[0]

    def model():
        generator = torch.Generator().manual_seed(data)
        design = torch.randn(ROWS, 2, generator=generator, dtype=torch.float64)
        y = torch.randn(ROWS, generator=generator, dtype=torch.float64)
        group = torch.randint(2, (ROWS,), generator=generator)
        with pyro.plate("cases", 3):
            mean = sample("mean", dist.Normal(0.0, 1.5))
            tau = sample("tau", dist.Gamma(2.0, 1.0))
        if event:
            slope = sample("slope", dist.MultivariateNormal(torch.zeros(2), torch.eye(2) + 0.2))
        else:
            slope = sample("slope", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        v = sample("v", dist.InverseGamma(3.0, 2.0))
        weights = sample("weights", dist.Dirichlet(torch.ones(3)))
        with pyro.plate("rows", ROWS):
            z = None
            if cases == "categorical":
                z = sample("z", dist.Categorical(weights))
            elif cases == "bernoulli":
                z = sample("z", dist.Bernoulli(weights.new_tensor(0.4))).long()
            elif cases == "sum":
                z = sample("z", dist.Bernoulli(0.3)) + sample("u", dist.Bernoulli(0.6))
                z = z.long()
            elif cases == "data":
                z = group
            loc = {
                "case": lambda: pick(mean, z),
                "affine": lambda: pick(mean, z) + design @ slope,
                "product": lambda: 0.5 * pick(mean, z) * slope[0] - 1,
                "difference": lambda: mean[1:].sum() - slope[group],
                "where": lambda: torch.where(group == 0, pick(mean, z), slope[1]),
            }[location]()
            sd = {
                "constant": lambda: torch.tensor(0.8),
                "precision": lambda: pick(tau, z).rsqrt(),
                "variance": lambda: v.sqrt(),
                "scaled": lambda: 2 / (3 * tau[0] ** 0.5),
                "both": lambda: (v / pick(tau, z)).sqrt(),
            }[scale]()
            if likelihood == "normal":
                sample("y", dist.Normal(loc, sd), obs=y)
            elif likelihood == "lognormal":
                sample("y", dist.LogNormal(loc, sd), obs=y.exp())
            else:
                x = sample("x", dist.Normal(loc, sd))
                sample("y", dist.Normal(x - slope.sum(), 1.0), obs=y)
        sample("count", dist.Poisson(tau[1]), obs=y.new_tensor(3.0))

    return model


PIECES = st.tuples(
    st.sampled_from(["categorical", "bernoulli", "sum", "data"]),
    st.sampled_from(["case", "affine", "product", "difference", "where"]),
    st.sampled_from(["constant", "precision", "variance", "scaled", "both"]),
    st.sampled_from(["normal", "lognormal", "latent"]),
    st.booleans(),
)
SETTINGS = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


def check(pieces, data, joint):
    """Coupled Gaussian sites share a factor (``None``), or all are kept apart."""
    model = build(pieces, data)
    conjugate, bounds = fitted(model, sweeps=8, joint=joint)
    assert_never_falls(bounds)
    assert_updates_are_optimal(conjugate)
    assert_bound_matches_monte_carlo(conjugate, model, (), draws=300)


@settings(max_examples=5, **SETTINGS)
@given(pieces=PIECES, data=st.integers(0, 1000), joint=st.sampled_from([None, ()]))
def test_random_model(pieces, data, joint):
    check(pieces, data, joint)


@pytest.mark.slow
@settings(max_examples=60, **SETTINGS)
@given(pieces=PIECES, data=st.integers(0, 1000), joint=st.sampled_from([None, ()]))
def test_many_random_models(pieces, data, joint):
    check(pieces, data, joint)
