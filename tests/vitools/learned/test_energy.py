"""Flows fitted to densities known up to Z: log Z, free energies, how even the weights are."""

import math

import pytest
import torch
from torch import Tensor

from vitools import fit_density
from vitools.errors import NumericalError, OptionError


def two_wells(x: Tensor) -> Tensor:
    u, v = x[..., 0], x[..., 1]
    return (u**2 - 4) ** 2 / 4 + (v - u / 2) ** 2 + 0.4 * u


def test_log_normaliser_of_two_wells_agrees_with_quadrature() -> None:
    temperature = 1.5
    grid = torch.linspace(-8, 8, 801)
    points = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1)
    scores = -two_wells(points) / temperature
    truth = (scores.flatten().logsumexp(0) + 2 * (grid[1] - grid[0]).log()).item()
    fit = fit_density(
        energy=two_wells, dim=2, temperature=temperature, scale=2.0, layers=2, width=32, max_steps=300
    )  # fmt: skip
    log_z, free_energy, above = (
        fit.log_normaliser(),
        fit.free_energy(),
        fit.variational_free_energy(),
    )
    assert log_z.standard_error < 0.01
    assert abs(log_z.value - truth) < 4 * log_z.standard_error
    assert abs(free_energy.value + temperature * truth) < 4 * free_energy.standard_error
    assert free_energy.standard_error == pytest.approx(temperature * log_z.standard_error)
    assert above.side == "upper"
    assert above.value > -temperature * truth - 4 * above.standard_error
    assert above.value < -temperature * truth + 0.1
    assert fit.effective_sample_size().value > 8000
    assert fit.khat() < 0.7
    assert f"log Z {log_z}" in str(fit)
    left = (points[..., 0] < 0).flatten()
    share = torch.exp(scores.flatten().logsumexp(0).neg() + scores.flatten()[left].logsumexp(0))
    found = (fit.sample(10_000)[:, 0] < 0).double().mean()
    assert found.item() == pytest.approx(share.item(), abs=0.05)  # both wells, in proportion


@pytest.mark.parametrize("kind", ["realnvp", "normal"])
def test_a_gaussian_is_known_from_the_start(kind) -> None:
    precision = torch.tensor([4.0, 1.0, 0.25])
    told = []
    fit = fit_density(
        energy=lambda x: (precision * x.square()).sum(-1) / 2,
        dim=3,
        kind=kind,
        scale=1 / precision.sqrt(),
        max_steps=1,
        learning_rate=1e-12,
        progress=told.append,
    )
    truth = (1.5 * math.log(2 * math.pi) - 0.5 * precision.log().sum()).item()
    assert fit.log_normaliser(100).value == pytest.approx(truth, abs=1e-6)
    assert fit.free_energy(100).value == pytest.approx(-truth, abs=1e-6)
    assert fit.effective_sample_size(100).value == pytest.approx(100, abs=1e-6)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.MultivariateNormal(torch.zeros(3), torch.diag(1 / precision))
    torch.testing.assert_close(fit.log_prob(x), normal.log_prob(x))
    assert torch.equal(fit.sample(5, seed=3), fit.sample(5, seed=3))
    assert [report.engine for report in told] == ["density"]


def test_errors_are_those_of_many_repetitions() -> None:
    """A normal twice as wide as it should be: ESS / n → (E w)² / E w² = √7/4, log Z known."""
    fit = fit_density(
        energy=lambda x: 2 * x.square().sum(-1), dim=1, kind="normal", max_steps=1, learning_rate=1e-12
    )  # fmt: skip
    n, runs = 2000, 200
    sizes = [fit.effective_sample_size(n, seed) for seed in range(runs)]
    log_z = [fit.log_normaliser(n, seed) for seed in range(runs)]
    for found, truth in ((sizes, n * math.sqrt(7) / 4), (log_z, 0.5 * math.log(math.pi / 2))):
        values = torch.tensor([one.value for one in found])
        claimed = torch.tensor([one.standard_error for one in found]).mean()
        assert abs(values.mean() - truth) < 4 * values.std() / math.sqrt(runs) + 2 * truth / n
        assert claimed.item() == pytest.approx(values.std().item(), rel=4 / math.sqrt(2 * runs))


ENERGY = {"energy": two_wells, "dim": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected samples or energy=, got neither"),
        ({**ENERGY, "samples": torch.zeros(100)}, "expected samples or energy=, got both"),
        ({**ENERGY, "context": torch.zeros(100)}, "context: belongs to samples"),
        ({**ENERGY, "validation": 0.1}, "validation: belongs to samples"),
        ({**ENERGY, "support": torch.distributions.constraints.real}, "support: belongs to samples"),
        ({"energy": two_wells}, "dim: expected the number of dimensions"),
        ({**ENERGY, "dim": 0}, "dim: expected a whole number of at least 1"),
        ({**ENERGY, "energy": 3.0}, "energy: expected a function"),
        ({**ENERGY, "temperature": 0.0}, "temperature: expected a number above 0, got 0.0"),
        ({**ENERGY, "temperature": math.inf}, "temperature: expected a number above 0"),
        ({**ENERGY, "loc": torch.zeros(3)}, r"loc: expected a tensor of shape \[2\]"),
        ({**ENERGY, "scale": -1.0}, "scale: expected a positive number"),
        ({**ENERGY, "scale": torch.ones(3)}, "scale: expected a positive number, or 2"),
        ({**ENERGY, "batch": 1}, "batch: expected a whole number of at least 2"),
        ({**ENERGY, "energy": lambda x: x}, r"energy: expected a tensor of shape \(256,\)"),
    ],
)  # fmt: skip
def test_what_is_refused(options, message) -> None:
    with pytest.raises(OptionError, match=message):
        fit_density(**options)


def test_an_energy_that_leaves_the_numbers_is_named() -> None:
    with pytest.raises(NumericalError, match="step 0"):
        fit_density(energy=lambda x: x.sum(-1).sqrt(), dim=2)
