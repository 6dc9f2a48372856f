"""A problem whose model has ``pyro.param`` statements or modules of its own."""

import math

import pyro
import pyro.distributions as dist
import torch
from density_checks import assert_close, randn
from torch import distributions as td

from vitools.problem import Problem


def test_models_with_parameters():
    class Regression(pyro.nn.PyroModule):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(2, 1)
            self.noise = pyro.nn.PyroParam(torch.tensor(0.5), td.constraints.positive)

        def forward(self, x, y):
            shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
            mean = self.linear(x)[..., 0] + shift
            with pyro.plate("rows", len(x)):
                pyro.sample("y", dist.Normal(mean, self.noise), obs=y)

    with torch.random.fork_rng(devices=[]):
        model = Regression()
    x, y, shift = randn(6, 2), randn(6, seed=1), randn(3, seed=2)
    problem = Problem(model, x, y)

    def expected(weight, bias, noise):
        mean = x @ weight[0] + bias + shift[:, None]
        likelihood = td.Normal(mean, noise).log_prob(y).sum(1)
        return td.Normal(0.0, 1.0).log_prob(shift) + likelihood

    weight, bias = model.linear.weight.detach().clone(), model.linear.bias.detach().clone()
    assert_close(problem.log_joint({"shift": shift}).detach(), expected(weight, bias, 0.5))
    # the module trained later does not move the problem, nor the problem's parameters the module
    with torch.no_grad():
        model.linear.weight.add_(1.0)
    assert_close(problem.log_joint({"shift": shift}).detach(), expected(weight, bias, 0.5))
    params = {k: torch.nn.Parameter(v + 0.3) for k, v in problem.params["params"].items()}
    other = problem.with_params({**problem.params, "params": params})
    assert_close(
        other.log_joint({"shift": shift}).detach(),
        expected(weight + 0.3, bias + 0.3, 0.5 * math.exp(0.3)),
    )
    assert_close(model.linear.weight.detach(), weight + 1.0)
    assert_close(problem.log_joint({"shift": shift}).detach(), expected(weight, bias, 0.5))


def test_pyro_module_statements_use_the_problems_parameters():
    with torch.random.fork_rng(devices=[]):
        network = torch.nn.Linear(1, 1)

    def model(x, y):
        pyro.module("network", network)
        s = pyro.sample("s", dist.LogNormal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(network(x)[..., 0], s), obs=y)

    x, y = randn(4, 1), randn(4, seed=1)
    problem = Problem(model, x, y)
    mean = network(x)[:, 0].detach()
    with torch.no_grad():
        network.weight.add_(5.0)
    expected = td.LogNormal(0.0, 1.0).log_prob(torch.tensor(0.7))
    expected = expected + td.Normal(mean, 0.7).log_prob(y).sum()
    assert_close(problem.log_joint({"s": torch.tensor(0.7)}).detach(), expected)
