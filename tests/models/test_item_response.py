"""Rasch's model: the density that is stated, the truth behind simulated answers, bad answers."""

import pytest
import scipy.stats
import torch

from vitools import Problem, cavi
from vitools.errors import DataError
from vitools.models.groups import item_response


def test_the_density_is_the_one_stated():
    answers = item_response.simulate(3, 2, seed=1)
    values = {
        "ability_sd": torch.tensor(1.1).double(),
        "difficulty_mean": torch.tensor(0.4).double(),
        "difficulty_sd": torch.tensor(0.8).double(),
        "ability": torch.tensor([0.3, -1.0, 0.6]).double(),
        "difficulty": torch.tensor([0.1, 0.9]).double(),
    }
    odds = (values["ability"][:, None] - values["difficulty"]).flatten().exp()
    expected = (
        scipy.stats.halfcauchy.logpdf([1.1, 0.8]).sum()
        + scipy.stats.norm(0, 4).logpdf(0.4)
        + scipy.stats.norm(0, 1.1).logpdf(values["ability"]).sum()
        + scipy.stats.norm(0.4, 0.8).logpdf(values["difficulty"]).sum()
        + scipy.stats.bernoulli(odds / (1 + odds)).logpmf(answers.correct).sum()
    )
    problem = Problem(item_response.model, answers.correct, answers.person, answers.item)
    assert problem.log_joint(values).item() == pytest.approx(expected, rel=1e-12)


def test_abilities_and_difficulties_are_found_whatever_the_numbers_of_persons():
    answers = item_response.simulate(60, 20, seed=0)
    person = 1000 - 3 * answers.person  # in the opposite order
    problem = Problem(item_response.model, answers.correct, person, answers.item)
    fit = cavi(problem, nested=())
    assert fit.status.is_good
    mean, sd = fit.mean(), fit.sd()
    for name, truth in answers.truth.items():
        found = mean[name].flip(0) if name == "ability" else mean[name]
        width = sd[name].flip(0) if name == "ability" else sd[name]
        z = (found - truth) / width
        assert 0.7 < z.square().mean().sqrt() < 1.4, name
    assert abs(mean["ability_sd"] - 1.2) < 4 * sd["ability_sd"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"correct": torch.tensor([0.0, 2.0, 1.0, 0.0])}, "correct: 2 in row 1"),
        ({"item": torch.zeros(4)}, "item: expected at least 2 different values, got 1 in 4 rows"),
        ({"person": torch.zeros(3)}, r"person: expected shape \[4\]"),
    ],
)
def test_answers_that_are_none_are_refused(change, said):
    given = {
        "correct": torch.tensor([0.0, 1.0, 1.0, 0.0]),
        "person": torch.tensor([0, 0, 1, 1]),
        "item": torch.tensor([0, 1, 0, 1]),
    }
    with pytest.raises(DataError, match=said):
        Problem(item_response.model, **(given | change))


def test_pictures_are_of_items_and_of_persons():
    answers = item_response.simulate(4, 3)
    problem = Problem(item_response.model, answers.correct, answers.person, answers.item)
    problem = problem.with_coords(items=["easy", "fair", "hard"])
    figures = item_response.pictures(cavi(problem, nested=(), max_sweeps=3))
    assert list(figures) == ["difficulties", "abilities"]
    names = {text.get_text() for text in figures["difficulties"].axes[0].get_yticklabels()}
    assert names == {"easy", "fair", "hard"}
