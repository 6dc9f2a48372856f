"""Trends and restarts on records whose answer is known."""

import math

import pytest
import torch

from vitools import Problem
from vitools.diagnostics.convergence import restarts, split_rhat, trend
from vitools.errors import OptionError
from vitools.models import coin
from vitools.posterior import FactorisedPosterior, History, Status


def record(values) -> History:
    values = [float(v) for v in values]
    return History(list(range(len(values))), values, [0.0] * len(values))


def test_split_rhat_by_hand():
    x = torch.tensor([0.0, 2.0, 1.0, 3.0])
    # halves: means 1 and 2, variances 2 and 2; W = 2, B/n = 1/2, n = 2
    assert split_rhat(x) == pytest.approx(math.sqrt((2 * 0.5 + 0.5) / 2))
    assert split_rhat(torch.ones(10)) == 1.0
    with pytest.raises(OptionError, match="at least 4"):
        split_rhat(torch.ones(3))


def test_trends():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1000, generator=generator)
    ended = trend(record(-50 + noise))
    assert ended.has_ended
    assert ended.rhat < 1.05
    rising = trend(record(torch.arange(1000.0) / 20 + noise))
    assert not rising.has_ended
    assert rising.gain == pytest.approx(5.0, abs=4 * math.sqrt(2 / 100))
    assert "still rises: by" in rising.words
    flat = trend(record(-50 - torch.exp(-torch.arange(100.0) / 5)))
    assert flat.has_ended  # a trend, but of less than a tenth of a nat
    assert trend(record([1.0, 2.0])).rhat is None


def fit(a, b, seed=0):
    problem = Problem(coin.model, coin.simulate(20))
    q = torch.distributions.Beta(torch.tensor(a).double(), torch.tensor(b).double())
    return FactorisedPosterior(
        problem, {"p": q}, 0.0, engine="cavi", status=Status.CONVERGED, seed=seed
    )


def test_restarts():
    same = restarts([fit(14.0, 8.0), fit(14.0, 8.0, seed=1)])
    assert same.agree
    assert same.words == "all 2 runs end at the same bound"
    found = restarts({"good": fit(14.0, 8.0), "lost": fit(2.0, 20.0)})
    assert not found.agree
    assert found.best == "good"
    assert "1 of 2 runs end below the best (good)" in found.words
    with pytest.raises(OptionError, match="at least two"):
        restarts([fit(1.0, 1.0)])
