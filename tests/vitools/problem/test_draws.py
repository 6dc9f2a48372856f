"""torch's samplers under vmap, against the distributions' own distribution functions."""

import pytest
import torch
from scipy import stats
from torch import distributions as td

from vitools.isolation import seeded
from vitools.problem.density.draws import vmap_can_draw

CONTINUOUS = {
    "normal": (lambda: td.Normal(0.5, 2.0), stats.norm(0.5, 2.0)),
    "log normal": (
        lambda: td.LogNormal(0.5, 0.7),
        stats.lognorm(0.7, scale=2.718281828459045**0.5),
    ),
    "exponential": (lambda: td.Exponential(2.0), stats.expon(scale=0.5)),
    "cauchy": (lambda: td.Cauchy(1.0, 2.0), stats.cauchy(1.0, 2.0)),
    "gamma": (lambda: td.Gamma(2.5, 2.0), stats.gamma(2.5, scale=0.5)),
    "beta": (lambda: td.Beta(0.5, 2.0), stats.beta(0.5, 2.0)),
    "student": (lambda: td.StudentT(3.0, 0.0, 1.0), stats.t(3.0)),
    "laplace": (lambda: td.Laplace(0.0, 1.0), stats.laplace()),
    "dirichlet": (lambda: td.Dirichlet(torch.tensor([0.5, 1.5, 2.0])), stats.beta(0.5, 3.5)),
    "lkj": (lambda: td.LKJCholesky(3, 2.0), stats.beta(2.5, 2.5, loc=-1, scale=2)),
}


pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")


def mapped(distribution, count, seed=0):
    with seeded(seed), torch.no_grad(), vmap_can_draw():
        return torch.vmap(lambda _: distribution.sample(), randomness="different")(
            torch.zeros(count)
        )


@pytest.mark.parametrize("name", CONTINUOUS)
def test_mapped_draws_follow_the_distribution(name):
    make, truth = CONTINUOUS[name]
    draws = mapped(make(), 4000)
    if name == "lkj":  # the second row's first entry is a correlation, Beta(η + d/2 - 1) on (-1, 1)
        draws = draws[:, 1, 0]
    elif name == "dirichlet":
        draws = draws[:, 0]
    assert len(draws.unique()) == 4000
    assert stats.kstest(draws.numpy(), truth.cdf).pvalue > 1e-3


def test_geometric_draws():
    with seeded(0), vmap_can_draw():
        draws = torch.vmap(lambda _: td.Geometric(0.3).sample(), randomness="different")(
            torch.zeros(20_000)
        )
    standard_error = draws.std() / 20_000**0.5
    assert abs(draws.mean() - 0.7 / 0.3) < 4.5 * standard_error


def test_entries_and_draws_are_independent():
    draws = mapped(td.Normal(torch.zeros(2), 1.0), 20_000)
    correlation = torch.corrcoef(draws.mT)[0, 1]
    assert abs(correlation) < 4.5 / 20_000**0.5


def test_an_abandoned_buffer_holds_no_draw():
    def careless(_):
        buffer = torch.empty(3)
        buffer.normal_()
        return buffer

    with seeded(0), vmap_can_draw():
        result = torch.vmap(careless, randomness="different")(torch.zeros(2))
    assert bool(result.isnan().all())


def test_samplers_are_as_before_afterwards():
    original = td.dirichlet._Dirichlet
    mapped(td.Beta(1.0, 1.0), 2)
    assert td.dirichlet._Dirichlet is original
    concentration = torch.ones(3, requires_grad=True)
    with seeded(0):
        td.Dirichlet(concentration).rsample()[0].backward()
    assert concentration.grad is not None
