"""MV-Kumaraswamy: exchangeable, a Dirichlet where it must be, and bounded by its own orders."""

import math

import pytest
import torch

from vitools.distributions import MVKumaraswamy


@pytest.fixture(autouse=True)
def own_generator(clean_process):
    """Tests here seed torch's generator; it is handed back as it was."""
    with torch.random.fork_rng(devices=[]):
        yield


def test_equals_the_uniform_dirichlet_at_unit_concentrations() -> None:
    """With α = 1 the sticks are K(1, k) = Beta(1, k), in every order."""
    q = MVKumaraswamy(torch.zeros(5).double())
    exact = torch.distributions.Dirichlet(torch.ones(5).double())
    value = exact.sample((50,))
    torch.testing.assert_close(q.log_prob(value), exact.log_prob(value))


def test_is_exchangeable_unlike_one_order() -> None:
    log_alpha = torch.tensor([0.5, -0.7, 1.1, 0.0]).double()
    permutation = torch.tensor([2, 0, 3, 1])
    value = torch.distributions.Dirichlet(torch.ones(4).double()).sample((20,))
    there = MVKumaraswamy(log_alpha).log_prob(value)
    back = MVKumaraswamy(log_alpha[permutation]).log_prob(value[:, permutation])
    torch.testing.assert_close(there, back)
    order = torch.arange(4)
    one = MVKumaraswamy(log_alpha).log_prob_given_order(value, order)
    other = MVKumaraswamy(log_alpha).log_prob_given_order(value, permutation)
    assert (one - other).abs().max() > 0.1


def test_score_at_the_drawn_order_bounds_the_exact_one() -> None:
    """E[q(π) / q(π|o)] = 1 over draws of (o, π), so E log q(π|o) ≥ E log q(π)."""
    q = MVKumaraswamy(torch.tensor([0.5, -0.7, 1.1, 0.3]).double())
    torch.manual_seed(0)
    value = q.rsample((50_000,))
    given = q._last_draw.score(lambda order: q.log_prob_given_order(value, order))
    log_ratio = q.log_prob(value) - given
    ratio = log_ratio.exp()
    assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / 50_000**0.5
    assert log_ratio.mean() < -4.5 * log_ratio.std() / 50_000**0.5


def test_large_simplices_score_their_own_draws_only() -> None:
    q = MVKumaraswamy(torch.full((40,), math.log(0.1), dtype=torch.float32, requires_grad=True))
    torch.manual_seed(0)
    value = q.rsample((100,))
    torch.testing.assert_close(value.sum(-1), torch.ones(100).float())
    score = q.log_prob(value)
    assert score.isfinite().all()
    (gradient,) = torch.autograd.grad(score.sum() + value.square().sum(), q.log_concentration)
    assert gradient.isfinite().all()
    with pytest.raises(NotImplementedError, match="log_prob_given_order"):
        q.log_prob(value.clone())


def test_constant_draws_of_large_simplices_keep_their_score_gradient() -> None:
    """E ∇ log q(π, o) = 0 over draws made by sample(), which carry no gradient themselves."""
    lanes = torch.full((20_000, 8), -0.5, dtype=torch.float64, requires_grad=True)
    q = MVKumaraswamy(lanes)
    torch.manual_seed(0)
    (gradient,) = torch.autograd.grad(q.log_prob(q.sample()).sum(), lanes)
    assert (gradient.std(0) > 0.1).all()
    assert (gradient.mean(0).abs() < 4.5 * gradient.std(0) / 20_000**0.5).all()


def test_mean_of_equal_concentrations_is_uniform() -> None:
    q = MVKumaraswamy(torch.full((4,), -0.5).double())
    torch.manual_seed(0)
    value = q.sample((40_000,))
    assert ((value.mean(0) - 0.25).abs() < 4.5 * value.std(0) / 200).all()
