"""Models that change their data, or draw outside of sample statements: what is refused, what not."""

import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from vitools import Problem, cavi, dadvi, exact, laplace, nuts, svi
from vitools.errors import ModelError, NotSupportedError
from vitools.guides import AutoMeanField
from vitools.problem.bound_model import BoundModel

ZERO = torch.zeros((), dtype=torch.float64)
OUTSIDE = torch.zeros(3, dtype=torch.float64)
GENERATOR = torch.Generator()


def rows(y, shift=0.0):
    mean = pyro.sample("mean", dist.Normal(ZERO, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mean + shift, 1.0), obs=torch.as_tensor(y))


def data():
    return torch.arange(4.0, dtype=torch.float64)


# ---- arguments ---------------------------------------------------------------------------------


def adds(y):
    y.add_(1.0)
    rows(y)


def writes_a_view(y):
    y[:2] = 0.0
    rows(y)


def writes_by_out(y):
    torch.add(y, 1.0, out=y)
    rows(y)


def adds_in_the_second_half(y):
    rows(y)
    y.view(2, 2)[1] += 1.0


def changes_what_it_holds(given):
    given["y"] = given["y"] + 1.0
    rows(given["y"])


def pops(given):
    rows(given.pop())


@pytest.mark.parametrize(
    ("model", "make"),
    [
        (adds, data),
        (writes_a_view, data),
        (writes_by_out, data),
        (adds_in_the_second_half, data),
        (adds_in_the_second_half, lambda: torch.arange(4.0).expand(1, 4)[0]),
        (changes_what_it_holds, lambda: {"y": data()}),
        (lambda given: adds(given["y"]), lambda: {"y": data()}),
        (lambda given: pops(given[0]), lambda: ([data(), data()],)),
        (lambda y: adds(torch.from_numpy(y)), lambda: data().numpy()),
        (lambda y: np.add(y, 1.0, out=y) is None or rows(y), lambda: data().numpy()),
    ],
)
def test_a_model_that_changes_its_argument_is_refused_and_the_argument_is_as_before(model, make):
    argument, expected = make(), make()
    with pytest.raises(ModelError, match=r"changes its argument '\w+' in place"):
        Problem(model, argument)
    leaves = torch.utils._pytree.tree_leaves
    for found, before in zip(leaves(argument), leaves(expected), strict=True):
        assert np.array_equal(np.asarray(found), np.asarray(before))


def test_the_line_is_named():
    with pytest.raises(ModelError, match=r"line \d+ of test_side_effects\.py: y\.add_\(1\.0\)"):
        Problem(adds, data())


def test_tensors_around_the_model_are_kept_as_well():
    def model(y):
        OUTSIDE.mul_(2.0)
        rows(y, OUTSIDE.sum())

    with pytest.raises(ModelError, match="'OUTSIDE', which it finds outside, in place"):
        Problem(model, data())


def test_a_large_model_is_refused_before_it_writes():
    y = torch.zeros(2**23)  # 32 MB: read from a dry run

    def model(y):
        y += 1.0
        rows(y + 1.0)

    with pytest.raises(ModelError, match="changes its argument 'y' in place"):
        Problem(model, y)
    assert not bool(y.any())


def test_what_the_model_makes_itself_it_may_change():
    def model(given):
        y = given["y"].clone()
        y += 1.0
        given.setdefault("total", y.sum())
        rows(y)

    problem = Problem(model, {"y": data()})
    assert torch.equal(problem.observed["y"].value, data() + 1.0)


def test_running_statistics_of_a_module_may_move():
    norm = nn.BatchNorm1d(1, dtype=torch.float64)

    def model(y):
        rows(y, norm(y[:, None])[:, 0])

    Problem(model, data())


# ---- draws -------------------------------------------------------------------------------------


def draws_a_shift(y):
    rows(y, torch.randn(()))


def fills_a_shift(y):
    rows(y, torch.empty(2).uniform_()[0])


def draws_by_a_generator(y):
    rows(y, torch.randn((), generator=GENERATOR))


def hides_a_site(y):
    with pyro.poutine.block():
        shift = pyro.sample("shift", dist.Normal(ZERO, 1.0))
    rows(y, shift)


def draws_a_delta(y):
    rows(y, pyro.sample("shift", dist.Delta(torch.randn(()))))


