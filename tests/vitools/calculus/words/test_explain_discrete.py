"""explain() gives functions of discrete latents their words back, and says what q keeps apart."""

import pyro
import pyro.distributions as dist
import torch

from vitools import Problem, cavi
from vitools.calculus.words.explain import explain


def test_functions_of_discrete_latents_are_written_as_the_model_does():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("n", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.ones(3)))
            b = pyro.sample("b", dist.Bernoulli(0.3))
            place = torch.where(z == 0, 3, 2 - z % 2)
            pyro.sample("x", dist.Normal(mu[place] + a * (2 * b - 1), 1.0), obs=x)

    lines = explain(Problem(model, torch.arange(4.0))).splitlines()
    z, a = (next(line for line in lines if line.startswith(name)) for name in ("z ", "mu, a "))
    assert "E[mu[where(z == 0, 3, 2 - z % 2)]]" in z
    assert "- q(b) · E[mu[where(z == 0, 3, 2 - z % 2)] · a] · (b * 2 - 1)" in z
    assert "P[a] = 1 + Σ_n q(b) · (b * 2 - 1)², P[mu, a] = Σ_n q(z) · q(b) · " in a
    assert "h[a] = Σ_n q(b) · x · (b * 2 - 1)" in a


def chain(x):
    jump = pyro.sample("jump", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    z = 0
    for t in range(len(x)):
        z = pyro.sample(f"z{t}", dist.Categorical(jump[z]))
        pyro.sample(f"x{t}", dist.Normal(mu[z], 1.0), obs=x[t])


def test_the_states_of_a_chain_share_a_row_and_are_said_to_be_factorised():
    problem = Problem(chain, torch.arange(7.0).sin() * 3 + 0.1)
    lines = explain(problem).splitlines()
    (middle,) = (line for line in lines if line.startswith("z1 "))
    start = "z1 … z5 Categorical jump, z0 softmax(q(z0) · E[log jump[z0, z1]]"
    assert " ".join(middle.split()).startswith(start)
    (jump,) = (line for line in lines if line.startswith("jump"))
    assert jump.endswith("q(z0) · q(z1) + q(z1) · q(z2) + … + q(z5) · q(z6))")
    said = "q(z0) … q(z6) factorised, their dependence is lost"
    assert f"{said}; joint=[('z0', …, 'z6')] keeps it." in lines
    assert cavi(problem, max_sweeps=3).detail.endswith(said)


def test_the_states_of_a_longer_chain_are_one_factor():
    problem = Problem(chain, torch.arange(12.0).sin() * 3 + 0.1)
    lines = explain(problem).splitlines()
    (states,) = (line for line in lines if line.startswith("z "))
    assert " ".join(states.split()).startswith("z CategoricalMarkovChain")
    assert not any("factorised" in line for line in lines)
    fit = cavi(problem, max_sweeps=3)
    assert "factorised" not in fit.detail
    assert fit.marginal("z11").probs.shape == (2,)
