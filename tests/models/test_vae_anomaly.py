"""Curves of alarms against scikit-learn, and their error against simulated repetitions."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from vitools.errors import DataError
from vitools.models.vae import (
    VAE,
    anomaly_scores,
    importance_weighted_log_likelihood,
    roc,
)


@pytest.mark.parametrize("decimals", [1, 12])  # with ties, and without
def test_curve_and_area_agree_with_scikit_learn(decimals):
    generator = torch.Generator().manual_seed(0)
    ordinary = torch.randn(70, generator=generator).double().round(decimals=decimals)
    anomalous = (torch.randn(40, generator=generator).double() + 0.8).round(decimals=decimals)
    curve = roc(ordinary, anomalous)
    labels = np.repeat([0, 1], [70, 40])
    scores = torch.cat([ordinary, anomalous]).numpy()
    assert curve.area == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_alarms, false, atol=1e-12)
    np.testing.assert_allclose(curve.true_alarms, true, atol=1e-12)
    assert np.trapezoid(curve.true_alarms, curve.false_alarms) == pytest.approx(curve.area)


def test_standard_error_is_the_spread_of_repetitions():
    generator = torch.Generator().manual_seed(1)
    curves = [
        roc(
            torch.randn(60, generator=generator, dtype=torch.float64),
            1.5 * torch.randn(30, generator=generator, dtype=torch.float64) + 1,
        )
        for _ in range(1500)
    ]
    areas = torch.tensor([curve.area for curve in curves])
    mean_square = torch.tensor([curve.standard_error for curve in curves]).square().mean()
    # A variance of 1500 values is known to √(2/1500) = 3.7 %; DeLong's bias is of order 1/30.
    assert areas.var() == pytest.approx(mean_square.item(), rel=4 * 0.037 + 1 / 30)
    exact = torch.special.ndtr(torch.tensor(1 / (1 + 1.5**2) ** 0.5)).item()  # P(t > s)
    assert abs(areas.mean() - exact) < 4 * areas.std() / 1500**0.5


def test_perfect_and_useless_scores():
    scores = torch.arange(5.0)
    assert roc(scores, scores + 10).area == 1.0
    assert roc(scores + 10, scores).area == 0.0
    assert roc(scores, scores).area == 0.5


def test_scores_are_minus_the_bound():
    vae = VAE(4, 2, (3,), likelihood="gaussian").double()
    images = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bound = importance_weighted_log_likelihood(vae, images, num_samples=20, seed=4)
    assert torch.equal(anomaly_scores(vae, images, num_samples=20, seed=4), -bound.value)


def test_refusals():
    scores = torch.arange(3.0)
    with pytest.raises(DataError, match=r"ordinary: expected at least 2 scores.*\[1\]"):
        roc(scores[:1], scores)
    with pytest.raises(DataError, match=r"anomalous: .*\[3\] with NaN"):
        roc(scores, scores / 0 * 0)