def draws_by_numpy(y):
    rows(y, np.random.normal())  # noqa: NPY002


def draws_by_python(y):
    rows(y, random.gauss(0.0, 1.0))


class DrawsInForward(PyroModule):
    def forward(self, y):
        rows(y, torch.randn(()))


@pytest.mark.parametrize(
    ("model", "where"),
    [
        (draws_a_shift, r"line \d+ of test_side_effects\.py: rows\(y, torch\.randn\(\(\)\)\)"),
        (fills_a_shift, r"line \d+ of .*uniform_"),
        (draws_by_a_generator, r"line \d+ of .*GENERATOR"),
        (hides_a_site, r"line \d+ of .*Normal"),
        (draws_a_delta, r"line \d+ of .*Delta"),
        (draws_by_numpy, "by numpy's global generator"),
        (draws_by_python, "by Python's module random"),
        (DrawsInForward(), r"line \d+ of .*randn"),
    ],
)
def test_draws_outside_of_statements_are_refused_by_line(model, where):
    with pytest.raises(ModelError, match=rf"outside of its sample statements \({where}.*site '"):
        Problem(model, data())


def chooses_rows(y):
    mean = pyro.sample("mean", dist.Normal(ZERO, 1.0))
    chosen = torch.randperm(len(y))[:2]
    with pyro.poutine.scale(scale=2.0), pyro.plate("rows", 2):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y[chosen])


def adds_noise(y):
    rows(y + torch.rand_like(y))


@pytest.mark.parametrize("model", [chooses_rows, adds_noise])
def test_data_drawn_anew_are_for_svi_alone(model):
    problem = Problem(model, data())
    for engine in (cavi, laplace, dadvi, exact, nuts):
        with pytest.raises(
            NotSupportedError, match=rf"observations 'y' anew.*line \d+.*but {engine.__name__}\(\)"
        ):
            engine(problem)
    assert svi(problem, AutoMeanField, max_steps=10, compile=False, start="guide").engine == "svi"


def starts_a_parameter(y):
    rows(y, pyro.param("shift", torch.randn(3)).sum())


def starts_a_network(y):
    network = pyro.module("network", nn.Linear(1, 1, dtype=torch.float64))
    rows(y, network(y[:, None])[:, 0])


def subsamples(y):
    mean = pyro.sample("mean", dist.Normal(ZERO, 1.0))
    with pyro.plate("rows", len(y), subsample_size=2) as chosen:
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y[chosen])


def seeds_its_features(y):
    weights = torch.randn(3, generator=torch.Generator().manual_seed(1))
    rows(y, weights.sum())


def draws_for_nothing(y):
    torch.randn(3)
    rows(y)


@pytest.mark.parametrize(
    "model",
    [starts_a_parameter, starts_a_network, subsamples, seeds_its_features, draws_for_nothing],
)
def test_draws_that_leave_the_density_alone_are_taken(model):
    Problem(model, data())


def test_a_model_without_draws_of_its_own_is_run_twice():
    runs = []

    def model(y):
        runs.append(len(y))
        rows(y)

    BoundModel(model, data())  # the densities of a Problem run it for themselves
    assert len(runs) == 2


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), PyroModule[nn.Dropout](0.5)])
def test_densities_and_exact_updates_are_without_dropout(layer):
    def model(y):
        rows(layer(y))

    problem = Problem(model, data())
    values = {"mean": torch.zeros(3, dtype=torch.float64)}
    torch.testing.assert_close(problem.log_joint(values), Problem(rows, data()).log_joint(values))
    torch.testing.assert_close(cavi(problem).mean()["mean"], ZERO + data().sum() / 5)
    assert layer.training


def test_svi_steps_with_dropout():
    layer, modes = nn.Dropout(0.5), []

    def model(y):
        modes.append(layer.training)
        mean = pyro.sample("mean", dist.Normal(ZERO, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(layer(mean.expand(len(y))), 1.0), obs=y)

    problem = Problem(model, data() + 1.0)
    modes.clear()
    fit = svi(problem, AutoMeanField, max_steps=10, compile=False, start="guide")
    assert any(modes)
    modes.clear()
    fit.log_weights(5)
    assert set(modes) == {False}
