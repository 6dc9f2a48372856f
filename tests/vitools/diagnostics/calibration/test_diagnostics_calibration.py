"""Calibration of fits that are exact, too narrow, and biased by construction."""

import itertools
import json
import math

import joblib
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td

from vitools import Problem, cavi, compare, exact
from vitools.diagnostics.calibration.calibration import Calibration, calibrate, symmetry_p_value
from vitools.diagnostics.calibration.simulation import with_data
from vitools.errors import FileError, NumericalError, OptionError
from vitools.models import bayesian_regression
from vitools.posterior import FactorisedPosterior, Status
from vitools.reporting.plots.calibration import plot_calibration

X = torch.tensor([-1.0, -0.3, 0.2, 0.7, 1.4], dtype=torch.float64)


def regression(x, y):
    slope = pyro.sample("slope", dist.Normal(torch.tensor(0.0), 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)


PROBLEM = Problem(regression, X, torch.zeros(5, dtype=torch.float64))


def fitted(problem, shift=0.0, factor=1.0):
    y = problem.observed["y"].value
    precision = float(X @ X) + 1
    q = td.Normal((X @ y) / precision + shift * precision**-0.5, factor * precision**-0.5)
    return FactorisedPosterior(problem, {"slope": q}, 0.0, engine="test", status=Status.CONVERGED)


def test_other_data_give_the_density_of_a_problem_built_with_them():
    y = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0], dtype=torch.float64)
    swapped, built = with_data(PROBLEM, {"y": y}), Problem(regression, X, y)
    at = {"slope": torch.linspace(-2, 2, 5).double()}
    torch.testing.assert_close(swapped.log_joint(at), built.log_joint(at))
    assert torch.equal(swapped.observed["y"].value, y)
    assert swapped.name == PROBLEM.name
    with pytest.raises(OptionError, match="expected data for 'y'"):
        with_data(PROBLEM, {})


def two_groups(y):
    """Each value is from one of two groups, ±2."""
    share = pyro.sample("share", dist.Beta(y.new_tensor(2.0), 2.0))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Bernoulli(share))
        pyro.sample("y", dist.Normal(4 * z - 2, 1.0), obs=y)


def test_discrete_latents_are_said_not_to_be_judged():
    problem = Problem(two_groups, torch.tensor([-2.0, 2.0, 1.5]).double())
    found = calibrate(problem, cavi, num_data_sets=2, num_samples=20)
    assert list(found.levels) == ["share"]
    assert found.not_judged == ("z",)
    assert "continuous sites only: z not judged" in str(found)
    fits = {"CAVI": cavi(problem), "exact": exact(problem)}
    assert "continuous sites (z not judged)" in " ".join(str(compare(fits)).split())


@pytest.mark.parametrize("steps", [1, 5, 12])
def test_the_symmetry_test_is_exact(steps):
    """All ways of mirroring some of the levels are equally likely: enumerate them."""
    sizes = np.linspace(0.05, 0.45, steps)
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=steps)))

    def largest_difference(levels):
        at = np.concatenate([levels, 1 - levels])
        ours = (levels[:, None] <= at + 1e-9).mean(0)
        return np.abs(ours - (1 - levels[:, None] <= at + 1e-9).mean(0)).max()

    drawn = [0.5 + sizes * row for row in signs]
    differences = np.array([largest_difference(levels) for levels in drawn])
    for levels, difference in list(zip(drawn, differences, strict=True))[:: 2 ** max(0, steps - 6)]:
        expected = (differences >= difference - 1e-9).mean()
        assert symmetry_p_value(levels) == pytest.approx(expected, abs=1e-12)


def test_symmetric_levels_are_called_biased_no_more_often_than_promised():
    generator = np.random.default_rng(0)
    found = np.array([symmetry_p_value(generator.uniform(size=100)) for _ in range(1000)])
    for level in (0.05, 0.2):
        assert abs((found <= level).mean() - level) < 4 * (level * (1 - level) / 1000) ** 0.5
    assert symmetry_p_value(generator.beta(3, 2, size=100)) < 0.01
    assert symmetry_p_value(np.full(7, 0.5)) == 1.0


def test_ranks_that_are_uniform_are_called_so_whatever_the_bins():
    """201 ranks do not fit 20 bins evenly; 50 000 exact ones must not be blamed for that."""
    ranks = np.tile(np.arange(201), 250) / 200
    assert Calibration({"mu": ranks}, {}, {}, {}, 200).uniformity()["mu"] == pytest.approx(1.0)


