"""Every model of the collection goes through every stage: the answer, or a message of ours."""

import inspect
import math
import warnings
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import discrete  # noqa: F401  (each fills the collection)
import groups  # noqa: F401
import pytest
import regressions  # noqa: F401
import sequences  # noqa: F401
import structured  # noqa: F401
import torch
from trial import COLLECTION, feature_table

from vitools import Problem, cavi, draw, explain, nuts, preflight, svi, to_arviz
from vitools.errors import VitoolsError
from vitools.guides import AutoMultivariate

ALL = [pytest.param(t, id=t.name) for t in COLLECTION]
SOME = [
    pytest.param(t, id=t.name, marks=[] if t.is_quick else [pytest.mark.slow]) for t in COLLECTION
]
STEPS = 64


@cache
def _bound(trial):
    model, guide, arguments = trial.make()
    return Problem(model, *arguments), guide


@contextmanager
def _noticed(trial):
    """Inside the block the warnings that a trial may give are none."""
    with warnings.catch_warnings():
        for words in trial.notices:
            warnings.filterwarnings("ignore", message=f"(?s).*{words}")
        yield


def _asked(trial, stage, ask):
    """What a stage gives; ``None`` where it refuses the model in the words that are expected."""
    with _noticed(trial):
        if stage not in trial.refused:
            return ask()
        with pytest.raises(VitoolsError, match=trial.refused[stage]):
            ask()
    return None


def _check_draws(trial, drawn, count, names):
    for name in names:
        assert drawn[name].shape == (count, *trial.latents[name])
        assert bool(torch.isfinite(drawn[name].double()).all())


@pytest.fixture(params=SOME)
def trial(request):
    return request.param


def test_no_two_trials_have_the_same_features():
    assert len(COLLECTION) >= 60
    for one in COLLECTION:
        for other in COLLECTION:
            assert one is other or one.features != other.features, (one.name, other.name)


def test_many_trials_are_as_long_as_examples_are():
    lines = {t.name: len(inspect.getsource(t.make).splitlines()) for t in COLLECTION}
    assert sum(count > 40 for count in lines.values()) >= 20, lines


def test_many_trials_have_what_only_pyro_has():
    words = ("PyroModule", "reparam", "pyro.markov", "enumerat")
    have = [t.name for t in COLLECTION if any(w in inspect.getsource(t.make) for w in words)]
    assert len(have) >= 15, have


def test_the_table_of_the_collection_is_this_collection():
    """``python tests/trials/table.py`` writes it."""
    page = Path(__file__).with_name("README.md").read_text()
    assert feature_table() in page


@pytest.mark.parametrize("trial", ALL)
def test_a_problem_knows_its_sites(trial):
    problem, _ = _bound(trial)
    assert {k: tuple(s.shape) for k, s in problem.latents.items()} == dict(trial.latents)
    assert {k: tuple(s.shape) for k, s in problem.observed.items()} == dict(trial.observed)


def test_explain_has_words(trial):
    problem, _ = _bound(trial)
    words = _asked(trial, "explain", lambda: str(explain(problem)))
    assert words is None or words


def test_the_graph_is_drawn(trial):
    problem, _ = _bound(trial)
    picture = _asked(trial, "draw", lambda: draw(problem))
    assert picture is None or str(picture)


def test_predictive_data_have_the_shape_of_the_data(trial):
    problem, _ = _bound(trial)
    if any(site.distribution == "ImproperUniform" for site in problem.latents.values()):
        drawn = problem.starting_draws(4)
    else:
        drawn = problem.prior(4)
    _check_draws(trial, drawn, 4, problem.latents)
    found = problem.predictive({k: drawn[k] for k in problem.drawn}, num_samples=4)
    for name, shape in trial.observed.items():
        assert found[name].shape == (4, *shape)


def _check_fit(trial, problem, fit):
    assert math.isfinite(fit.history.elbo[-1])
    _check_draws(trial, fit.sample(3), 3, problem.drawn)
    assert str(fit)
    exported = _asked(trial, "arviz", lambda: to_arviz(fit, num_samples=4))
    if exported is not None and problem.latents:
        for name in problem.latents:
            assert exported["posterior"][name.replace("/", ".")].shape[:2] == (1, 4)


def test_its_own_guide_is_fitted(trial):
    problem, guide = _bound(trial)

    def fit():
        assert str(preflight(problem, guide))
        return svi(problem, guide, max_steps=STEPS, compile=False)

    found = _asked(trial, "own_guide", fit)
    if found is not None:
        with _noticed(trial):
            _check_fit(trial, problem, found)


def test_an_automatic_guide_is_fitted(trial):
    problem, _ = _bound(trial)
    found = _asked(
        trial,
        "automatic_guide",
        lambda: svi(problem, AutoMultivariate, max_steps=STEPS, compile=False),
    )
    if found is not None:
        with _noticed(trial):
            _check_fit(trial, problem, found)


def test_nuts_draws(trial):
    problem, _ = _bound(trial)
    run = {"num_samples": 4, "num_warmup": 10, "num_chains": 1, "compile": False}
    found = _asked(trial, "nuts", lambda: nuts(problem, **run))
    if found is not None:
        _check_draws(trial, found.sample(3), 3, problem.drawn)
        _asked(trial, "arviz", lambda: to_arviz(found))


def test_coordinate_ascent_fits_it_or_says_why_not(trial):
    problem, _ = _bound(trial)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = cavi(problem, max_sweeps=20)
        except VitoolsError:
            return
        assert math.isfinite(found.elbo().value)
