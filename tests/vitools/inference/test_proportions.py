"""Proportions of mixtures against scipy's optimiser and closed forms."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from vitools.inference.proportions import proportions, with_errors


@pytest.mark.parametrize("seed", range(6))
def test_they_are_the_maximum_that_a_general_optimiser_finds(seed):
    generator = torch.Generator().manual_seed(seed)
    log_densities = 3.0 * torch.randn(200, 5, generator=generator)
    weights = torch.rand(200, generator=generator) ** 4
    found = proportions(log_densities, weights).numpy()
    densities, share = log_densities.exp().numpy(), (weights / weights.sum()).numpy()

    def loss(alpha):
        return -share @ np.log(densities @ alpha)

    simplex = {"type": "eq", "fun": lambda alpha: alpha.sum() - 1.0}
    other = minimize(
        loss, np.full(5, 0.2), bounds=[(0.0, 1.0)] * 5, constraints=simplex, options={"ftol": 1e-12}
    )
    assert found.min() >= 0.0
    assert found.sum() == pytest.approx(1.0)
    assert loss(found) <= other.fun + 1e-7
    np.testing.assert_allclose(found, other.x, atol=1e-3)


def test_values_apart_are_counted():
    log_densities = torch.full((8, 2), -800.0)
    log_densities[:6, 0] = log_densities[6:, 1] = 0.0
    assert proportions(log_densities, torch.ones(8)).tolist() == pytest.approx([0.75, 0.25])


def test_a_value_without_weight_may_be_beyond_every_density():
    log_densities = torch.tensor([[0.0, -5.0], [-5.0, 0.0], [-torch.inf, -torch.inf]])
    found = proportions(log_densities, torch.tensor([0.5, 0.5, 0.0]))
    assert found.tolist() == pytest.approx([0.5, 0.5])


def test_errors_of_counts_are_binomial():
    generator = torch.Generator().manual_seed(0)
    inside = torch.rand(4000, generator=generator) < 0.3
    log_densities = torch.where(torch.stack([inside, ~inside], -1), 0.0, -600.0)
    found, errors = with_errors(log_densities, torch.ones(4000))
    assert found.tolist() == pytest.approx(
        [float(inside.double().mean()), float((~inside).double().mean())]
    )
    # the jackknife of 20 groups has a relative error of 1 / √38
    assert errors.tolist() == pytest.approx([(0.21 / 4000) ** 0.5] * 2, rel=4 / 38**0.5)


def test_nothing_is_known_better_than_to_the_heaviest_value():
    log_densities = torch.tensor([[0.0, -9.0]]).expand(100, 2)
    _, errors = with_errors(log_densities, torch.ones(100))
    assert errors.tolist() == [0.01, 0.01]
