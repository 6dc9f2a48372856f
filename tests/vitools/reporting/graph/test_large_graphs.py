"""Graphs of a hundred sites: the edges that single moves find, at a cost that grows with the sites."""

import time

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, draw
from vitools.reporting.graph import extraction
from vitools.reporting.graph.extraction import extract

ONE = torch.ones(()).double()


def walk(y):
    x = pyro.sample("x_0", dist.Normal(0 * ONE, ONE))
    for t in range(len(y)):
        x = pyro.sample(f"x_{t + 1}", dist.Normal(x, ONE))
        pyro.sample(f"y_{t}", dist.Normal(x, ONE), obs=y[t])


def switches(y):
    """A change point, an index by a discrete latent, a plate, a bounded latent, a factor."""
    at = pyro.sample("at", dist.Uniform(0 * ONE, 4 * ONE))
    z = pyro.sample("z", dist.Categorical(torch.ones(3).double()))
    with pyro.plate("levels", 3):
        level = pyro.sample("level", dist.Normal(0 * ONE, ONE))
    for t in range(len(y)):
        rate = torch.where(t < at, level[0], level[1])
        pyro.sample(f"y_{t}", dist.Normal(rate + level[z] * (t == 2), ONE), obs=y[t])
    pyro.factor("pull", -(level.sum() ** 2))


def branches(y):
    """A branch on a value, which vmap refuses."""
    x = pyro.sample("x", dist.Normal(0 * ONE, ONE))
    for t in range(len(y)):
        pyro.sample(f"y_{t}", dist.Normal(ONE if x > t - 2 else 0 * ONE, ONE), obs=y[t])


@pytest.mark.parametrize("model", [walk, switches, branches])
def test_all_moves_in_one_run_find_what_single_runs_find(model, monkeypatch):
    y = torch.arange(5.0).double()
    found = []
    for many in (1, 10**9):
        monkeypatch.setattr(extraction, "MANY", many)
        found.append(extract(model, (y,)))
    assert found[0] == found[1]
    assert found[0].edges


def test_a_hundred_steps_are_drawn_in_seconds():
    problem = Problem(walk, torch.zeros(100).double())
    began = time.process_time()
    picture = draw(problem)
    assert "x" in str(picture)
    assert time.process_time() - began < 8.0  # single moves took 12 to 25


def tangle(y):
    """Each of 99 sites reads two of those before."""
    generator = torch.Generator().manual_seed(3)
    names = [a + b + c for a in "klmnpqr" for b in "aeiou" for c in "xyz"]
    values = [pyro.sample("root", dist.Normal(0 * ONE, ONE))]
    for name in names[:99]:
        first, second = torch.randint(len(values), (2,), generator=generator).tolist()
        values.append(pyro.sample(name, dist.Normal(values[first] - values[second], ONE)))
    pyro.sample("y", dist.Normal(values[-1], ONE), obs=y)


@pytest.mark.slow
def test_a_tangle_is_drawn_without_settling():
    problem = Problem(tangle, ONE)
    began = time.process_time()
    draw(problem)
    assert time.process_time() - began < 12.0  # five where nothing else runs
