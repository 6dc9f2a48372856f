"""Ctrl-C at any line of an engine: a run goes on to the same numbers, and nothing else is changed."""

import itertools
import random
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch
from interrupting import Lines, pressed
from pyro.poutine.subsample_messenger import SubsampleMessenger
from torch.distributions import Distribution

from vitools import Problem, Status, cavi, exact, nuts, svi
from vitools.engines import checkpoint, dadvi, hand_derived, laplace
from vitools.engines.objectives import Objective
from vitools.engines.svi import stopping
from vitools.graphs.compiled import find_compiler
from vitools.guides import AutoMeanField

A_FEW = 3


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
    monkeypatch.setattr(stopping, "FIRST_CHECK", 40)
    monkeypatch.setattr(stopping, "LAST_STAGE", 40)
    monkeypatch.setattr(stopping, "HORIZON", 40)
    monkeypatch.setattr(stopping, "RHAT_LIMIT", 1e9)
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)
    monkeypatch.setattr("time.perf_counter", itertools.count().__next__)


def numbers_of(fit):
    params = {name: value.tolist() for name, value in fit.params["params"].items()}
    detail = fit.detail.partition(";")[0]  # not how the last part of it was run
    return fit.status, detail, fit.history.steps, fit.history.elbo, params


COMPILED = pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")


def without_noise(problem, guide):
    """A descent whose program takes one step a call."""
    return Objective(lambda: sum((p - 1.0).square().sum() for p in guide.parameters()), True)


RUNS = {
    "Adam": (AutoMeanField, {"learning_rate": 1e-5}),
    "in place": (AutoMeanField, {"optimizer": lambda p: torch.optim.Adam(p, lr=1e-5)}),
    "compiled step by step": (
        AutoMeanField,
        {"learning_rate": 1e-5, "compile": True, "objective": without_noise},
    ),
}
each_run = pytest.mark.parametrize(
    "case", [pytest.param(n, marks=[COMPILED] if n.startswith("compiled") else []) for n in RUNS]
)


def assert_it_goes_on_to_the_same_numbers(problem, folder, case, choose):
    """With Ctrl-C at the lines chosen of those of a stage's last block and of the whole run's."""
    guide, own = RUNS[case]
    options = {"compile": False, "max_steps": 80, "start": "guide", **own}
    options["progress"] = lambda report: None
    path = folder / "run"

    def run(lines, **more):
        def callback(done, bound):
            if done in (36, 40, 76):
                lines.watch(is_on=done != 40)

        return svi(problem, guide, callback=callback, checkpoint=path, **options, **more)

    lines = Lines()
    whole = numbers_of(pressed(lambda: run(lines)))
    is_noisy = "objective" not in own  # else the rule sees that the bound still climbs
    assert whole[0] is (Status.CONVERGED if is_noisy else Status.STOPPED_AT_LIMIT)
    assert len(whole[2]) == 80
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
@each_run
def test_at_some_lines_of_a_step_the_run_goes_on_to_the_same_numbers(problem, tmp_path, case):
    def some(numbers):
        return random.Random(case).sample(numbers, A_FEW)

    assert_it_goes_on_to_the_same_numbers(problem, tmp_path, case, some)


@pytest.mark.slow
@pytest.mark.usefixtures("short_stages")
@each_run
def test_at_any_line_of_a_step_the_run_goes_on_to_the_same_numbers(problem, tmp_path, case):
    assert_it_goes_on_to_the_same_numbers(problem, tmp_path, case, list)


# ---- engines that keep no file: nothing but their result is changed --------------------


def outside():
    """All that a fit must leave as it was, whatever ends it."""
    store = pyro.get_param_store().get_state()
    return (
        torch.get_rng_state().tolist(),
        {name: value.tolist() for name, value in store["params"].items()},
        (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()),
        Distribution._validate_args,
        SubsampleMessenger._subsample,
        pyro.module,
        list(pyro.poutine.runtime._PYRO_STACK),
    )


