"""Smoothed weights against ArviZ, reweighted moments against the target they aim at."""

import math

import numpy as np
import pytest
import torch

from vitools.diagnostics import measure_correction, psis_moments, smooth
from vitools.errors import NumericalError
from vitools.reporting.arviz.groups import import_arviz


def narrow_gaussian(sd: float, n: int, seed: int, shift: float = 0.0):
    """Draws of q = N(shift, sd²) and their weights under p = N(0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    x = shift + sd * torch.randn(n, generator=generator, dtype=torch.float64)
    log_q = -0.5 * ((x - shift) / sd) ** 2 - math.log(sd)
    return x, -0.5 * x**2 - log_q


@pytest.mark.parametrize("spread", [0.3, 1.5, 4.0])
def test_weights_are_those_of_arviz(spread):
    arviz = import_arviz()
    if not hasattr(arviz, "psislw"):
        pytest.skip("this ArviZ does not offer psislw")
    log_weights = spread * np.random.default_rng(0).normal(size=2000)
    theirs, khat = arviz.psislw(log_weights.copy())
    ours = smooth(torch.from_numpy(log_weights))
    np.testing.assert_allclose(ours.log_weights.numpy(), theirs, atol=1e-6)
    assert ours.khat.value == pytest.approx(float(khat), abs=1e-6)


def test_weights_sum_to_one_and_equal_ones_stay_equal():
    found = smooth(torch.full((500,), -3456.2, dtype=torch.float64))
    assert torch.equal(found.weights, torch.full_like(found.weights, found.weights[0]))
    assert found.effective_size == pytest.approx(500)
    heavy = smooth(6 * torch.randn(500, generator=torch.Generator().manual_seed(0)).double())
    assert float(heavy.weights.sum()) == pytest.approx(1.0)
    assert heavy.effective_size < 50


def test_undefined_weights_are_refused():
    with pytest.raises(NumericalError, match="1 of 100"):
        smooth(torch.tensor([math.nan] + [0.0] * 99))


def test_moments_are_those_of_the_target_within_their_errors():
    replicates = 200
    found = []
    for seed in range(replicates):
        x, log_weights = narrow_gaussian(0.9, 1000, seed, shift=0.3)
        found.append(psis_moments({"x": x}, smooth(log_weights))["x"])
    means = np.array([float(m.mean) for m in found])
    sds = np.array([float(m.sd) for m in found])
    assert abs(means.mean()) < 4 * means.std(ddof=1) / math.sqrt(replicates) + 0.01
    assert abs(sds.mean() - 1) < 4 * sds.std(ddof=1) / math.sqrt(replicates) + 0.01
    # the errors stated are those found, within the scatter of a standard deviation of 200
    stated = np.mean([float(m.mean_error) for m in found])
    assert stated == pytest.approx(means.std(ddof=1), rel=5 / math.sqrt(2 * replicates))
    stated = np.mean([float(m.sd_error) for m in found])
    assert stated == pytest.approx(sds.std(ddof=1), rel=6 / math.sqrt(2 * replicates))


def test_correction_says_how_narrow_and_how_far_off_the_fit_is():
    x, log_weights = narrow_gaussian(0.8, 20_000, 0, shift=0.25)
    found = measure_correction({"x": x}, smooth(log_weights))
    assert abs(found.mean_error.value - 0.25) < 4 * found.mean_error.standard_error < 0.1
    assert abs(found.sd_ratio.value - 0.8) < 4 * found.sd_ratio.standard_error < 0.1


def test_errors_of_the_correction_are_those_found():
    replicates = 200
    found = []
    for seed in range(replicates):
        x, log_weights = narrow_gaussian(0.9, 1000, seed, shift=0.5)
        found.append(measure_correction({"x": x}, smooth(log_weights)))
    for figure in ("mean_error", "sd_ratio"):
        values = np.array([getattr(f, figure).value for f in found])
        stated = np.mean([getattr(f, figure).standard_error for f in found])
        assert stated == pytest.approx(values.std(ddof=1), rel=6 / math.sqrt(2 * replicates))


def test_correction_of_the_posterior_itself_is_none():
    x, _ = narrow_gaussian(1.0, 1000, 0)
    found = measure_correction({"x": x, "constant": torch.ones(1000)}, smooth(torch.zeros(1000)))
    assert found.mean_error.value == pytest.approx(0.0, abs=1e-12)
    assert found.sd_ratio.value == pytest.approx(1.0, abs=1e-12)
    assert math.isnan(float(found.all_mean_errors["constant"]))
    assert measure_correction({"constant": torch.ones(50)}, smooth(torch.zeros(50))) is None
