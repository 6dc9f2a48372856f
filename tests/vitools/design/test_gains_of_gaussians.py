"""Closed forms: fields and linear models, whose designs results do not change, and networks, whose they do."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from models_of_experiments import T

from vitools import Problem, laplace
from vitools.design import expected_information_gain, gaussian_gains, measured, run_design
from vitools.errors import DataError, OptionError
from vitools.information import mutual_information_of_normal

POINTS = torch.linspace(0, 1, 6, dtype=torch.float64)
FIELD = torch.exp(-0.5 * ((POINTS[:, None] - POINTS) / 0.3) ** 2) + 1e-6 * torch.eye(
    6, dtype=torch.float64
)


def test_of_a_field_it_is_mutual_information_of_field_and_outcome():
    found = gaussian_gains(FIELD, torch.eye(6), 0.4)
    for i in range(6):
        cross = torch.cat([FIELD, FIELD[i : i + 1]], 0)
        column = torch.cat([FIELD[:, i], FIELD[i, i : i + 1] + 0.16]).unsqueeze(1)
        joint = torch.cat([cross, column], 1)
        exact = mutual_information_of_normal(joint, tuple(range(6)), 6)
        assert float(found[i]) == pytest.approx(exact.value, abs=1e-7)


def test_a_measurement_changes_the_field_as_conditioning_does():
    slope = torch.eye(6)[2]
    exact = torch.linalg.inv(torch.linalg.inv(FIELD) + torch.outer(slope, slope) / 0.16)
    assert torch.allclose(measured(FIELD, slope, 0.4), exact, atol=1e-6)


def field(points, y=None):
    """The field at six points, seen at some of them."""
    phi = pyro.sample("phi", dist.MultivariateNormal(torch.zeros(6), FIELD))
    with pyro.plate("measurements", len(points)):
        pyro.sample("y", dist.Normal(phi[points], T(0.4)), obs=y)


def test_of_a_field_the_designs_do_not_depend_on_results():
    everywhere = torch.arange(6)
    seen = torch.tensor([1, 4])
    after = measured(measured(FIELD, torch.eye(6)[1], 0.4), torch.eye(6)[4], 0.4)
    closed = gaussian_gains(after, torch.eye(6), 0.4)
    for y in (T([0.0, 0.0]), T([3.0, -2.0])):
        fit = laplace(Problem(field, seen, y=y))
        found = expected_information_gain(fit, everywhere, method="laplace")
        assert torch.allclose(found.values, closed, atol=1e-6)
        assert all(gain.is_exact or gain.standard_error < 1e-6 for gain in found)


def network(x, y=None):
    """One hidden unit: f = a tanh(b x)."""
    w = pyro.sample("w", dist.Normal(T([1.0, 1.0]), T([1.0, 1.0])).to_event(1))
    with pyro.plate("measurements", len(x)):
        pyro.sample("y", dist.Normal(w[0] * torch.tanh(w[1] * x), T(0.2)), obs=y)


@pytest.mark.slow
def test_of_a_network_they_do_and_are_mackays():
    inputs = torch.linspace(-3, 3, 13, dtype=torch.float64)
    data = T([0.5, 1.0, 2.0])
    chosen = []
    for y in (T([0.2, 0.4, 0.7]), T([2.0, 2.1, 2.0])):  # a weak slope; a steep, saturated one
        fit = laplace(Problem(network, data, y=y))
        a, b = fit.location
        slopes = torch.stack([torch.tanh(b * inputs), a * inputs / torch.cosh(b * inputs) ** 2], 1)
        covariance = fit.scale_tril @ fit.scale_tril.mT
        mackay = gaussian_gains(covariance, slopes, 0.2)
        found = expected_information_gain(fit, inputs, method="laplace")
        assert torch.allclose(found.values, mackay, atol=1e-8)
        unknown = found.standard_errors[slopes.abs().sum(1) > 0]  # at 0 nothing is told for certain
        assert set(unknown.tolist()) == {math.inf}
        chosen.append(float(found.design.abs()))
    assert chosen[0] > 2 * chosen[1]  # far out where the slope is weak, near 0 where it is steep


@pytest.mark.slow
def test_a_run_of_a_network_goes_where_its_results_send_it():
    """Two laboratories, one design each after the same first: MacKay's rule, step by step by hand."""
    inputs = torch.linspace(0.25, 3, 12, dtype=torch.float64)
    chosen = []
    for slope in (0.3, 4.0):  # a weak one, and one that saturates

        def laboratory(x, slope=slope):
            return 1.5 * torch.tanh(slope * x)

        run = run_design(network, laboratory, inputs, 4, method="laplace")
        for count in (1, 2, 3):
            seen = run.designs[:count]
            fit = laplace(Problem(network, seen, y=laboratory(seen)))
            a, b = fit.location
            slopes = torch.stack(
                [torch.tanh(b * inputs), a * inputs / torch.cosh(b * inputs) ** 2], 1
            )
            gains = gaussian_gains(fit.scale_tril @ fit.scale_tril.mT, slopes, 0.2)
            assert float(run.designs[count]) == float(inputs[gains.argmax()])
            assert run.gains[count].value == pytest.approx(float(gains.max()), abs=1e-6)
        chosen.append(run.designs.tolist())
    assert chosen[0][0] == chosen[1][0]  # nothing was seen yet
    assert chosen[0][1:] != chosen[1][1:]
    assert min(chosen[1][1:]) < min(chosen[0][1:])  # where a steep one still has a slope


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: gaussian_gains(torch.ones(2), torch.eye(2), 1.0), OptionError, "covariance: expected a square"),
        (lambda: gaussian_gains(torch.eye(2), torch.eye(3), 1.0), OptionError, r"slopes: expected .* \[C, 2\], got \[3, 3\]"),
        (lambda: gaussian_gains(torch.eye(2), torch.eye(2), 0.0), OptionError, "noise: expected a standard deviation above 0"),
        (lambda: gaussian_gains(torch.eye(2), torch.eye(2), math.nan), OptionError, "noise: expected a standard deviation above 0"),
        (lambda: gaussian_gains(torch.eye(2), torch.eye(2), "a"), OptionError, "noise: expected a standard deviation above 0, got 'a'"),
        (lambda: gaussian_gains(torch.eye(2), torch.eye(2), torch.ones(3)), OptionError, r"noise: expected a number or one for each of 2 candidates, got shape \[3\]"),
        (lambda: gaussian_gains(torch.eye(2), torch.eye(2).float(), 1.0), OptionError, "covariance, slopes: expected one floating type"),
        (lambda: measured(torch.ones(2), torch.ones(2), 1.0), OptionError, "covariance: expected a square"),
        (lambda: measured(torch.eye(2), torch.ones(3), 1.0), OptionError, r"slope: expected a tensor of shape \[2\] .* \[3\]"),
        (lambda: measured(torch.eye(2), torch.ones(2), -1.0), OptionError, "noise: expected a standard deviation above 0, got -1.0"),
        (lambda: measured(torch.eye(2), torch.ones(2), torch.ones(2)), OptionError, r"noise: expected one number, got shape \[2\]"),
        (lambda: gaussian_gains(-torch.eye(2), torch.eye(2), 1.0), DataError, "expected a positive definite"),
    ],
)  # fmt: skip
def test_what_is_refused(call, kind, words):
    with pytest.raises(kind, match=words):
        call()
