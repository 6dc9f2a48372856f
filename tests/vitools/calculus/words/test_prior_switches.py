"""A discrete latent that selects another latent's prior, kept apart from it by q: said aloud."""

import itertools
import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td

from vitools import Problem, cavi
from vitools.calculus import explain
from vitools.errors import VitoolsWarning

COINS = torch.tensor([0.5, 0.5])
PRECISIONS = torch.tensor([400.0, 0.25]).double()


def _data(n=12):
    return torch.sin(torch.arange(1.0, n + 1) * 2.3).double() * 2


def spike_and_slab(x, y):
    with pyro.plate("columns", x.shape[1]):
        z = pyro.sample("z", dist.Bernoulli(0.5))
        w = pyro.sample("w", dist.Normal(0.0, PRECISIONS[z.long()].rsqrt()))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def gate_by_where(y):
    on = pyro.sample("on", dist.Categorical(COINS))
    effect = pyro.sample("effect", dist.Normal(0.0, torch.where(on == 1, 3.0, 0.05)))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(effect, 1.0), obs=y)


def gate_by_arithmetic(y):
    g = pyro.sample("g", dist.Bernoulli(0.3))
    b = pyro.sample("b", dist.Normal(4 * g, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(b, 1.0), obs=y)


def noisy_clusters(y):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    tau = pyro.sample("tau", dist.Gamma(torch.ones(2), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        c = pyro.sample("c", dist.Categorical(COINS))
        t = pyro.sample("t", dist.Normal(mu[c], tau[c].rsqrt()))
        pyro.sample("y", dist.Normal(t, 0.5), obs=y)


def switching_rates(y):
    k = pyro.sample("k", dist.Categorical(COINS))
    rate = pyro.sample("rate", dist.Gamma(2.0, torch.tensor([2.0, 0.1])[k]))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y.abs().round())


def switching_walk(y):
    x = torch.zeros(())
    for i in range(len(y)):
        s = pyro.sample(f"s{i}", dist.Categorical(COINS))
        x = pyro.sample(f"x{i}", dist.Normal(torch.tensor([0.9, -0.9])[s] * x, 1.0))
        pyro.sample(f"y{i}", dist.Normal(x, 0.5), obs=y[i])


def mixture(y):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    tau = pyro.sample("tau", dist.Gamma(torch.ones(2), 1.0).to_event(1))
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("y", dist.Normal(mu[z], tau[z].rsqrt()), obs=y)


def mixture_of_a_hierarchy(y):
    top = pyro.sample("top", dist.Normal(0.0, 3.0))
    scale = pyro.sample("scale", dist.Gamma(1.0, 1.0))
    with pyro.plate("parts", 3):
        mu = pyro.sample("mu", dist.Normal(top, scale.rsqrt()))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(torch.ones(3) / 3))
        pyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)


def mixture_of_factors(y):
    load = pyro.sample("load", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(COINS))
        t = pyro.sample("t", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(load[z] * t, 1.0), obs=y)


def hidden_markov(y):
    jump = pyro.sample("jump", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    z = 0
    for i in range(len(y)):
        z = pyro.sample(f"z{i}", dist.Categorical(jump[z]))
        pyro.sample(f"y{i}", dist.Normal(mu[z], 1.0), obs=y[i])


def fixed_groups(y):
    """Data, no latent, select the prior."""
    group = torch.arange(len(y)) % 2
    with pyro.plate("rows", len(y)):
        t = pyro.sample("t", dist.Normal(0.0, PRECISIONS[group].rsqrt()))
        pyro.sample("y", dist.Normal(t, 1.0), obs=y)


DESIGN = torch.cos(torch.arange(48.0).reshape(12, 4) * 1.7 + 0.4).double()
NOTICED = {
    "spike_and_slab": (
        spike_and_slab,
        (DESIGN, _data()),
        "q(z) · q(w)",
        "z selects the prior of w",
    ),
    "where": (gate_by_where, (_data(),), "q(on) · q(effect)", "on selects the prior of effect"),
    "arithmetic": (gate_by_arithmetic, (_data(),), "q(g) · q(b)", "g selects the prior of b"),
    "latent_rows": (noisy_clusters, (_data(),), "q(c) · q(t)", "c selects the prior of t"),
    "gamma": (switching_rates, (_data(),), "q(k) · q(rate)", "k selects the prior of rate"),
    "walk": (
        switching_walk,
        (_data(4),),
        "q(s1) … q(x3)",
        "s1, s2, s3 select the priors of x1, x2, x3",
    ),
}


def equal_cases(y):
    """The cases of z differ in nothing."""
    z = pyro.sample("z", dist.Bernoulli(0.5))
    w = pyro.sample("w", dist.Normal(0.0, torch.tensor([2.0, 2.0])[z.long()]))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(w, 1.0), obs=y)


