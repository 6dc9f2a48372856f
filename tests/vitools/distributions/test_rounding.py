"""Draws of sparse families follow their distribution, however far they are beyond float's numbers."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td

from vitools.distributions.rounding import beyond_log_prob, inside, rounded_draws
from vitools.families import FAMILIES
from vitools.isolation import seeded


def number(*values):
    return torch.tensor(values, dtype=torch.float64)


SPARSE = {
    "Beta": td.Beta(number(1.0, 0.001, 0.3), number(0.1, 0.001, 4.0)),
    "Gamma": td.Gamma(number(0.001, 0.02, 3.0), number(0.1, 1000.0, 2.0)),
    "InverseGamma": dist.InverseGamma(number(0.001, 0.3, 3.0), number(5.0, 0.1, 2.0)),
    "Dirichlet": td.Dirichlet(number(0.001, 0.003, 0.001)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SPARSE)
def test_values_with_what_is_beyond_have_the_mean_statistics(name, dtype):
    distribution, family = SPARSE[name], FAMILIES[name]
    with seeded(0):
        value, beyond = rounded_draws(distribution, 20_000, dtype)
    assert value.dtype == dtype
    assert bool(distribution.support.check(value.double()).all()) or name == "Dirichlet"
    expected = family.mean_parameters(family.from_distribution(distribution))
    statistics = {"log": torch.log, "log1m": lambda v: torch.log1p(-v)}
    for statistic, mean in zip(family.statistics, expected, strict=True):
        if statistic not in statistics:
            continue
        found = statistics[statistic](value.double()) + beyond[statistic].double()
        error = found.std(0) / math.sqrt(len(found))
        assert bool(((found.mean(0) - mean).abs() <= 4.5 * error).all())


PAIRS = {
    "Beta": (td.Beta(number(2.0), number(0.1)), td.Beta(number(1.0), number(0.7))),
    "Gamma": (td.Gamma(number(0.02), number(1.0)), td.Gamma(number(0.2), number(3.0))),
    "InverseGamma": (dist.InverseGamma(number(0.03), number(1.0)),) * 2,
    "Dirichlet": (td.Dirichlet(number(0.2, 0.05)), td.Dirichlet(number(0.1, 0.2))),
}


@pytest.mark.parametrize("name", PAIRS)
def test_densities_beyond_float32_are_those_of_the_draw_in_float64(name):
    drawn, scored = PAIRS[name]
    found = []
    for dtype in (torch.float64, torch.float32):
        with seeded(1):
            value, beyond = rounded_draws(drawn, 5000, dtype)
        shifts = torch.stack(list((beyond or {"log": torch.zeros_like(value)}).values()))
        found.append((value, beyond, (shifts != 0).any(0).any(-1)))
    (precise, _, too_far), (rounded, beyond, at_edge) = found
    if name == "Beta":  # where float64 knows 1 - v to three digits only
        too_far = too_far | (1 - precise < 1e-13).any(-1)
    at_edge = at_edge & ~too_far
    assert int(at_edge.sum()) > 50
    got = scored.log_prob(rounded.double()) + beyond_log_prob(scored, beyond)
    torch.testing.assert_close(
        got[at_edge], scored.log_prob(precise)[at_edge], rtol=1e-5, atol=1e-3
    )


def test_wrappers_are_seen_through():
    base = SPARSE["Beta"]
    with seeded(0):
        _, beyond = rounded_draws(base, 1000, torch.float32)
    each = beyond_log_prob(base, beyond)
    assert torch.equal(beyond_log_prob(td.Independent(base, 1), beyond), each.sum(-1))
    mask = torch.tensor([True, False, True])
    masked = beyond_log_prob(dist.MaskedDistribution(base, mask), beyond)
    assert torch.equal(masked, torch.where(mask, each, 0.0))
    one = dist.Beta(number(1.0)[0], number(0.1)[0])
    assert torch.equal(beyond_log_prob(one.expand([3]), beyond), beyond_log_prob(one, beyond))
    assert not bool(beyond_log_prob(td.Uniform(number(0.0), number(1.0)), beyond).any())


def test_other_distributions_draw_as_ever():
    for distribution in (td.Normal(number(0.0), number(1.0)), td.Beta(number(2.0), number(3.0))):
        with seeded(3):
            value, beyond = rounded_draws(distribution, 4, torch.float64)
        with seeded(3):
            assert torch.equal(value, distribution.sample((4,)))
        assert beyond is None
    edge = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float32)
    assert inside(td.Beta(1.0, 1.0), edge).tolist() == [2.0**-126, 0.5, 1.0 - 2.0**-24]
    assert inside(td.Normal(0.0, 1.0), edge) is edge