def test_exact_fits_pass():
    found = calibrate(PROBLEM, fitted, num_data_sets=200, num_samples=100)
    assert found.uniformity()["slope"] > 0.01
    assert found.symmetry()["slope"] > 0.01
    for level, share in found.coverage.items():
        assert abs(share.value - level) < 4 * share.standard_error < 0.1
    assert found.statuses == {"converged": 200}
    counts, edges = found.histogram("slope")
    assert counts.sum() == 200
    assert len(edges) == 21


def test_narrow_fits_fail_uniformity_but_not_symmetry():
    found = calibrate(PROBLEM, lambda p: fitted(p, factor=0.4), num_data_sets=100, num_samples=100)
    assert found.uniformity()["slope"] < 1e-4
    assert found.symmetry()["slope"] > 0.01
    # p = Φ(z / .4), z standard normal: Pr(p < .05) = Φ(.4 · Φ⁻¹(.05))
    normal = td.Normal(0.0, 1.0)
    truth = 2 * float(normal.cdf(torch.tensor(0.4 * -1.6449)))
    levels = found.levels["slope"]
    share = np.mean((levels < 0.05) | (levels > 0.95))
    assert abs(share - truth) < 4 * math.sqrt(truth * (1 - truth) / 100)


def test_biased_fits_fail_both():
    found = calibrate(PROBLEM, lambda p: fitted(p, shift=1.0), num_data_sets=100, num_samples=100)
    assert found.uniformity()["slope"] < 1e-4
    assert found.symmetry()["slope"] < 1e-4
    assert "location biased: 1 of 1: slope" in str(found)


def test_jobs_and_resumption_change_no_number(tmp_path):
    path = tmp_path / "runs.jsonl"
    whole = calibrate(PROBLEM, fitted, num_data_sets=8, num_samples=20, seed=3)
    calibrate(PROBLEM, fitted, num_data_sets=3, num_samples=20, seed=3, path=path)
    with path.open("a") as file:
        file.write('{"index": 3, "lev')  # interrupted in the middle of a line
    calls = []

    def counted(problem):
        calls.append(1)
        return fitted(problem)

    resumed = calibrate(PROBLEM, counted, num_data_sets=8, num_samples=20, seed=3, path=path)
    assert len(calls) == 5
    with joblib.parallel_config(backend="threading"):
        shared = calibrate(PROBLEM, fitted, num_data_sets=8, num_samples=20, seed=3, jobs=2)
    for other in (resumed, shared):
        np.testing.assert_array_equal(other.levels["slope"], whole.levels["slope"])
        assert other.coverage == whole.coverage
    assert [json.loads(line)["index"] for line in path.read_text().splitlines()[1:]] == list(
        range(8)
    )
    with pytest.raises(FileError, match=r"holds a calibration with seed 3 \(now 4\)"):
        calibrate(PROBLEM, fitted, num_data_sets=8, num_samples=20, seed=4, path=path)


def test_failed_fits_are_counted_and_told():
    def fails(problem):
        if float(problem.observed["y"].value.sum()) > 0:
            raise NumericalError("the bound left the numbers")
        return fitted(problem)

    found = calibrate(PROBLEM, fails, num_data_sets=20, num_samples=20)
    assert 0 < len(found.failures) < 20
    assert len(found.levels["slope"]) == 20 - len(found.failures)
    assert "the bound left the numbers" in str(found)
    with pytest.raises(OptionError, match="num_data_sets ≥ 2"):
        calibrate(PROBLEM, fitted, num_data_sets=1)


def test_rank_histograms_are_drawn(tmp_path):
    found = calibrate(PROBLEM, fitted, num_data_sets=40, num_samples=20)
    figure = plot_calibration(found)
    (axes,) = figure.axes
    assert axes.get_title(loc="left").startswith("slope")
    assert sum(patch.get_height() for patch in axes.patches[:8]) == 40
    figure.savefig(tmp_path / "ranks.png")


@pytest.mark.slow
def test_coordinate_ascent_takes_conditioned_data():
    data = bayesian_regression.simulate(30, 2, seed=1)
    problem = Problem(bayesian_regression.model, data.features, data.target)
    found = calibrate(problem, lambda p: cavi(p), num_data_sets=60, jobs=2)
    assert not found.failures
    # two slopes, intercept and precision: unbiased, and little shrunk with thirty rows
    assert len(found.levels) == 4
    assert min(found.symmetry().values()) > 0.001
    assert min(found.uniformity().values()) > 0.001
