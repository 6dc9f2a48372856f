"""Parameters of a model under engines that do not train them: held, said, and told apart."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi, compare, exact, nuts, svi
from vitools.calculus import explain
from vitools.engines.dadvi import dadvi
from vitools.engines.laplace import laplace
from vitools.errors import NotSupportedError, VitoolsWarning
from vitools.guides import AutoMeanField

Y = torch.tensor([3.0, 4.0, 5.0, 4.5]).double()


def shifted(y):
    shift = pyro.param("shift", torch.tensor(0.0).double())
    x = pyro.sample("x", dist.Normal(shift, torch.tensor(0.5).double()))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x, 1.0), obs=y)


class Shifted(pyro.nn.PyroModule):
    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor(0.0).double())

    def forward(self, y):
        x = pyro.sample("x", dist.Normal(self.shift, torch.tensor(0.5).double()))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(x, 1.0), obs=y)


class Networked:
    def __init__(self):
        with torch.random.fork_rng(devices=[]):
            self.network = torch.nn.Linear(1, 1).double()

    def __call__(self, y):
        pyro.module("network", self.network)
        mean = self.network(torch.ones(1).double())[0]
        x = pyro.sample("x", dist.Normal(mean, torch.tensor(0.5).double()))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(x, 1.0), obs=y)


MODELS = {
    "param": (lambda: shifted, "shift"),
    "PyroModule": (Shifted, "shift"),
    "pyro.module": (Networked, "network$$$weight, network$$$bias"),
}
ENGINES = {
    "exact": exact,
    "nuts": lambda problem: nuts(
        problem, num_samples=10, num_warmup=5, num_chains=1, sampler="pyro", compile=False
    ),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", MODELS)
def test_they_are_held_with_a_warning_and_silently_where_they_were_given(kind, engine):
    make, names = MODELS[kind]
    problem = Problem(make(), Y)
    with pytest.warns(VitoolsWarning, match=rf"{engine}\(\) does not fit but holds") as said:
        fit = ENGINES[engine](problem)
    assert [w.filename for w in said] == [__file__]
    assert names in str(said[0].message)
    assert f"parameters held at their initial values: {names}" in fit.detail
    given = problem.with_params(problem.params)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert f"held at the values given: {names}" in ENGINES[engine](given).detail
    assert f"parameters held at the values they have: {names}; cavi() and svi() train" in explain(
        problem
    )


def test_a_model_without_parameters_is_spoken_of_as_ever():
    def model(y):
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(x, 1.0), obs=y)

    problem = Problem(model, Y)
    assert "held" not in cavi(problem).detail + exact(problem).detail + explain(problem)


def test_svi_trains_them_and_other_engines_take_its_problem():
    """The evidence is N(ȳ; shift, …): shift → mean(y), at which E[x | y] = mean(y) as well."""
    problem = Problem(shifted, Y)
    trained = svi(problem, AutoMeanField, compile=False, max_steps=3000)
    shift = float(trained.problem.params["params"]["shift"].detach())
    assert abs(shift - float(Y.mean())) < 0.1
    for engine in (dadvi, laplace):
        with pytest.raises(
            NotSupportedError, match=r"parameters of its own \(shift\).*with_params"
        ):
            engine(problem)
        fit = engine(trained.problem)
        assert "parameters held at the values given: shift" in fit.detail
    fit = cavi(trained.problem)
    assert abs(float(fit.mean()["x"]) - (4 * shift + 4 * float(Y.mean())) / 8) < 1e-6
    assert "different models" not in str(compare({"svi": trained, "cavi": fit}, num_samples=100))
    held = cavi(problem.with_params(problem.params))
    said = " ".join(str(compare({"svi": trained, "cavi": held}, num_samples=100)).split())
    assert (
        "different models: the parameters shift have other values in svi (fitted or given); "
        in said
    )
    assert "cavi (fitted or given); bounds, moments and verdicts compare those models" in said
