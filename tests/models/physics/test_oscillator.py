"""A damped oscillator: its equation of motion by SciPy, its posterior by a finer grid."""

import numpy as np
import pytest
import scipy.integrate
import torch

from vitools import Problem, Status, nuts
from vitools.errors import DataError, OptionError
from vitools.models.physics import oscillator
from vitools.models.physics.oscillator import displacement, posterior_on_grid


@pytest.mark.parametrize(("omega", "gamma"), [(2.0, 0.3), (1.0, 2.0), (0.7, 3.1), (3.0, 0.0)])
def test_it_solves_its_equation(omega, gamma):
    times = np.linspace(0, 8, 33)
    solved = scipy.integrate.solve_ivp(
        lambda t, q: (q[1], -(omega**2) * q[0] - gamma * q[1]),
        (0, 8),
        (1.0, 0.0),
        t_eval=times,
        rtol=1e-11,
        atol=1e-12,
    )
    found = displacement(torch.from_numpy(times), torch.tensor(omega), torch.tensor(gamma))
    np.testing.assert_allclose(found, solved.y[0], atol=1e-8)


@pytest.mark.parametrize("omega", [1.5, 1.0, 0.5])
def test_gradients_are_finite_and_right_at_any_damping(omega):
    at = torch.tensor([omega, 2.0], requires_grad=True)
    q = displacement(torch.tensor(1.3), at[0], at[1])
    (gradient,) = torch.autograd.grad(q, at)
    assert bool(gradient.isfinite().all())
    if omega != 1.0:
        step = 1e-6
        for i in range(2):
            up, down = at.detach().clone(), at.detach().clone()
            up[i] += step
            down[i] -= step
            slope = displacement(torch.tensor(1.3), *up) - displacement(torch.tensor(1.3), *down)
            assert gradient[i].item() == pytest.approx(slope.item() / (2 * step), abs=1e-7)


def modes(grid):
    """Places of ω's density where it is largest nearby, of at least a hundredth of the highest."""
    density = grid.density.sum(1)
    higher = (density[1:-1] > density[:-2]) & (density[1:-1] > density[2:])
    return grid.omega[1:-1][higher & (density[1:-1] > 0.01 * density.max())].tolist()


def test_looks_at_equal_intervals_leave_several_frequencies():
    looks = oscillator.simulate(seed=0)
    found = modes(posterior_on_grid(looks.time, looks.y))
    # seen every 1.6, all of |w + 2πk/1.6| look alike
    near = [abs(looks.omega + 2 * np.pi * k / 1.6) for k in range(-2, 2)]
    assert len(found) >= 2
    for value in found:
        assert min(abs(value - other) for other in near) < 0.15
    uneven = oscillator.simulate(torch.tensor([0.7, 1.6, 2.9, 4.1, 6.0, 7.3, 9.8, 12.8]), seed=0)
    (only,) = modes(posterior_on_grid(uneven.time, uneven.y))
    assert only == pytest.approx(looks.omega, abs=0.15)


def test_the_grid_is_fine_enough():
    looks = oscillator.simulate(seed=1)
    coarse = posterior_on_grid(looks.time, looks.y)
    fine = posterior_on_grid(looks.time, looks.y, points=(1800, 450))
    assert coarse.log_evidence == pytest.approx(fine.log_evidence, abs=1e-4)
    for name, (mean, sd) in coarse.moments().items():
        assert (mean, sd) == pytest.approx(fine.moments()[name], abs=1e-4)


@pytest.mark.slow
def test_nuts_agrees_where_there_is_one_mode():
    times = torch.tensor([0.7, 1.6, 2.9, 4.1, 6.0, 7.3, 9.8, 12.8])
    looks = oscillator.simulate(times, seed=0)
    fit = nuts(
        Problem(oscillator.model, looks.time, looks.y), num_samples=1000, start={"omega": 2.2}
    )
    assert fit.status is not Status.FAILED
    for name, (mean, sd) in posterior_on_grid(looks.time, looks.y).moments().items():
        assert fit.mean()[name].item() == pytest.approx(mean, abs=0.2 * sd)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"time": torch.tensor([-1.0, 2.0])}, DataError, "times of at least 0"),
        ({"time": torch.ones(3)}, DataError, "expected 2 times"),
        ({"noise": 0.0}, OptionError, "noise: expected a positive"),
        ({"fastest": -1.0}, OptionError, "fastest: expected a positive"),
        ({"damping": 0.0}, OptionError, "damping: expected a positive"),
    ],
)
def test_wrong_values_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        oscillator.model(**{"time": torch.ones(2), "y": torch.zeros(2)} | given)
