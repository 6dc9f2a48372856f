"""Fits of conjugate models: the bound must miss the exact evidence by the family's own KL."""

import math
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor
from torch.distributions import kl_divergence

from vitools import Problem, svi
from vitools.diagnostics import marginal_bound
from vitools.distributions import Kumaraswamy, LogisticNormal, StickBreaking
from vitools.guides import AutoDirichlet, AutoKumaraswamy, AutoLogisticNormal, AutoMeanField


@pytest.fixture(autouse=True)
def own_generator(clean_process):
    """Tests here seed torch's generator; it is handed back as it was."""
    with torch.random.fork_rng(devices=[]):
        yield


SUCCESSES = torch.tensor([7.0, 3.0, 9.0, 6.0], dtype=torch.float64)
COUNTS = torch.tensor([12.0, 3.0, 5.0], dtype=torch.float64)
ALPHA = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)


def beta_binomial() -> None:
    two = torch.tensor(2.0, dtype=torch.float64)
    p = pyro.sample("p", dist.Beta(two, 3.0))
    with pyro.plate("groups", len(SUCCESSES)):
        pyro.sample("y", dist.Binomial(10, p), obs=SUCCESSES)


def dirichlet_multinomial() -> None:
    pi = pyro.sample("pi", dist.Dirichlet(ALPHA))
    pyro.sample("y", dist.Multinomial(20, pi), obs=COUNTS)


BETA_POSTERIOR = dist.Beta(2.0 + SUCCESSES.sum(), 3.0 + (10 - SUCCESSES).sum())
DIRICHLET_POSTERIOR = dist.Dirichlet(ALPHA + COUNTS)


@cache
def fit(guide_class: type[AutoMeanField], model: Callable, site: str) -> dist.TorchDistribution:
    """The fitted marginal of the model's only site; rates fall so that the last steps are quiet."""
    guide = guide_class(model)
    with pyro.get_param_store().scope(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        marginal_bound = Trace_ELBO(num_particles=32, vectorize_particles=True, max_plate_nesting=1)
        for rate, steps in ((0.05, 400), (0.01, 400), (0.001, 200)):
            svi = SVI(
                guide.model,
                guide,
                pyro.optim.Adam({"lr": rate, "betas": (0.9, 0.99)}),
                marginal_bound,
            )
            for _ in range(steps):
                svi.step()
    return guide.marginal(site)


def kl_on_simplex(q: dist.TorchDistribution, p: dist.TorchDistribution) -> Tensor:
    """KL(q ‖ p) on the 3-simplex by the trapezoid rule in two stick logits."""
    z = torch.linspace(-30, 30, 601, dtype=torch.float64)
    v, left = torch.sigmoid(z), torch.sigmoid(-z)
    points = torch.stack(
        torch.broadcast_tensors(v[:, None], left[:, None] * v, left[:, None] * left), -1
    )
    weights = left[:, None] * (v * left)[:, None] * (v * left) * (z[1] - z[0]) ** 2
    log_q = q.log_prob(points)
    return (log_q.exp() * (log_q - p.log_prob(points)) * weights).sum()


def test_kumaraswamy_reaches_its_gap_on_the_beta_binomial() -> None:
    q = fit(AutoKumaraswamy, beta_binomial, "p")
    least = Kumaraswamy.closest_to(BETA_POSTERIOR)[1]
    gap = kl_divergence(q, BETA_POSTERIOR)
    assert 1e-3 < least < 0.06
    assert least - 1e-9 <= gap < least + 2e-3


@pytest.mark.parametrize("rows", [1e4, 1e6])
def test_kumaraswamy_follows_a_posterior_however_narrow(rows: float) -> None:
    posterior = dist.Beta(*torch.tensor([0.3 * rows, 0.7 * rows], dtype=torch.float64))
    guide = AutoKumaraswamy(beta_binomial)
    with pyro.get_param_store().scope():
        guide()
        guide.initialise_from(SimpleNamespace(marginal=lambda site: posterior))
    least = Kumaraswamy.closest_to(posterior)[1]
    assert least <= kl_divergence(guide.marginal("p"), posterior) < 0.3


@pytest.mark.slow
def test_beta_and_kumaraswamy_arrive_at_the_posterior_of_many_rows() -> None:
    """From a flat prior at svi's own settings; exact log evidence -log(n + 1)."""
    rows = 10_000

    def coin(heads: Tensor) -> None:
        one = heads.new_ones(())
        p = pyro.sample("p", dist.Beta(one, one))
        pyro.sample("heads", dist.Binomial(rows, p), obs=heads)

    heads = torch.tensor(0.3 * rows, dtype=torch.float64)
    least = Kumaraswamy.closest_to(dist.Beta(1 + heads, 1 + rows - heads))[1].item()
    for guide, gap in ((AutoDirichlet, 0.0), (AutoKumaraswamy, least)):
        bound = marginal_bound(svi(Problem(coin, heads), guide, seed=0), 4000, seed=1)
        assert abs(-math.log(rows + 1) - bound.value - gap) < 0.03, guide


@pytest.mark.slow
def test_beta_recovers_the_beta_binomial() -> None:
    q = fit(AutoDirichlet, beta_binomial, "p")
    assert kl_divergence(q, BETA_POSTERIOR) < 1e-3


@pytest.mark.slow
def test_kumaraswamy_sticks_reach_their_gap_on_the_dirichlet_multinomial() -> None:
    q = fit(AutoKumaraswamy, dirichlet_multinomial, "pi")
    least = StickBreaking.closest_to(DIRICHLET_POSTERIOR)[1]
    gap = kl_on_simplex(q, DIRICHLET_POSTERIOR)
    assert least - 1e-6 <= gap < least + 3e-3


@pytest.mark.slow
def test_dirichlet_recovers_the_dirichlet_multinomial() -> None:
    q = fit(AutoDirichlet, dirichlet_multinomial, "pi")
    assert kl_divergence(q, DIRICHLET_POSTERIOR) < 2e-3


def test_logistic_normal_beats_moment_matching_on_the_dirichlet_multinomial() -> None:
    q = fit(AutoLogisticNormal, dirichlet_multinomial, "pi")
    matched = LogisticNormal.from_dirichlet(DIRICHLET_POSTERIOR.concentration)
    gap = kl_on_simplex(q, DIRICHLET_POSTERIOR)
    assert 1e-4 < gap < kl_on_simplex(matched, DIRICHLET_POSTERIOR) + 3e-3


@pytest.mark.parametrize("guide_class", [AutoKumaraswamy, AutoLogisticNormal, AutoDirichlet])
def test_posterior_means_are_close(guide_class: type[AutoMeanField]) -> None:
    q = fit(guide_class, dirichlet_multinomial, "pi")
    torch.manual_seed(0)
    draws = q.sample((20_000,))
    sd = DIRICHLET_POSTERIOR.variance.sqrt()
    assert ((draws.mean(0) - DIRICHLET_POSTERIOR.mean).abs() < 0.1 * sd).all()
