"""cavi() under Ctrl-C: one press ends all restarts, and the bound kept is that of the factors kept."""

import pytest
import torch

from vitools import Problem, Status, cavi
from vitools.conjugacy import ConjugateModel
from vitools.models import two_dice


@pytest.fixture
def problem():
    rolls = two_dice.simulate(30, 4, sides1=2, sides2=2, faces=3, seed=1).rolls
    return Problem(two_dice.model, rolls, 2, 2, 3)


@pytest.fixture
def press_ctrl_c(monkeypatch):
    """Interrupt the sweep of a given number, after it has changed the factors."""

    def install(at):
        sweep, count = ConjugateModel.sweep, [0]

        def interrupted(self, *args):
            sweep(self, *args)
            count[0] += 1
            if count[0] == at:
                raise KeyboardInterrupt

        monkeypatch.setattr(ConjugateModel, "sweep", interrupted)
        return count

    return install


def test_the_state_kept_is_that_of_the_last_recorded_sweep(problem, press_ctrl_c):
    whole = cavi(problem, max_sweeps=3, accelerate=False)
    press_ctrl_c(at=4)
    fit = cavi(problem, accelerate=False)
    assert fit.status is Status.INTERRUPTED
    assert fit.history.elbo == whole.history.elbo
    assert fit.bound == whole.bound
    for name in ("pi1", "pi2", "rho"):
        torch.testing.assert_close(fit.mean()[name], whole.mean()[name], rtol=0, atol=0)


@pytest.mark.parametrize("at", range(2, 9))
def test_an_extrapolated_point_is_not_kept_half_way(problem, press_ctrl_c, at):
    press_ctrl_c(at=at)
    fit = cavi(problem, max_sweeps=50)
    assert fit.bound == fit.history.elbo[-1]
    assert len(fit.history) < at


def test_one_press_ends_all_restarts(problem, press_ctrl_c):
    count = press_ctrl_c(at=3)
    fit = cavi(problem, restarts=5, accelerate=False)
    assert count == [3]
    assert fit.status is Status.INTERRUPTED
    assert "best of 1 starts" in fit.detail


def test_an_earlier_restart_is_kept_and_called_interrupted(problem, press_ctrl_c):
    first = cavi(problem, max_sweeps=5, accelerate=False)
    press_ctrl_c(at=6)
    fit = cavi(problem, restarts=3, max_sweeps=5, accelerate=False)
    assert fit.bound == first.bound
    assert fit.status is Status.INTERRUPTED


def test_before_the_first_sweep_there_is_nothing_to_keep(problem, press_ctrl_c):
    press_ctrl_c(at=1)
    with pytest.raises(KeyboardInterrupt):
        cavi(problem)
