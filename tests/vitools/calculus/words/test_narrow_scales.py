"""Which scales are nested by themselves, and what is said of those that are not."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi, explain
from vitools.distributions import GaussianMarkovChain
from vitools.models.series import local_level, state_space

Y = torch.tensor([0.3, 0.5, 1.9, 1.2, 2.0, 2.2, 2.9, 2.1, 3.5, 3.0], dtype=torch.float64)


def loop(y):
    drift = pyro.sample("drift", dist.HalfCauchy(torch.tensor(1.0).double()))
    x = pyro.sample("x_0", dist.Normal(torch.tensor(0.0).double(), 10.0))
    for t in range(len(y)):
        x = pyro.sample(f"x_{t + 1}", dist.Normal(x, drift))
        pyro.sample(f"y_{t}", dist.Normal(x, 0.4), obs=y[t])


def panel_with_groups(y):
    """Levels of three groups, each with a walk around it."""
    between = pyro.sample("between", dist.HalfCauchy(torch.tensor(1.0).double()))
    drift = pyro.sample("drift", dist.HalfCauchy(torch.tensor(1.0).double()))
    with pyro.plate("groups", 3):
        level = pyro.sample("level", dist.Normal(torch.tensor(0.0).double(), between))
        walk = GaussianMarkovChain(torch.zeros(1).double(), 1.0, drift.reshape(1, 1), num_steps=3)
        path = pyro.sample("path", walk)
    with pyro.plate("g", 3, dim=-2), pyro.plate("t", 3, dim=-1):
        pyro.sample("y", dist.Normal(level[:, None] + path[..., 0], 0.4), obs=y[:9].reshape(3, 3))


def many_rows(y):
    tau = pyro.sample("tau", dist.HalfNormal(torch.tensor(1.0).double()))
    with pyro.plate("groups", 5):
        u = pyro.sample("u", dist.Normal(torch.tensor(0.0).double(), tau))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(u[torch.arange(len(y)) % 5], 1.0), obs=y)


def words(model, *data):
    return " ".join(explain(Problem(model, *data)).split())


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        (
            loop,
            Y,
            "'drift': the scale of the increments of x, so all other factors depend on its value",
        ),
        (local_level.model, Y, "'drift': the scale of the increments of level, so all other"),
        (panel_with_groups, Y, "'between': the scale of few effects (3 of level), so all other"),
        (
            state_space.model,
            Y,
            "apart from them in q and so too narrow; nested=['level_drift', 'trend_drift'] lets all depend on "
            "their values (not by itself, as each must know of the others too",
        ),
        (
            many_rows,
            Y.repeat(201),
            "'tau': the scale of few effects (5 of u), apart from it in q and so too narrow; nested=['tau'] lets "
            "all depend on its value (not by itself from 2000 numbers of data on",
        ),
    ],
)
def test_what_is_said(model, data, said):
    assert said in words(model, data)


@pytest.mark.slow
def test_the_drift_of_a_walk_is_wider_by_itself_and_its_bound_higher():
    problem = Problem(local_level.model, Y)
    nested, plain = cavi(problem, progress=False), cavi(problem, progress=False, nested=())
    assert nested.bound > plain.bound
    assert nested.sd()["drift"] > 1.2 * plain.sd()["drift"]
    assert "given drift in" in nested.detail
