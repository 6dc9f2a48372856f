"""How often a problem runs the user's model when it is built."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi
from vitools.problem.check import check_problem

ROWS = torch.arange(6.0)
RUNS: list[int] = []
"""How many rows each run of a model was given."""


def normal(y):
    RUNS.append(len(y))
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def minibatches(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y), subsample_size=2) as rows:
        RUNS.append(len(rows))
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y[rows])


def mixture(y):
    RUNS.append(len(y))
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Bernoulli(0.5)).long()
        pyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (normal, [6, 6]),
        (minibatches, [2, 6, 6]),
        (mixture, [6, 6]),
    ],
)
def test_a_model_is_run_twice_on_all_data_and_once_on_a_minibatch(model, expected):
    RUNS.clear()
    problem = Problem(model, ROWS)
    assert expected == RUNS
    assert problem.is_large is False
    assert repr(problem).startswith("Problem(")
    assert expected == RUNS


def test_enumeration_is_tried_once_by_whatever_comes_first():
    problem = Problem(mixture, ROWS)
    RUNS.clear()
    check_problem(problem, "exact()")
    assert RUNS == [6] * 4  # with z enumerated, and at three values of z to compare with
    check_problem(problem, "exact()")
    problem.try_on_values()
    assert RUNS == [6] * 4


def test_coordinate_ascent_reads_the_model_once_more():
    RUNS.clear()
    cavi(Problem(normal, ROWS), max_sweeps=2)
    assert RUNS == [6, 6, 6]
