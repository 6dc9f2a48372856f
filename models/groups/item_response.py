"""Answers of persons to items: how able each person is and how difficult each item (Rasch's model).

    P(person p solves item i) = 1 / (1 + exp(-(a_p - d_i)))
    a_p ~ Normal(0, σ_a²),   d_i ~ Normal(μ, σ_d²)
    μ ~ Normal(0, 4²),   σ_a, σ_d ~ half-Cauchy(1)        in units of log-odds

Abilities have mean 0, so that difficulties have an origin. Answers may be missing: a row is an answer that
was given. Persons and items are crossed plates, whose abilities and difficulties share one normal factor.

Reference: G. Rasch, "Probabilistic models for some intelligence and attainment tests", 1960.
"""

from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.models import Example
from vitools.models.columns import as_codes, as_column


def model(correct: Tensor, person: Tensor, item: Tensor) -> None:
    """Sites: ``ability`` in plate *persons*, ``difficulty`` in plate *items*, their scales and mean.

    Args:
        correct: 1 for a right answer and 0 for a wrong one, [N]; or true and false.
        person, item: whose answer to what, [N]: whole numbers, of whatever values.
    """
    correct = as_column("correct", correct)
    if bool(((correct != 0) & (correct != 1)).any()):
        row = int(((correct != 0) & (correct != 1)).nonzero()[0])
        raise DataError(
            f"correct: {correct[row].item():g} in row {row} (counting from 0); expected 1 for a right "
            "answer, 0 for a wrong one."
        )
    who, num_persons = as_codes("person", person, len(correct))
    what, num_items = as_codes("item", item, len(correct))
    zero, one = correct.new_zeros(()), correct.new_ones(())
    ability_sd = pyro.sample("ability_sd", dist.HalfCauchy(one))
    difficulty_mean = pyro.sample("difficulty_mean", dist.Normal(zero, 4 * one))
    difficulty_sd = pyro.sample("difficulty_sd", dist.HalfCauchy(one))
    with pyro.plate("persons", num_persons):
        ability = pyro.sample("ability", dist.Normal(zero, ability_sd))
    with pyro.plate("items", num_items):
        difficulty = pyro.sample("difficulty", dist.Normal(difficulty_mean, difficulty_sd))
    with pyro.plate("answers", len(correct)):
        log_odds = ability[who] - difficulty[what]
        pyro.sample("correct", dist.Bernoulli(logits=log_odds), obs=correct)


@dataclass(frozen=True)
class Answers:
    """Simulated answers [N], whose and to what [N], and the truth: ``ability``, ``difficulty``."""

    correct: Tensor
    person: Tensor
    item: Tensor
    truth: dict[str, Tensor]


def simulate(num_persons: int = 120, num_items: int = 60, seed: int = 0) -> Answers:
    """Everyone answers everything: abilities ± 1.2, difficulties .3 ± 1.

    >>> answers = simulate(3, 2)
    >>> answers.person.tolist(), answers.item.tolist()
    ([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1])
    """
    if min(num_persons, num_items) < 2:
        raise OptionError(f"expected 2 persons and items at least, got {num_persons}, {num_items}.")
    generator = torch.Generator().manual_seed(seed)
    ability = 1.2 * torch.randn(num_persons, generator=generator, dtype=torch.float64)
    difficulty = 0.3 + torch.randn(num_items, generator=generator, dtype=torch.float64)
    probability = (ability[:, None] - difficulty).sigmoid().flatten()
    return Answers(
        torch.bernoulli(probability, generator=generator),
        torch.arange(num_persons).repeat_interleave(num_items),
        torch.arange(num_items).repeat(num_persons),
        {"ability": ability, "difficulty": difficulty},
    )


def example(seed: int) -> Example:
    """The answers of 120 persons to 60 items."""
    answers = simulate(seed=seed)
    return Example(
        model,
        (answers.correct, answers.person, answers.item),
        "7200 answers of 120 persons to 60 items (simulated)",
        pictures=pictures,
    )


def pictures(posterior: Any) -> dict[str, Any]:
    """Items from the easiest to the most difficult, and persons in the order of their ability."""
    from vitools.models.pictures import plot_effects

    return {
        "difficulties": plot_effects(posterior, "difficulty", titles=["difficulty of the items"]),
        "abilities": plot_effects(posterior, "ability", titles=["ability of the persons"]),
    }
