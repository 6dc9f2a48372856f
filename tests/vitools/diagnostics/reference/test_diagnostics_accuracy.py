"""Accuracy on Gaussians whose figures are worked out by hand."""

import math

import pytest
import torch

from vitools.diagnostics import Grade, Moments, measure_accuracy
from vitools.diagnostics.verdict.verdict import reach_verdict
from vitools.posterior import Status


def made(mean, sd, mean_error=0.0, sd_error=0.0) -> Moments:
    mean, sd = torch.tensor(mean).double(), torch.tensor(sd).double()
    return Moments(
        mean,
        sd,
        torch.as_tensor(mean_error).double().expand_as(mean),
        torch.as_tensor(sd_error).double().expand_as(mean),
    )


def test_figures_names_and_errors():
    q = {
        "mu": made([[1.0, 2.0], [3.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]], 0.03),
        "tau": made(5.0, 0.5, 0.0, 0.02),
    }
    reference = {
        "mu": made([[1.0, 2.0], [3.0, 5.0]], [[1.0, 1.0], [1.0, 2.0]], 0.04, 0.1),
        "tau": made(5.0, 2.0, 0.0, 0.04),
    }
    found = measure_accuracy(q, reference)
    assert found.mean_error_at == "mu[1,1]"
    assert found.mean_error.value == 0.5
    # √(.03² + .04²) / 2 from the means, .5 · .1/2 from the scale
    assert found.mean_error.standard_error == pytest.approx(math.hypot(0.025, 0.025))
    assert found.sd_ratio_at == "tau"
    assert found.sd_ratio.value == 0.25
    assert found.sd_ratio.standard_error == pytest.approx(math.hypot(0.02 / 2, 0.25 * 0.04 / 2))
    assert found.all_sd_ratios["mu"].tolist() == [[1.0, 1.0], [1.0, 0.5]]


def test_a_noisy_entry_does_not_hide_a_wrong_one():
    q = {"mu": made([0.0, 0.0], [1.0, 1.0])}
    reference = {"mu": made([0.6, 0.5], [1.0, 1.0], torch.tensor([0.4, 0.01]))}
    assert measure_accuracy(q, reference).mean_error_at == "mu[1]"


def test_too_wide_counts_as_too_narrow_does():
    reference = {"mu": made([0.0, 0.0], [1.0, 1.0])}
    assert measure_accuracy({"mu": made([0.0, 0.0], [3.0, 0.5])}, reference).sd_ratio_at == "mu[0]"
    assert measure_accuracy({"mu": made([0.0, 0.0], [1.5, 0.5])}, reference).sd_ratio_at == "mu[1]"


def test_constants_are_left_out():
    reference = {"total": made(1.0, 0.0), "mu": made(0.0, 1.0)}
    found = measure_accuracy({"total": made(1.0, 1e-17), "mu": made(0.1, 1.0)}, reference)
    assert found.mean_error_at == found.sd_ratio_at == "mu"
    assert math.isnan(float(found.all_mean_errors["total"]))
    assert measure_accuracy({"total": made(1.0, 0.0)}, {"total": made(1.0, 0.0)}) is None


def test_a_fit_that_left_the_numbers_is_infinitely_wrong():
    q = {"a": made(0.0, 1.0), "b": made(math.nan, math.nan)}
    found = measure_accuracy(q, {"a": made(3.0, 1.0), "b": made(0.0, 1.0)})
    assert found.mean_error_at == "b"
    assert found.mean_error.value == math.inf


def test_a_fit_that_left_the_numbers_is_infinitely_wrong_without_doubt():
    q = {"mu": made([0.0, math.nan], [1.0, math.nan], [0.0, math.nan], [0.0, math.nan])}
    found = measure_accuracy(q, {"mu": made([0.0, 0.0], [1.0, 1.0], 0.1, 0.1)})
    for figure, at in (
        (found.mean_error, found.mean_error_at),
        (found.sd_ratio, found.sd_ratio_at),
    ):
        assert (figure.value, figure.standard_error, at) == (math.inf, 0.0, "mu[1]")
    verdict = reach_verdict(Status.CONVERGED, accuracy=found)
    assert verdict.grade is Grade.REJECT
    assert "the mean of mu[1]" in verdict.reason