def by_hand(problem):
    derivation = SimpleNamespace(
        factors=lambda: {"mean": dist.Normal(torch.zeros(2), 1.0).to_event(1)},
        elbo_history=[-1.0],
        seconds=[0.0],
        converged=True,
    )
    problem.model.hand_derived_cavi = lambda y, seed: derivation
    try:
        return hand_derived(problem)
    finally:
        del problem.model.hand_derived_cavi


SHORT = {"num_samples": 8, "num_warmup": 4, "num_chains": 2, "compile": False}
ENGINES = {
    "cavi": lambda problem: cavi(problem, restarts=2, max_sweeps=6),
    "nuts, pyro": lambda problem: nuts(problem, sampler="pyro", **SHORT),
    "nuts, nutpie": lambda problem: nuts(problem, sampler="nutpie", **SHORT),
    "dadvi": dadvi,
    "laplace": laplace,
    "exact": exact,
    "by hand": by_hand,
}
WAITING = {"nuts, nutpie"}  # for a thread, in as many lines as that takes
RETURN_WHAT_THEY_HAVE = {"cavi", "nuts, pyro", "nuts, nutpie", "dadvi", "laplace"}


def assert_nothing_else_is_changed(problem, engine, choose):
    if engine == "nuts, nutpie":
        pytest.importorskip("nutpie")
    run = ENGINES[engine]
    lines = Lines()

    def watched(lines):
        lines.watch()
        return run(problem)

    whole = pressed(lambda: watched(lines))
    assert whole is not None
    before = outside()
    latents, data = problem.fingerprint, problem.args[0].clone()
    for number in choose(range(1, lines.count + 1)):
        press = Lines(number)
        fit = pressed(lambda press=press: watched(press))
        assert press.where != "nowhere" or engine in WAITING
        assert outside() == before, press.where
        assert (problem.fingerprint, problem.args[0].tolist()) == (latents, data.tolist())
        if fit is not None and press.where != "nowhere":
            assert engine in RETURN_WHAT_THEY_HAVE, press.where
            assert fit.status is Status.INTERRUPTED, press.where
            assert len({len(column) for column in fit.history.tensors().values()}) == 1
            means = fit.mean()["mean"]
            assert bool(means.isfinite().all()), press.where
    again = run(problem)
    torch.testing.assert_close(again.mean()["mean"], whole.mean()["mean"], rtol=0, atol=0)


@pytest.fixture
def own_parameter():
    with pyro.get_param_store().scope():
        pyro.get_param_store()["own"] = torch.tensor(3.0)
        yield


@pytest.mark.usefixtures("own_parameter")
@pytest.mark.parametrize("engine", ENGINES)
def test_at_some_lines_of_an_engine_nothing_else_is_changed(problem, engine):
    def some(numbers):
        return [1, *random.Random(engine).sample(numbers, A_FEW)]

    assert_nothing_else_is_changed(problem, engine, some)


@pytest.mark.slow
@pytest.mark.usefixtures("own_parameter")
@pytest.mark.parametrize("engine", ENGINES)
def test_at_many_lines_of_an_engine_nothing_else_is_changed(problem, engine):
    def many(numbers):
        return random.Random(0).sample(numbers, min(200, len(numbers)))

    assert_nothing_else_is_changed(problem, engine, many)


def svi_uncompiled(problem):
    return svi(problem, AutoMeanField, max_steps=8, compile=False, start="guide")


FIRST_STEP_IN = {dadvi: "_value", laplace: "value_and_slope", svi_uncompiled: "advance"}


@pytest.mark.parametrize("engine", FIRST_STEP_IN)
def test_before_the_first_step_there_is_nothing_to_keep(problem, engine):
    lines = Lines(1, function=FIRST_STEP_IN[engine])
    assert pressed(lambda: (lines.watch(), engine(problem))) is None
    assert lines.where != "nowhere"
