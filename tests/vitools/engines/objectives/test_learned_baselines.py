"""Baselines that a guide brings as networks: gradients against enumeration, variance, refusals."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_checks import estimates, exact_gradient, log_normal, python_step
from torch import Tensor, nn

from vitools import Problem, svi
from vitools.engines.objectives import ScoreFunction
from vitools.errors import NotSupportedError, OptionError
from vitools.isolation import isolated, seeded

X = torch.tensor([[-1.0], [0.3], [2.0]], dtype=torch.float64)
LOGITS = torch.tensor([0.4, -0.3, 0.2], dtype=torch.float64)
SLOPE, START = 0.7, -2.5
FAR = 40.0  # of every signal from 0


def model(x: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.3).double()))
        pyro.factor("far", torch.full((len(x),), -FAR).double())
        pyro.sample("x", dist.Normal(z + 0.5, 1.0), obs=x[:, 0])


def line() -> nn.Linear:
    with seeded(0), torch.no_grad():
        network = nn.Linear(1, 1).double()
        network.weight.fill_(SLOPE)
        network.bias.fill_(START)
    return network


class OfTuple(nn.Module):
    """A line that is given the guide's own parameters beside the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.line = line()

    def forward(self, given: tuple[Tensor, Tensor]) -> Tensor:
        x, logits = given
        return self.line(x) + 0.5 * logits.unsqueeze(-1)


def guide_with(network: nn.Module | None, **said: object):
    def guide(x: Tensor) -> None:
        infer = dict(said)
        if network is not None:
            pyro.module("network", network)
            infer |= {"nn_baseline": network, "baseline_input": x}
        with pyro.plate("rows", len(x)):
            logits = pyro.param("logits", LOGITS)
            pyro.sample("z", dist.Bernoulli(logits=logits), infer={"baseline": infer})

    return guide


def test_a_network_does_not_teach_what_it_is_given() -> None:
    network = OfTuple()

    def guide(x: Tensor) -> None:
        pyro.module("network", network)
        logits = pyro.param("logits", LOGITS)
        learnt = {"nn_baseline": network, "baseline_input": (x, logits)}
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=logits), infer={"baseline": learnt})

    found = estimates(ScoreFunction(1), Problem(model, X), guide, 4000)[1]["logits"]
    expected = exact_gradient(bound, logits=LOGITS)[1]["logits"]
    standard_error = found.std(0) / math.sqrt(len(found))
    assert bool(((found.mean(0) - expected).abs() < 4 * standard_error).all())


def signals(logits: Tensor) -> tuple[Tensor, Tensor]:
    """q(z) and log p(x, z) - log q(z) for z = 0, 1: ``[2, rows]`` each."""
    z = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    log_q = torch.where(z > 0, logits, -logits).sigmoid().log()
    log_prior = torch.where(z > 0, math.log(0.3), math.log(0.7))
    return log_q.exp(), log_prior + log_normal(X[:, 0], z + 0.5, 1.0) - FAR - log_q


def bound(logits: Tensor) -> Tensor:
    q, signal = signals(logits)
    return (q * signal).sum()


def error(slope: Tensor, intercept: Tensor) -> Tensor:
    """Minus the mean of Σ (f - b(x))²."""
    q, signal = signals(LOGITS)
    return -(q * (signal - (slope * X[:, 0] + intercept)) ** 2).sum()


@pytest.mark.parametrize(
    "spec", [ScoreFunction(1), ScoreFunction(1, "none"), ScoreFunction(3)], ids=repr
)
def test_gradients_of_guide_and_network_are_those_of_enumeration(spec: ScoreFunction) -> None:
    losses, found = estimates(spec, Problem(model, X), guide_with(line()), 4000)
    loss, of_guide = exact_gradient(bound, logits=LOGITS)
    _, of_network = exact_gradient(error, slope=SLOPE, intercept=START)
    expected = {
        "logits": of_guide["logits"],
        "network$$$weight": of_network["slope"].reshape(1, 1),
        "network$$$bias": of_network["intercept"].reshape(1),
    }
    assert set(found) == set(expected)
    pairs = [(losses, loss), *((found[name], expected[name]) for name in expected)]
    for draws, truth in pairs:
        standard_error = draws.std(0) / math.sqrt(len(draws))
        assert bool((standard_error > 0).all())
        assert bool(((draws.mean(0) - truth).abs() < 4 * standard_error).all())


def test_the_network_learns_the_signal_and_takes_the_noise_away() -> None:
    """40 nats from 0, a bare score is 40 times as noisy as its signal's own spread."""
    network = line()
    problem = Problem(model, X)
    fit = svi(problem, guide_with(network), num_particles=1, objective=ScoreFunction(1))
    learnt = fit.params["params"]
    with torch.no_grad():
        network.weight.copy_(learnt["network$$$weight"])
        network.bias.copy_(learnt["network$$$bias"])
    spreads = {}
    for name, guide in (("none", guide_with(None)), ("network", guide_with(network))):
        step, names, _ = python_step(ScoreFunction(1, "none"), problem, guide)
        where = names.index("logits")
        with seeded(1):
            spreads[name] = torch.stack([step()[1 + where] for _ in range(300)]).std(0)
    assert bool((spreads["network"] < spreads["none"] / 5).all())
    posterior = (log_normal(X[:, 0], 1.5, 1.0) - log_normal(X[:, 0], 0.5, 1.0)) + math.log(3 / 7)
    # logits of Bernoulli rows by Adam's averaged iterates, which gradients of ±1 or 2 shake
    torch.testing.assert_close(learnt["logits"], posterior, atol=0.15, rtol=0.0)


def test_without_a_network_nothing_is_predicted() -> None:
    objective = python_step(ScoreFunction(1), Problem(model, X), guide_with(None))[2]
    assert not objective.is_recordable  # a running mean, as ever
    objective = python_step(ScoreFunction(1), Problem(model, X), guide_with(line()))[2]
    assert objective.is_recordable


def test_refuses_what_it_cannot_do() -> None:
    problem = Problem(model, X)
    with seeded(0), isolated():
        with pytest.raises(NotSupportedError, match=r"site 'z'.*use_decaying_avg_baseline"):
            ScoreFunction(1)(problem, guide_with(None, use_decaying_avg_baseline=True))
        objective = ScoreFunction(1)(problem, guide_with(nn.Linear(1, 2).double()))
        with pytest.raises(OptionError, match=r"nn_baseline gives numbers of shape \(3, 2\)"):
            objective.loss()
