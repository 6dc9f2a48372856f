"""Runs ended by a validation bound: the parts are one run, and the best parameters are kept."""

import itertools

import pytest
import torch

from vitools import Problem, Status, svi
from vitools.engines import checkpoint
from vitools.engines.svi.validation import svi_validated
from vitools.errors import OptionError
from vitools.models.vae import VAE, load

EVERY = 100
OPTIONS = {"learning_rate": 0.02, "compile": False, "seed": 5}


def problems():
    """A VAE of far too many weights for 25 digits, and its data, to train and to validate."""
    images = load(seed=1).train
    vae = VAE(64, 4, (60,), seed=2)
    return Problem(vae.model, images[:25]), vae, Problem(vae.model, images[25:300])


@pytest.fixture(scope="module")
def overfit():
    torch.set_default_dtype(torch.float64)  # as in the tests
    try:
        problem, vae, validation = problems()
        fit = svi_validated(problem, vae.guide, validation, every=EVERY, patience=2, **OPTIONS)
        return fit, problem, vae, validation
    finally:
        torch.set_default_dtype(torch.float32)


def test_patience_ends_the_run_and_the_best_part_is_kept(overfit):
    fit, _, vae, validation = overfit
    assert fit.status is Status.CONVERGED
    best = list(fit.validation.values()).index(max(list(fit.validation.values())))
    assert best == len(list(fit.validation.values())) - 3
    assert list(fit.validation) == list(range(EVERY, EVERY * len(list(fit.validation)) + 1, EVERY))
    found = f"validation bound {max(list(fit.validation.values())):.2f}, the best of {len(list(fit.validation))} looks, after"
    assert fit.detail.startswith(
        f"{found} {list(fit.validation)[best]} of {list(fit.validation)[-1]} steps"
    )
    # another way to the same bound, with the networks' own weights and other draws
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bounds = vae.log_weights(*validation.args, num_samples=200).elbo.sum(1)
    error = bounds.std() * (1 / 4 + 1 / 200) ** 0.5
    assert abs(bounds.mean() - max(list(fit.validation.values()))) < 4 * error
    assert max(list(fit.validation.values())) - list(fit.validation.values())[-1] > 4 * error
    for name, value in fit.params["params"].items():
        assert torch.equal(value.data, vae.get_parameter(name).data)


def test_the_parts_are_the_run_that_nobody_looked_at(overfit):
    fit, *_ = overfit
    problem, vae, _ = problems()
    whole = svi(problem, vae.guide, max_steps=list(fit.validation)[-1], **OPTIONS)
    assert fit.history.elbo == whole.history.elbo
    assert len(whole.history) == list(fit.validation)[-1]


def test_parts_are_not_compiled_unless_asked():
    problem, vae, validation = problems()
    fit = svi_validated(problem, vae.guide, validation, every=8, max_steps=8, learning_rate=0.02)
    assert fit.detail.endswith("uncompiled as asked")


def test_a_killed_run_goes_on_from_its_checkpoint(overfit, tmp_path, monkeypatch):
    fit, *_ = overfit
    problem, vae, validation = problems()
    done = itertools.count()

    def kill(step, bound):
        if next(done) == EVERY // 4 + 10:  # in the second part
            raise RuntimeError("killed")

    common = {"every": EVERY, "patience": 2, "checkpoint": tmp_path / "run", **OPTIONS}
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)
    with pytest.raises(RuntimeError, match="killed"):
        svi_validated(problem, vae.guide, validation, callback=kill, **common)
    problem, vae, validation = problems()
    resumed = svi_validated(problem, vae.guide, validation, resume=True, **common)
    assert list(resumed.validation) == list(fit.validation)
    assert list(resumed.validation.values()) == list(fit.validation.values())
    assert resumed.history.elbo == fit.history.elbo
    again = svi_validated(problem, vae.guide, validation, resume=True, **common)
    assert list(again.validation) == list(fit.validation)  # a run that is over stays over
    for name, value in fit.params["params"].items():
        assert torch.equal(value.data, vae.get_parameter(name).data)


def test_the_limit_ends_a_run_that_still_improves(monkeypatch):
    monkeypatch.setattr("time.perf_counter", itertools.count().__next__)  # every block reports
    problem, vae, validation = problems()
    told = []
    fit = svi_validated(
        problem, vae.guide, validation, every=20, max_steps=50, progress=told.append, **OPTIONS
    )
    assert {report.max_steps for report in told} == {50}
    assert [report.step for report in told] == sorted(report.step for report in told)
    assert list(fit.validation) == [20, 40, 50]
    assert fit.status is Status.STOPPED_AT_LIMIT
    assert list(fit.validation.values()) == sorted(fit.validation.values())


def test_an_interrupted_run_keeps_what_it_reached():
    def interrupt(step, bound):
        if step == 60:
            raise KeyboardInterrupt

    problem, vae, validation = problems()
    fit = svi_validated(problem, vae.guide, validation, every=40, callback=interrupt, **OPTIONS)
    assert fit.status is Status.INTERRUPTED
    assert list(fit.validation) == [40, 60]
    assert len(fit.history) == 60


def test_impossible_options_are_refused():
    problem, vae, validation = problems()
    with pytest.raises(OptionError, match=r"every: expected a multiple of 4.*got 50 and 0"):
        svi_validated(problem, vae.guide, validation, every=50, patience=0)


def test_an_interrupted_run_goes_on_with_the_looks_of_one_that_was_not(tmp_path):
    """A look at where Ctrl-C fell is of the result it gives, not of the run that goes on."""

    def interrupt(step, bound):
        if step == 60:
            raise KeyboardInterrupt

    options = {"every": 40, "max_steps": 120, **OPTIONS}
    problem, vae, validation = problems()
    whole = svi_validated(problem, vae.guide, validation, **options)
    options["checkpoint"] = tmp_path / "run"
    problem, vae, validation = problems()
    first = svi_validated(problem, vae.guide, validation, callback=interrupt, **options)
    assert list(first.validation) == [40, 60]
    problem, vae, validation = problems()
    resumed = svi_validated(problem, vae.guide, validation, resume=True, **options)
    assert list(resumed.validation) == list(whole.validation) == [40, 80, 120]
    assert list(resumed.validation.values()) == list(whole.validation.values())
    assert resumed.history.elbo == whole.history.elbo
    for name, value in whole.params["params"].items():
        assert torch.equal(value.data, resumed.params["params"][name].data)
