"""Stochastic variational inference on rows of several processes: the steps of one process with all of them."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from several_processes import on_ranks

from vitools import Elbo, ImportanceWeighted, Problem, svi
from vitools.engines import checkpoint as store
from vitools.errors import VitoolsError
from vitools.guides import AutoMeanField, AutoMultivariate


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


N = 60
X = normal(N, 2)
LINE = X.sum(1) + 0.5 * normal(N, seed=1)
CLUSTERS = torch.tensor([-4.0, 4.0]).double()[torch.arange(N) % 2] + X[:, 0]


def regression(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2).double(), 2.0).to_event(1))
    tau = pyro.sample("tau", dist.Gamma(number(2.0), number(1.0)))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ w, tau.rsqrt()), obs=y)


def mixture(y):
    """Discrete latents of rows, which are summed out."""
    with pyro.plate("components", 2):
        mu = pyro.sample("mu", dist.Normal(number(0.0), 10.0))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(torch.ones(2).double() / 2))
        pyro.sample("y", dist.Normal(mu[z], number(1.0)), obs=y)


def levels(y):
    mu = pyro.sample("mu", dist.Normal(number(0.0), 10.0))
    with pyro.plate("rows", len(y)):
        x = pyro.sample("x", dist.Normal(mu, number(1.0)))
        pyro.sample("y", dist.Normal(x, number(1.0)), obs=y)


def encoder(y):
    """Makes the factors of rows from their data: all its parameters are of all rows."""
    loc = pyro.param("loc", number(0.0))
    scale = pyro.param("scale", number(1.0), constraint=dist.constraints.positive)
    pyro.sample("mu", dist.Normal(loc, scale))
    slope, shift, width = (pyro.param(name, number(0.3)) for name in ("slope", "shift", "width"))
    with pyro.plate("rows", len(y)):
        pyro.sample("x", dist.Normal(slope * y + shift, width.exp()))


def single(y):
    """A parameter for each row."""
    loc = pyro.param("loc", torch.zeros(len(y)).double())
    pyro.sample("mu", dist.Normal(number(0.0), number(1.0)))
    with pyro.plate("rows", len(y)):
        pyro.sample("x", dist.Normal(loc, number(1.0)))


CASES = {
    "regression": (regression, (X, LINE), AutoMultivariate),
    "mixture": (mixture, (CLUSTERS,), AutoMeanField),
}
STEPS = {"start": "guide", "max_steps": 40, "learning_rate": 0.05}


def part(data, rank):
    return [column[: N // 3] if rank == 0 else column[N // 3 :] for column in data]


def test_every_step_is_that_of_one_process(tmp_path):
    """The same noise, so that the bounds before all steps are equal, and the parameters after them."""

    def work(rank):
        found = {}
        for case, (model, data, guide) in CASES.items():
            fit = svi(Problem(model, *part(data, rank)), guide, sharded="rows", **STEPS)
            values = {k: v.detach().clone() for k, v in fit.params["params"].items()}
            found[case] = (fit.history.elbo, values, fit.part, fit.detail)
        return found

    ranks = on_ranks(work, 2, tmp_path)
    for case, (model, data, guide) in CASES.items():
        whole = svi(Problem(model, *data), guide, compile=False, **STEPS)
        for rank, found in enumerate(ranks):
            elbo, values, whose, detail = found[case]
            assert elbo == pytest.approx(whole.history.elbo, rel=1e-10)
            for name, value in whole.params["params"].items():
                torch.testing.assert_close(values[name], value.detach(), rtol=1e-9, atol=1e-9)
                assert torch.equal(values[name], ranks[0][case][1][name])
            assert whose == f"rank {rank} of 2"
            assert "gradients of 2 processes are added up" in detail


@pytest.mark.slow
def test_factors_of_rows_by_an_encoder(tmp_path):
    """Of noise of its own for each row the expectation is that of one process: closed form, y ~ N(mu, 2)."""

    def work(rank):
        rows = LINE[:20] if rank == 0 else LINE[20:]
        fit = svi(
            Problem(levels, rows), encoder, sharded="rows", num_particles=4, learning_rate=0.02
        )
        return {k: float(v.detach()) for k, v in fit.params["params"].items()}

    first, second = on_ranks(work, 2, tmp_path)
    assert first == second
    # q(x_n) = N(s y_n + t, v): the optimum has s = 1/2, v = 1/2 and t = E mu / 2; mu | x has precision 60.01
    mean = float(LINE.sum() / (N + 0.02))
    assert first["slope"] == pytest.approx(0.5, abs=0.03)
    assert first["shift"] == pytest.approx(mean / 2, abs=0.03)
    assert first["width"] == pytest.approx(0.5 * math.log(0.5), abs=0.05)
    assert first["loc"] == pytest.approx(mean, abs=0.05)


@pytest.fixture
def alone():
    """A group of this process alone."""
    import torch.distributed as td

    td.init_process_group("gloo", store=td.HashStore(), rank=0, world_size=1)
    yield
    td.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("model", "guide", "options", "words"),
    [
        (
            levels,
            AutoMeanField,
            {},
            "guide AutoMeanField has parameters of single rows of 'rows' (site x)",
        ),
        (levels, single, {}, "guide single has parameters of single rows of 'rows' (site x)"),
        (
            mixture,
            AutoMeanField,
            {"objective": ImportanceWeighted(4)},
            "sharded: not beside objective=, which is no sum over rows",
        ),
        (mixture, AutoMeanField, {"compile": True}, "sharded: not beside compile=True"),
        (mixture, AutoMeanField, {"callback": print}, "sharded: not beside callback="),
        (mixture, AutoMeanField, {"sharded": "row"}, "no plate 'row' in model 'mixture'"),
    ],
)
def test_what_is_not_done_is_refused_by_name(model, guide, options, words):
    with pytest.raises(VitoolsError) as caught:
        svi(Problem(model, CLUSTERS), guide, **{"sharded": "rows", "max_steps": 8, **options})
    assert words in str(caught.value)
    assert str(caught.value)[-1] in ".?"


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_a_run_of_two_processes_goes_on_in_one(tmp_path):
    path = tmp_path / "run.ckpt"
    model, data, guide = CASES["regression"]
    problem = Problem(model, *data)
    whole = svi(problem, guide, sharded="rows", objective=Elbo(2), **STEPS)

    def work(rank):
        store.SECONDS = 0.0
        options = {**STEPS, "max_steps": 24}
        svi(
            Problem(model, *part(data, rank)),
            guide,
            sharded="rows",
            objective=Elbo(2),
            checkpoint=path,
            **options,
        )

    assert on_ranks(work, 2, tmp_path) == [None, None]
    resume = {"checkpoint": path, "resume": True}
    fit = svi(problem, guide, sharded="rows", objective=Elbo(2), **resume, **STEPS)
    assert fit.history.elbo == pytest.approx(whole.history.elbo, rel=1e-10)
    other = Problem(model, data[0] + 1, data[1])
    with pytest.raises(Exception, match="a checkpoint of another run: its problem is"):
        svi(other, guide, sharded="rows", objective=Elbo(2), **resume, **STEPS)