UNNOTICED = [
    equal_cases,
    mixture,
    mixture_of_a_hierarchy,
    mixture_of_factors,
    hidden_markov,
    fixed_groups,
]


SHARED = ["spike_and_slab", "where", "arithmetic", "latent_rows"]
"""Those that share a factor with what they select, unless told otherwise."""


@pytest.mark.parametrize("name", NOTICED)
def test_a_latent_that_selects_a_prior_is_noticed(name):
    model, args, factors, words = NOTICED[name]
    problem = Problem(model, *args)
    with pytest.warns(VitoolsWarning, match="svi\\(\\) and nuts\\(\\) sum .* out exactly") as said:
        fit = cavi(problem, joint=(), max_sweeps=3)
    assert [w.filename for w in said] == [__file__]
    texts = [str(said[0].message), fit.detail]
    if name not in SHARED:
        texts.append(explain(problem))
        assert "restarts=" in explain(problem)
    for text in texts:
        assert f"{factors} factorised though {words}: the bound can be many nats low" in text


@pytest.mark.parametrize("name", SHARED)
def test_by_default_it_shares_a_factor_with_a_normal_that_it_selects(name):
    model, args, _, _ = NOTICED[name]
    problem = Problem(model, *args)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = cavi(problem)
        text = explain(problem)
    assert "nats low" not in fit.detail + text
    assert "Normal in each case" in text
    with warnings.catch_warnings(action="ignore", category=VitoolsWarning):
        assert fit.bound > cavi(problem, joint=()).bound + 1e-4


@pytest.mark.parametrize("model", UNNOTICED)
def test_a_latent_that_selects_what_made_the_data_is_not(model):
    problem = Problem(model, _data())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = cavi(problem, max_sweeps=3)
    assert "nats low" not in fit.detail + explain(problem)


def _log_joint_of_gates(x, y):
    """log p(y, z) of every z, w integrated out: {z: number}."""
    eye = torch.eye(len(y)).double()
    found = {}
    for gates in itertools.product((0, 1), repeat=x.shape[1]):
        covariance = eye + (x / PRECISIONS[list(gates)]) @ x.T
        marginal = td.MultivariateNormal(torch.zeros(len(y)).double(), covariance)
        found[gates] = float(marginal.log_prob(y)) + x.shape[1] * math.log(0.5)
    return found


@pytest.mark.filterwarnings("ignore:.*nats low:UserWarning")
def test_starts_reach_other_gates_and_the_best_of_them():
    w = torch.tensor([1.2, 0.0, -0.8, 0.5]).double()
    y = DESIGN @ w + torch.sin(torch.arange(12.0) * 5.1).double()
    exact = _log_joint_of_gates(DESIGN, y)
    evidence = float(torch.tensor(list(exact.values())).logsumexp(0))
    fit = cavi(Problem(spike_and_slab, DESIGN, y), joint=(), restarts=60)
    assert max(fit.restart_bounds) <= evidence
    # q(z) sure of one z and q(w) = p(w | z, y) have the bound log p(y, z)
    assert fit.bound >= max(exact.values()) - 1e-6
    assert min(fit.restart_bounds) < fit.bound - 9
    assert len({round(bound, 1) for bound in fit.restart_bounds}) > 5
    likely = max(exact, key=exact.get)
    assert fit.marginal("z").mean.round().tolist() == list(likely)
