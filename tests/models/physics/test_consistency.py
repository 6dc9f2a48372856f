"""One number measured again and again: closed forms against simulated data and quadrature."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from vitools import Problem, cavi
from vitools.errors import OptionError
from vitools.models.physics import consistency
from vitools.models.physics.consistency import (
    error_after,
    measurements_until,
    normal_belief,
    posterior_density,
    simulate,
)

GRID = torch.linspace(-4, 8, 24001, dtype=torch.float64)


def moments(density):
    weights = density / density.sum()
    mean = float(weights @ GRID)
    return mean, float((weights @ (GRID - mean) ** 2).sqrt())


@pytest.mark.parametrize("num", [1, 7, 50])
def test_width_and_mean_are_those_of_the_grid_and_of_coordinate_ascent(num):
    y = simulate(num, truth=3.0, noise=0.8, seed=num)
    belief = normal_belief(y, 0.8, 0.5, 1.2, truth=3.0)
    assert moments(posterior_density(GRID, y, 0.8, "normal", 0.5, 1.2)) == pytest.approx(
        (belief.mean, belief.width), abs=1e-8
    )
    fit = cavi(Problem(consistency.model, y, 0.8, "normal", 0.5, 1.2))
    assert fit.mean()["value"].item() == pytest.approx(belief.mean, abs=1e-10)
    assert fit.sd()["value"].item() == pytest.approx(belief.width, abs=1e-10)


def test_the_error_is_what_repeated_experiments_have():
    given = {"noise": 0.8, "center": 0.0, "spread": 1.0, "truth": 3.0}
    errors = []
    for seed in range(4000):
        y = simulate(5, truth=3.0, noise=0.8, seed=seed)
        errors.append(normal_belief(y, **given).mean - 3.0)
    squares = np.square(errors)
    told = error_after(5, **given) ** 2
    assert squares.mean() == pytest.approx(told, abs=4 * squares.std() / math.sqrt(4000))
    assert np.mean(errors) == pytest.approx(
        normal_belief(simulate(5), **given).pull, abs=4 * np.std(errors) / math.sqrt(4000)
    )


@pytest.mark.parametrize("error", [1.0, 0.3, 0.05])
def test_the_number_of_measurements_is_the_least(error):
    given = {"noise": 1.0, "center": 0.0, "spread": 0.5, "truth": 4.0}
    num = measurements_until(error, **given)
    assert error_after(num, **given) < error <= error_after(num - 1, **given)
    # where the prior was wrong by much, pull decides: N = σ² |λ₀ - λ*| / (s² ε)
    if error == 1.0:
        assert num == pytest.approx(1.0 * 4.0 / (0.25 * 1.0), rel=0.3)


def test_a_prior_that_was_right_needs_no_measurement():
    assert measurements_until(0.5, noise=1.0, center=3.0, spread=0.1, truth=3.0) == 0


@pytest.mark.parametrize(
    "given",
    [
        {"noise": 1.0, "center": 3.0, "spread": 0.1, "truth": 3.0},  # the error peaks at N = 100
        {"noise": 2.0, "center": 3.0, "spread": 0.5, "truth": 3.1},
        {"noise": 1.0, "center": 0.0, "spread": 1.0, "truth": 3.0},
    ],
)
@pytest.mark.parametrize("error", [0.045, 0.2, 0.3])
def test_the_error_stays_below_from_that_number_on(given, error):
    told = [error_after(n, **given) for n in range(5000)]
    above = [n for n, size in enumerate(told) if size >= error]
    assert measurements_until(error, **given) == (above[-1] + 1 if above else 0)


def test_fat_tails_let_go():
    """The farther off a Cauchy prior was, the less it pulls; a normal one pulls the more."""
    y = simulate(10, truth=0.0, seed=0)
    pulls = {"normal": [], "cauchy": []}
    for far in (3.0, 30.0):
        for prior, found in pulls.items():
            density = posterior_density(GRID + y.mean() - 2, y, 1.0, prior, y.mean() + far, 1.0)
            weights = density / density.sum()
            found.append(float(weights @ (GRID - 2)))
    assert pulls["normal"][1] == pytest.approx(10 * pulls["normal"][0], rel=1e-6)
    assert pulls["cauchy"][1] < 0.2 * pulls["cauchy"][0]
    slope = 2 * 30 / (30**2 + 1)  # of the prior's log density, times σ²/N
    assert pulls["cauchy"][1] == pytest.approx(slope / 10, rel=0.02)


def test_a_prior_that_excludes_the_truth_piles_up_at_its_edge():
    y = simulate(200, truth=3.0, seed=1)
    fine = torch.linspace(0.9, 1.0, 20_001, dtype=torch.float64)
    density = posterior_density(fine, y, 1.0, "uniform", 0.0, 1.0)
    weights = density / density.sum()
    mean = float(weights @ fine)
    # exponential towards the edge, of the width of the likelihood's slope there
    width = 1 / (200 * (y.mean().item() - 1))
    assert 1 - mean == pytest.approx(width, rel=0.01)
    log_evidence = {
        prior: float(
            torch.logsumexp(
                scipy_log_prior(prior)
                + torch.distributions.Normal(0.0, 1.0).log_prob(y[:, None] - GRID).sum(0),
                0,
            )
        )
        for prior in ("uniform", "normal")
    }
    fall = 200 * (y.mean().item() - 1) ** 2 / 2
    assert log_evidence["normal"] - log_evidence["uniform"] == pytest.approx(fall, rel=0.05)


def scipy_log_prior(prior):
    frozen = scipy.stats.uniform(-1, 2) if prior == "uniform" else scipy.stats.norm(0, 1)
    with np.errstate(divide="ignore"):
        return torch.from_numpy(frozen.logpdf(GRID.numpy()))


def test_fat_tailed_noise_lets_an_outlier_go():
    y = torch.cat([simulate(20, truth=1.0, noise=0.3, seed=2), torch.tensor([40.0])])
    fat = cavi(Problem(consistency.model, y, 0.3, "cauchy", 0.0, 1.0, 3.0))
    thin = cavi(Problem(consistency.model, y, 0.3, "normal", 0.0, 1.0))
    mean, sd = moments(posterior_density(GRID, y, 0.3, "cauchy", 0.0, 1.0, 3.0))
    assert abs(fat.mean()["value"].item() - 1.0) < 0.3 < abs(thin.mean()["value"].item() - 1.0)
    assert fat.mean()["value"].item() == pytest.approx(mean, abs=0.1 * sd)
    assert fat.sd()["value"].item() == pytest.approx(sd, rel=0.05)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prior": "flat"}, "prior: expected one of normal"),
        ({"noise": 0.0}, "noise: expected a positive"),
        ({"spread": -1.0}, "spread: expected a positive"),
        ({"freedom": 0.0}, "freedom: expected a positive"),
    ],
)
def test_wrong_values_are_refused(given, message):
    with pytest.raises(OptionError, match=message):
        consistency.model(torch.zeros(3), **given)


def test_an_error_of_nothing_is_refused():
    with pytest.raises(OptionError, match="error: expected a positive"):
        measurements_until(0.0, 1.0, 0.0, 1.0, 0.0)
