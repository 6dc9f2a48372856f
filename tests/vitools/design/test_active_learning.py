"""Active learning of classifiers: scores by hand, and a pool whose optimum is known."""

import math

import pytest
import torch
from models_of_experiments import T, threshold

from vitools.design import (
    bald,
    committee_disagreement,
    expected_information_gain,
    next_label,
    predictive_entropy,
)
from vitools.errors import DataError, OptionError


def binary(p):
    return torch.stack([1 - p, p], -1)


P = binary(T([[0.9, 0.5, 0.1, 0.6], [0.9, 0.5, 0.9, 0.4]]))


def h(p):
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def test_scores_by_hand():
    assert predictive_entropy(P).tolist() == pytest.approx(
        [h(0.9), math.log(2), math.log(2), math.log(2)]
    )
    assert committee_disagreement(P).tolist() == pytest.approx(
        [0, 0, math.log(2), math.log(2)], abs=1e-12
    )
    assert bald(P).tolist() == pytest.approx(
        [0, 0, math.log(2) - h(0.9), math.log(2) - h(0.4)], abs=1e-12
    )
    assert [next_label(P, score) for score in ("entropy", "disagreement", "bald")] == [1, 2, 2]
    assert next_label(P, labelled=T([0, 0, 1, 0]).bool()) == 3


def test_bald_is_the_expected_information_gain_of_the_label():
    pool = T([0.1, 0.4, 0.5, 0.8])
    gains = expected_information_gain(threshold, pool, method="listed", num_samples=2000)
    at = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores = bald(binary((pool > at.unsqueeze(1)).double() * 0.998 + 0.001))
    for gain, score in zip(gains, scores.tolist(), strict=True):
        assert abs(gain.value - score) < 4 * gain.standard_error + 0.01


GRID = (torch.arange(512, dtype=torch.float64) + 0.5) / 512
"""Thresholds, equally likely beforehand."""
POOL = torch.cat([(torch.arange(64, dtype=torch.float64) + 0.5) / 64, torch.full((64,), -1.0)])
"""Half of it teaches nothing: there labels are a fair coin."""


def probabilities(at):
    """[thresholds, pool, 2]"""
    above = (at.unsqueeze(1) < POOL).double() * 0.98 + 0.01
    return binary(torch.where(POOL < 0, 0.5, above))


def learn(score, seed, labels=10):
    """Width of the posterior after so many labels; the posterior is exact, on the grid of thresholds."""
    generator = torch.Generator().manual_seed(seed)
    truth = float(torch.rand((), generator=generator))
    log_p = torch.zeros(512)
    every = probabilities(GRID)
    labelled = torch.zeros(len(POOL), dtype=torch.bool)
    for _ in range(labels):
        drawn = torch.multinomial(log_p.softmax(0), 400, replacement=True, generator=generator)
        if score == "random":
            left = (~labelled).nonzero().squeeze(-1)
            at = int(left[torch.randint(len(left), (), generator=generator)])
        else:
            at = next_label(every[drawn], score, labelled)
        p = float(probabilities(T([truth]))[0, at, 1])
        label = int(torch.rand((), generator=generator) < p)
        labelled[at] = True
        log_p = log_p + every[:, at, label].log()
    weights = log_p.softmax(0)
    mean = float(weights @ GRID)
    return float((weights @ (GRID - mean) ** 2).sqrt())


def test_information_learns_as_bisection_does_and_entropy_falls_for_noise():
    """Halving 1/2, 1/4, … is the optimum: the mutual information of a label is at most log 2."""
    seeds = range(20)
    widths = {
        s: torch.tensor([learn(s, seed) for seed in seeds])
        for s in ("bald", "disagreement", "entropy", "random")
    }
    median = {s: float(w.median()) for s, w in widths.items()}
    after_six_halvings = 1 / 64 / math.sqrt(12)
    assert median["bald"] < 4 * after_six_halvings
    assert median["disagreement"] < 4 * after_six_halvings
    assert median["random"] > 3 * median["bald"]
    assert median["entropy"] > 5 * median["bald"]  # it asks for coins


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: bald(torch.ones(2, 3)), OptionError, r"probabilities: expected .* got \[2, 3\]"),
        (lambda: bald([0.5]), OptionError, "probabilities: .* got list"),
        (lambda: bald(torch.ones(2, 3, 2)), DataError, "expected numbers that sum to 1"),
        (lambda: next_label(P, "bold"), OptionError, "score: expected one of entropy, disagreement, bald, got 'bold'"),
        (lambda: next_label(P, ["bald"]), OptionError, "score: expected one of entropy, disagreement, bald, got"),
        (lambda: next_label(P, labelled=torch.ones(3).bool()), OptionError, r"labelled: expected a bool tensor of shape \[4\]"),
        (lambda: next_label(P, labelled=torch.ones(4).bool()), OptionError, "labelled: every input has a label"),
    ],
)  # fmt: skip
def test_what_is_refused(call, kind, words):
    with pytest.raises(kind, match=words):
        call()
