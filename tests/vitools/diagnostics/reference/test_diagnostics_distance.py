"""Quantiles, correlations and sliced Wasserstein between Gaussians, where all three are known."""

import math

import numpy as np
import pytest
import torch

from vitools import Problem
from vitools.diagnostics.reference.distance import measure_distance
from vitools.diagnostics.reference.reference import reference_draws, reference_moments
from vitools.errors import OptionError
from vitools.models import coin


def gaussian(n, seed, mean=(0.0, 0.0), sd=(1.0, 1.0), rho=0.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator)
    y = torch.stack([x[:, 0], rho * x[:, 0] + math.sqrt(1 - rho**2) * x[:, 1]], -1)
    return torch.tensor(mean) + torch.tensor(sd) * y


def test_a_shift_is_a_shift_of_every_figure():
    found = measure_distance({"x": gaussian(2000, 0, mean=(0.0, 1.0))}, {"x": gaussian(2000, 1)})
    assert found.quantile_error_at.startswith("x[1]")
    assert abs(found.quantile_error.value - 1) < 4 * found.quantile_error.standard_error
    # W₁ of a shift is its length: E |v₂| of a direction in the plane is 2/π
    directions = found.sliced_wasserstein
    assert abs(directions.value - 2 / math.pi) < 4 * directions.standard_error + 0.1
    assert found.floor < 0.1 < directions.value


def test_a_missed_correlation():
    found = measure_distance({"x": gaussian(2000, 0)}, {"x": gaussian(2000, 1, rho=0.8)})
    assert found.correlation_error_at == "x[0] and x[1]"
    assert abs(found.correlation_error.value - 0.8) < 4 * found.correlation_error.standard_error
    assert found.correlation_error.standard_error < 0.05


def test_a_narrow_fit_misses_the_outer_quantiles():
    found = measure_distance({"x": gaussian(2000, 0, sd=(1.0, 0.5))}, {"x": gaussian(2000, 1)})
    assert found.quantile_error_at in ("x[1] 5 %", "x[1] 95 %")
    truth = 0.5 * 1.6449
    assert abs(found.quantile_error.value - truth) < 4 * found.quantile_error.standard_error


def test_draws_of_the_reference_itself_are_not_far():
    found = measure_distance({"x": gaussian(2000, 0)}, {"x": gaussian(2000, 1)})
    assert found.quantile_error.value < 5 * found.quantile_error.standard_error
    assert found.sliced_wasserstein.value < 3 * found.floor


def test_errors_are_those_found():
    """The jackknife's error of a quantile against its scatter over replicates."""
    found = [
        measure_distance(
            {"x": gaussian(1000, 2 * s)[:, 0] + 1}, {"x": gaussian(1000, 2 * s + 1)[:, 0]}
        )
        for s in range(40)
    ]
    values = np.array([f.sliced_wasserstein.value for f in found])
    stated = np.mean([f.sliced_wasserstein.standard_error for f in found])
    assert stated == pytest.approx(values.std(ddof=1), rel=5 / math.sqrt(2 * 40))


def test_constants_are_left_out_and_shapes_must_agree():
    x = gaussian(100, 0)
    found = measure_distance(
        {"x": x[:, 0], "c": torch.ones(100)}, {"x": x[:, 0], "c": torch.ones(100)}
    )
    assert found.correlation_error is None
    assert measure_distance({"c": torch.ones(100)}, {"c": torch.ones(100)}) is None
    with pytest.raises(OptionError, match="entries of shape"):
        measure_distance({"x": x}, {"x": x[:, 0]})
    with pytest.raises(OptionError, match="at least 20 draws"):
        measure_distance({"x": x}, {"x": x[:15]})


def test_reference_draws_from_elsewhere():
    problem = Problem(coin.model, coin.simulate(20))
    draws = np.random.default_rng(0).beta(15, 7, size=(4, 500))
    found = reference_moments(problem, {"p": draws, "lp__": draws}, num_chains=4)["p"]
    assert abs(float(found.mean) - 15 / 22) < 4 * float(found.mean_error) < 0.02
    assert reference_draws(problem, {"p": draws})["p"].shape == (2000,)
    with pytest.raises(OptionError, match="'p' are missing"):
        reference_draws(problem, {"q": draws})
    with pytest.raises(OptionError, match=r"expected shape \[n"):
        reference_draws(problem, {"p": draws[..., None]})
