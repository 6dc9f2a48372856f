"""Ctrl-C at any line of an engine: a run goes on to the same numbers, and nothing else is changed."""

import itertools
import random

import pyro
import pyro.distributions as dist
import pytest
import torch

from interrupting import Lines, pressed
from vitools import Problem, Status, svi
from vitools.guides import AutoMeanField

A_FEW = 6


def model(y):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mean.sum(), 1.0), obs=y)


@pytest.fixture
def problem():
    return Problem(model, torch.linspace(-1.0, 2.0, 5).double())


@pytest.fixture
def short_stages(monkeypatch):
    """Two stages of 40 steps, and a report and a checkpoint after each block of four."""
    monkeypatch.setattr("vitools.engines.stopping.FIRST_CHECK", 40)
    monkeypatch.setattr("vitools.engines.stopping.LAST_STAGE", 40)
    monkeypatch.setattr("vitools.engines.stopping.HORIZON", 40)
    monkeypatch.setattr("vitools.engines.stopping.RHAT_LIMIT", 1e9)
    monkeypatch.setattr("vitools.engines.checkpoint.SECONDS", 0.0)
    monkeypatch.setattr("vitools.engines.checkpoint.SHARE", 1e9)
    monkeypatch.setattr("time.perf_counter", itertools.count().__next__)


def numbers_of(fit):
    params = {name: value.tolist() for name, value in fit.params["params"].items()}
    return fit.status, fit.detail, fit.history.steps, fit.history.elbo, params


OPTIMIZERS = {"default": None, "in place": lambda p: torch.optim.Adam(p, lr=1e-5)}


def assert_it_goes_on_to_the_same_numbers(problem, folder, optimizer, choose):
    """With Ctrl-C at the lines chosen of those of a stage's last block and of the whole run's."""
    options = {"learning_rate": 1e-5} if optimizer is None else {"optimizer": optimizer}
    options |= {"compile": False, "max_steps": 500, "start": "guide", "progress": lambda report: None}
    path = folder / "run"

    def run(lines, **more):
        def callback(done, bound):
            if done in (36, 40, 76):
                lines.watch(is_on=done != 40)

        return svi(problem, AutoMeanField, callback=callback, checkpoint=path, **options, **more)

    lines = Lines()
    whole = numbers_of(pressed(lambda: run(lines)))
    assert (whole[0], len(whole[2])) == (Status.CONVERGED, 80)
    assert lines.count > 300
    for number in choose(range(1, lines.count + 1)):
        path.unlink()
        press = Lines(number)
        fit = pressed(lambda press=press: run(press))
        assert press.where != "nowhere"
        if fit is not None:
            assert fit.status is Status.INTERRUPTED, press.where
            assert len(fit.history) in (36, 40, 76, 80), press.where
            assert fit.history.elbo == whole[3][: len(fit.history)], press.where
        assert {file.name for file in folder.iterdir()} == {"run"}, press.where
        resumed = pressed(lambda: run(Lines(), resume=True))
        assert numbers_of(resumed) == whole, press.where


@pytest.mark.usefixtures("short_stages")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_at_some_lines_of_a_step_the_run_goes_on_to_the_same_numbers(problem, tmp_path, optimizer):
    def some(numbers):
        return random.Random(optimizer).sample(numbers, A_FEW)

    assert_it_goes_on_to_the_same_numbers(problem, tmp_path, OPTIMIZERS[optimizer], some)


@pytest.mark.slow
@pytest.mark.usefixtures("short_stages")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_at_any_line_of_a_step_the_run_goes_on_to_the_same_numbers(problem, tmp_path, optimizer):
    assert_it_goes_on_to_the_same_numbers(problem, tmp_path, OPTIMIZERS[optimizer], list)
