"""Simulated regressions follow their stated law, and the diabetes set its published figures."""

import numpy as np
import pytest
import torch

from vitools.errors import OptionError
from vitools.models import bayesian_regression as regression


@pytest.mark.parametrize(
    ("likelihood", "truth"),
    [
        ("normal", {"weights", "intercept", "precision"}),
        ("bernoulli", {"weights", "intercept"}),
        ("poisson", {"weights", "intercept"}),
    ],
)
def test_target_follows_the_truth(likelihood, truth):
    num_rows = 20_000
    data = regression.simulate(num_rows, 4, seed=5, likelihood=likelihood, noise_scale=2.0)
    assert set(data.truth) == truth
    assert data.feature_names == ("x1", "x2", "x3", "x4")
    predictor = data.features @ data.truth["weights"] + data.truth["intercept"]
    mean, sd = {
        "normal": (predictor, torch.full_like(predictor, 2.0)),
        "bernoulli": (predictor.sigmoid(), (predictor.sigmoid() * (-predictor).sigmoid()).sqrt()),
        "poisson": (predictor.exp(), (0.5 * predictor).exp()),
    }[likelihood]
    residual = (data.target - mean) / sd
    # Means of 20 000 numbers of mean 0 and variance 1: four standard errors. Uncorrelated with
    # each feature likewise.
    standard_error = num_rows**-0.5
    assert residual.mean().abs() < 4 * standard_error
    assert (data.features.T @ residual / num_rows).abs().max() < 4 * standard_error
    square = residual**2
    assert (square.mean() - 1).abs() < 4 * square.std() * standard_error
    if likelihood == "bernoulli":
        assert set(data.target.unique().tolist()) == {0.0, 1.0}
    if likelihood == "poisson":
        assert torch.equal(data.target, data.target.round())


def test_features_correlate_as_stated():
    num_rows = 20_000
    features = regression.simulate(num_rows, 3, seed=2, correlation=-0.6).features.numpy()
    expected = np.array([[1, -0.6, 0.36], [-0.6, 1, -0.6], [0.36, -0.6, 1]])
    # Var of a sample correlation is (1-ρ²)²/N ≤ 1/N.
    assert np.abs(np.corrcoef(features.T) - expected).max() < 4 * num_rows**-0.5


def test_relevance_seeds_and_global_randomness():
    state = torch.get_rng_state()
    sparse = regression.simulate(10, 5, seed=1, num_relevant=2)
    again = regression.simulate(10, 5, seed=1, num_relevant=2)
    other = regression.simulate(10, 5, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert (sparse.truth["weights"] != 0).tolist() == [True, True, False, False, False]
    assert torch.equal(sparse.target, again.target)
    assert not torch.equal(sparse.target, other.target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_rows": 0}, "num_rows: expected a positive integer"),
        ({"num_features": 2.0}, "num_features: expected a positive integer"),
        ({"likelihood": "gamma"}, "likelihood: expected one of normal, bernoulli, poisson"),
        ({"correlation": 1.0}, "correlation: expected a number between -1 and 1"),
        ({"noise_scale": 0.0}, "noise_scale: expected a positive finite number"),
        ({"num_relevant": 4}, "num_relevant: expected 0 to 3, got 4"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        regression.simulate(**options)


def test_diabetes_is_standardised():
    data = regression.load()
    assert data.features.shape == (442, 10)
    assert data.target.shape == (442,)
    assert data.feature_names == ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
    assert data.truth == {}
    both = torch.column_stack([data.features, data.target])
    torch.testing.assert_close(
        both.mean(0), torch.zeros(11, dtype=torch.float64), atol=1e-13, rtol=0
    )
    torch.testing.assert_close((both**2).mean(0), torch.ones(11, dtype=torch.float64))
    # Least squares on all ten features explains 51.8 per cent of the variance (a figure every
    # regression package prints for this set).
    residual = np.linalg.lstsq(data.features.numpy(), data.target.numpy())[1].item() / 442
    assert 1 - residual == pytest.approx(0.5177, abs=5e-5)
