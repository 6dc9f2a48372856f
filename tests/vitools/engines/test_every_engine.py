"""What every engine owes its caller, asked of all in the same words.

The same seed gives the same numbers, a progress callback is called or refused by name, Ctrl-C ends in a fit
that says so or in KeyboardInterrupt itself, what is no problem is refused by name. (That no global state
changes is asked of every test.)
"""

import inspect
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

import vitools
from vitools import (
    Posterior,
    Problem,
    Status,
    cavi,
    dadvi,
    exact,
    laplace,
    nuts,
    svi,
    svi_validated,
    warm_up,
)
from vitools.engines import hand_derived
from vitools.engines.progress import Progress
from vitools.errors import OptionError
from vitools.guides import AutoMeanField
from vitools.models import SHIPPED

STEPS: dict[str, Any] = {"max_steps": 16, "compile": False, "start": "guide"}
ENGINES: dict[str, Callable[..., Posterior]] = {
    "cavi": lambda problem, **given: cavi(problem, max_sweeps=10, **given),
    "svi": lambda problem, **given: svi(problem, AutoMeanField, **STEPS, **given),
    "svi_validated": lambda problem, **given: svi_validated(
        problem, AutoMeanField, problem, every=8, **STEPS, **given
    ),
    "warm_up": lambda problem, **given: warm_up(
        problem, AutoMeanField, steps=8, stages=2, compile=False, start="guide", **given
    ),
    "dadvi": lambda problem, **given: dadvi(problem, num_samples=8, **given),
    "laplace": laplace,
    "nuts": lambda problem, **given: nuts(
        problem, num_samples=20, num_warmup=20, num_chains=1, sampler="pyro", compile=False, **given
    ),
    "exact": exact,
}
each_engine = pytest.mark.parametrize("name", ENGINES)


def model(y):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


@pytest.fixture
def problem():
    return Problem(model, torch.tensor([-0.4, 0.3, 1.1, 0.9, 2.0]))


def test_no_engine_is_left_out():
    takes_a_seed = {
        name
        for name in vitools.__all__
        if inspect.isfunction(found := getattr(vitools, name))
        and found.__module__.startswith("vitools.engines.")
        and "seed" in inspect.signature(found).parameters
    }
    assert takes_a_seed == set(ENGINES)


@each_engine
def test_a_fit_says_what_it_is(name, problem):
    fit = ENGINES[name](problem, seed=3)
    assert isinstance(fit, Posterior)
    assert fit.problem.latents == problem.latents
    assert fit.seed == 3
    assert isinstance(fit.status, Status)
    assert fit.seconds > 0
    assert fit.engine
    assert {k: v.shape for k, v in fit.mean().items()} == {"mean": ()}


@each_engine
def test_the_same_seed_gives_the_same_numbers(name, problem):
    first, again = (ENGINES[name](problem, seed=5) for _ in range(2))
    assert first.history.elbo == again.history.elbo
    for site, draws in first.sample(7).items():
        assert torch.equal(draws, again.sample(7)[site])


@each_engine
def test_progress_is_told_and_changes_nothing(name, problem):
    told: list[Progress] = []
    fits = [ENGINES[name](problem, progress=show) for show in (told.append, False, None)]
    assert told
    assert all(isinstance(report, Progress) for report in told)
    for site, draws in fits[0].sample(3).items():
        for other in fits[1:]:
            assert torch.equal(draws, other.sample(3)[site])


@each_engine
@pytest.mark.parametrize("wrong", [3, "bar"])
def test_what_cannot_be_told_is_refused(name, wrong, problem):
    with pytest.raises(OptionError, match=r"^progress: expected a function of one report"):
        ENGINES[name](problem, progress=wrong)


@each_engine
def test_ctrl_c_while_progress_is_told(name, problem):
    """Either a fit that says so, or KeyboardInterrupt: never another error, never a fit that is silent."""

    def press(report: Progress) -> None:
        raise KeyboardInterrupt

    try:
        fit = ENGINES[name](problem, progress=press)
    except KeyboardInterrupt:
        return
    assert fit.status is Status.INTERRUPTED
    assert all(bool(value.isfinite().all()) for value in fit.mean().values())


@each_engine
@pytest.mark.parametrize("seed", [-1, 0.5, "one"])
def test_a_seed_that_is_none_is_refused(name, seed, problem):
    with pytest.raises(OptionError, match=r"^seed: "):
        ENGINES[name](problem, seed=seed)


@each_engine
def test_a_model_without_its_data_is_refused(name):
    with pytest.raises(OptionError, match=r"\(\) expects a Problem, got model\. Bind the model"):
        ENGINES[name](model)


def test_updates_by_hand_are_a_fit_as_any_other():
    example = SHIPPED["two-dice"].build(0)
    problem = Problem(example.model, *example.args)
    first, again = (hand_derived(problem, seed=2, max_sweeps=5) for _ in range(2))
    assert isinstance(first, Posterior)
    assert first.history.elbo == again.history.elbo
