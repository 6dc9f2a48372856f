"""Wave packets: quantum mechanics' own identities, and data drawn from the model that is stated."""

import math

import pytest
import scipy.stats
import torch
from pyro import poutine

from vitools import Problem
from vitools.errors import DataError, OptionError
from vitools.isolation import seeded
from vitools.models import wave_packets
from vitools.models.wave_packets import model, simulate, wave_function


@pytest.mark.parametrize(("position", "momentum", "width"), [(0.5, 2.0, 0.7), (-1.0, 0.0, 1.3)])
def test_expectations_are_those_of_a_gaussian_packet(position, momentum, width):
    grid = torch.linspace(-15, 15, 6001, dtype=torch.float64)
    step = (grid[1] - grid[0]).item()
    psi = wave_function(grid, *torch.tensor([position, momentum, width], dtype=torch.float64))

    def integral(values):
        return torch.trapezoid(values, dx=step).item()

    density = psi.abs().square()
    derivative = torch.gradient(psi, spacing=step)[0]
    mean = integral(grid * density)
    mean_momentum = integral((psi.conj() * derivative).imag)
    mean_square = integral(derivative.abs().square())  # ⟨p²⟩ = ∫ |ψ'|² dx
    assert integral(density) == pytest.approx(1, abs=1e-12)
    assert mean == pytest.approx(position, abs=1e-10)
    spread = math.sqrt(integral((grid - mean) ** 2 * density))
    assert spread == pytest.approx(width, abs=1e-10)
    assert mean_momentum == pytest.approx(momentum, abs=1e-3)
    momentum_spread = math.sqrt(mean_square - mean_momentum**2)
    assert spread * momentum_spread == pytest.approx(0.5, abs=1e-3)  # the least Heisenberg allows


def test_what_the_docstring_says_each_observable_knows():
    grid = torch.linspace(-6, 6, 64, dtype=torch.float64)
    position, width = torch.tensor(0.3).double(), torch.tensor(0.8).double()
    psi, mirrored, faster = (
        wave_function(grid, position, torch.tensor(p).double(), width) for p in (2.0, -2.0, 3.0)
    )
    density, real, complex_ = wave_packets.OBSERVABLES.values()
    torch.testing.assert_close(density(psi), density(faster), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(real(psi), real(mirrored), rtol=1e-12, atol=1e-15)
    assert (real(psi) - real(faster)).abs().max() > 0.1
    assert (complex_(psi) - complex_(mirrored)).abs().max() > 0.1


@pytest.mark.parametrize("observable", ["density", "real", "complex"])
def test_log_joint_is_that_of_scipy(observable):
    packets = simulate(3, num_points=9, seed=4, observable=observable)
    observed, grid, truth = (part.double() for part in packets[:3])
    values = dict(zip(wave_packets.TRUTH, truth.mT, strict=True))
    trace = poutine.trace(poutine.condition(model, values)).get_trace(
        observed, grid, observable=observable
    )
    expected = 0.0
    for row, (position, momentum, width) in zip(observed, truth.tolist(), strict=True):
        expected += scipy.stats.norm(0, 1.5).logpdf(position)
        expected += scipy.stats.lognorm(0.4, scale=2.5).logpdf(momentum)
        expected += scipy.stats.lognorm(0.3, scale=0.8).logpdf(width)
        x = grid.numpy()
        density = scipy.stats.norm(position, width).pdf(x)
        angle = torch.from_numpy(momentum * (x - position))
        amplitude = torch.from_numpy(density) ** 0.5
        mean = {
            "density": torch.from_numpy(density),
            "real": amplitude * angle.cos(),
            "complex": torch.cat([amplitude * angle.cos(), amplitude * angle.sin()]),
        }[observable]
        expected += scipy.stats.norm(mean, 0.05).logpdf(row).sum()
    assert trace.log_prob_sum().item() == pytest.approx(expected, rel=1e-6)


def test_simulated_packets_are_draws_from_the_model():
    packets = simulate(4000, seed=1)
    with seeded(2):
        trace = poutine.trace(poutine.uncondition(model)).get_trace(packets.observed, packets.grid)
    for i, name in enumerate(wave_packets.TRUTH):
        drawn = trace.nodes[name]["value"]
        assert scipy.stats.ks_2samp(packets.truth[:, i], drawn).pvalue > 1e-3, name
    residual = packets.observed - wave_function(packets.grid, *packets.truth.mT).real
    assert scipy.stats.kstest(residual.flatten() / 0.05, "norm").pvalue > 1e-3


def test_equal_seeds_give_equal_packets_and_leave_the_generator_alone():
    state = torch.get_rng_state()
    first, second, other = simulate(5, seed=1), simulate(5, seed=1), simulate(5, seed=2)
    assert torch.equal(first.observed, second.observed)
    assert not torch.equal(first.observed, other.observed)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_example_is_a_problem_with_three_latents_a_packet():
    example = wave_packets.example(0)
    problem = Problem(example.model, *example.args, **example.kwargs)
    assert {name: tuple(site.shape) for name, site in problem.latents.items()} == dict.fromkeys(
        wave_packets.TRUTH, (20,)
    )


def test_bad_input_is_refused():
    packets = simulate(2, num_points=8)
    with pytest.raises(OptionError, match=r"observable: expected one of .*'density'.* got 'imag'"):
        simulate(2, observable="imag")
    with pytest.raises(OptionError, match="num_packets ≥ 1"):
        simulate(0)
    with pytest.raises(DataError, match=r"observed: expected complex values at 8 .*\[2, 8\]"):
        model(packets.observed, packets.grid, observable="complex")
