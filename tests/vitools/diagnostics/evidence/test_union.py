"""Multiple importance sampling against quadrature."""

import math

import pytest
import torch
from two_modes import CLUSTERS, SQUARE, normal, sides, truth

from vitools.diagnostics import measure_union
from vitools.errors import NumericalError


@pytest.mark.parametrize("problem", [CLUSTERS, SQUARE], ids=["clusters", "square"])
def test_evidence_and_missing_mass_are_those_of_quadrature(problem):
    true = truth(problem)
    (low, narrow), _ = true.sides
    # one fit of each mode, a fit of both, and one whose draws end within a mode
    fits = {
        **sides(problem, widened=1.2),
        "both": normal(problem, true.mean, 1.5 * true.sd),
        "inside": normal(problem, low, narrow / 3),
    }
    found = measure_union(fits, num_samples=4000, seed=1)
    evidence = found.least_evidence
    assert 0 < evidence.standard_error < 0.02
    assert evidence.value == pytest.approx(true.log_evidence, abs=4 * evidence.standard_error)
    assert found.is_usable
    x = torch.linspace(-12.0, 14.0, 20_001, dtype=torch.float64)
    log_posterior = problem.log_joint({"x": x}) - true.log_evidence
    for name, fit in fits.items():
        is_missed = fit.log_prob({"x": x}) < log_posterior - math.log(4000)
        expected = float(torch.trapezoid(log_posterior.exp() * is_missed, x))
        mass = found.missed[name]
        assert mass.standard_error < 0.02
        assert mass.value == pytest.approx(expected, abs=4 * mass.standard_error), name
    assert found.missed["left"].value > 0.2
    assert found.missed["inside"].value > 0.4
    assert found.missed["both"].value < 0.01


def test_errors_are_those_of_repetitions():
    fits = sides(CLUSTERS, widened=1.5)
    found = [measure_union(fits, num_samples=100, seed=seed) for seed in range(40)]
    for figures in ([f.least_evidence for f in found], [f.missed["left"] for f in found]):
        spread = float(torch.tensor([figure.value for figure in figures]).std())
        stated = float(torch.tensor([figure.standard_error for figure in figures]).mean())
        assert stated == pytest.approx(spread, rel=0.4)  # the sd of 40 values is known to 11 %


def test_a_fit_that_is_nowhere_near_is_named():
    far = normal(CLUSTERS, 1e200, 1e-3)
    with pytest.raises(NumericalError, match="every draw of fit 'far'"):
        measure_union({"near": normal(CLUSTERS, 0.0, 1.0), "far": far})
