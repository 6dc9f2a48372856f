"""Discrete latents summed out of the density, against formulas and Pyro's own evaluator."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from density_checks import assert_close, pyro_log_joint, rand, randn
from pyro.distributions.util import logsumexp
from torch import distributions as td

from vitools.errors import NotSupportedError
from vitools.problem import Problem


def mixture(y, components=3):
    pi = pyro.sample("pi", dist.Dirichlet(torch.ones(components)))
    with pyro.plate("components", components):
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(pi))
        pyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)


def test_mixture_summed_out_and_given():
    y = randn(6)
    problem = Problem(mixture, y)
    prior = problem.prior(5)
    pi, mu, z = prior["pi"], prior["mu"], prior["z"]
    globals_ = td.Dirichlet(torch.ones(3)).log_prob(pi) + td.Normal(0.0, 3.0).log_prob(mu).sum(1)
    terms = pi.log()[:, None] + td.Normal(mu[:, None], 1.0).log_prob(y[:, None])
    continuous = {"pi": pi, "mu": mu}
    assert_close(problem.log_joint(continuous), globals_ + terms.logsumexp(-1).sum(1))
    given = terms.gather(-1, z[..., None])[..., 0].sum(1)
    assert_close(problem.log_joint(prior), globals_ + given)
    assert_close(problem.pointwise_log_likelihood(continuous)["y"], terms.logsumexp(-1))
    looped = torch.stack(
        [pyro_log_joint(problem, {k: v[i] for k, v in continuous.items()}) for i in range(5)]
    )
    assert_close(problem.log_joint(continuous), looped)


def test_global_discrete_latent_couples_a_plate():
    y = randn(4)

    def model(y):
        s = pyro.sample("s", dist.LogNormal(0.0, 1.0))
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.2, 0.5, 0.3])))
        with pyro.plate("rows", 4):
            pyro.sample("y", dist.Normal(torch.tensor([-1.0, 0.0, 2.0])[z], s), obs=y)

    problem = Problem(model, y)
    s = rand(5) + 0.5
    means = torch.tensor([-1.0, 0.0, 2.0])
    likelihood = td.Normal(means[:, None], s[:, None, None]).log_prob(y).sum(-1)
    terms = torch.tensor([0.2, 0.5, 0.3]).log() + likelihood
    prior = td.LogNormal(0.0, 1.0).log_prob(s)
    assert_close(problem.log_joint({"s": s}), prior + terms.logsumexp(-1))
    # the rows share z, so they are one unit
    assert problem.unit_plates({"s": s}) == {"y": ()}
    assert_close(problem.pointwise_log_likelihood({"s": s})["y"], terms.logsumexp(-1))
    # given z, they are four
    z = torch.tensor([2, 1, 0, 0, 1])
    assert problem.unit_plates({"s": s, "z": z}) == {"y": ("rows",)}
    expected = td.Normal(means[z][:, None], s[:, None]).log_prob(y)
    assert_close(problem.pointwise_log_likelihood({"s": s, "z": z})["y"], expected)


def nested(x, counts):
    p = pyro.sample("p", dist.Beta(1.0, 2.0))
    with pyro.plate("rows", 3, dim=-2):
        a = pyro.sample("a", dist.Bernoulli(p))
        with pyro.plate("columns", 2, dim=-1):
            b = pyro.sample("b", dist.Binomial(2, 0.2 + 0.5 * a))
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)
        pyro.sample("counts", dist.Poisson(1.0 + a), obs=counts)


def test_nested_plates_and_units_that_share_a_latent():
    x, counts = randn(3, 2), torch.tensor([[0.0], [2.0], [5.0]])
    problem = Problem(nested, x, counts)
    p = rand(4) * 0.8 + 0.1
    rows = []
    for a in (0.0, 1.0):
        b = torch.arange(3.0)
        inner = td.Binomial(2, torch.tensor(0.2 + 0.5 * a)).log_prob(b)
        inner = inner + td.Normal(a + b, 1.0).log_prob(x[..., None])
        row = inner.logsumexp(-1).sum(-1) + td.Poisson(1.0 + a).log_prob(counts[:, 0])
        rows.append(td.Bernoulli(p).log_prob(torch.tensor(a))[:, None] + row)
    units = torch.stack(rows, -1).logsumexp(-1)
    values = {"p": p}
    expected = td.Beta(1.0, 2.0).log_prob(p) + units.sum(1)
    assert_close(problem.log_joint(values), expected)
    assert problem.unit_plates(values) == {"x+counts": ("rows",)}
    assert_close(problem.pointwise_log_likelihood(values)["x+counts"], units)
    # given a, the entries of x are units of their own, and so are the counts
    a = torch.tensor([[[1.0], [0.0], [1.0]]]).expand(4, 3, 1)
    given = problem.pointwise_log_likelihood({"p": p, "a": a})
    assert {k: v.shape[1:] for k, v in given.items()} == {"x": (3, 2), "counts": (3,)}
    looped = torch.stack([pyro_log_joint(problem, {"p": value}) for value in p])
    assert_close(problem.log_joint(values), looped)


def hmm(y):
    num_states = 3
    with pyro.plate("states", num_states):
        rows = pyro.sample("rows", dist.Dirichlet(torch.ones(num_states)))
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    z = 0
    for t in pyro.markov(range(len(y))):
        z = pyro.sample(f"z_{t}", dist.Categorical(rows[z]))
        pyro.sample(f"y_{t}", dist.Normal(mu[z], 1.0), obs=y[t])


def test_hidden_markov_model_is_the_forward_algorithm():
    y = randn(70)  # longer than the dims a tensor can have: pyro.markov reuses them
    problem = Problem(hmm, y)
    prior = problem.prior(3)
    rows, mu = prior["rows"], prior["mu"]
    emission = td.Normal(mu[:, None], 1.0).log_prob(y[:, None])
    message = rows.log()[:, 0] + emission[:, 0]
    for t in range(1, 70):
        message = logsumexp(message[:, :, None] + rows.log(), 1) + emission[:, t]
    expected = message.logsumexp(-1) + td.Normal(0.0, 2.0).log_prob(mu).sum(1)
    expected = expected + td.Dirichlet(torch.ones(3)).log_prob(rows).sum(1)
    assert_close(problem.log_joint({"rows": rows, "mu": mu}), expected)


def test_continuous_latent_given_a_discrete_one():
    y = randn(4)

    def model(y):
        s = pyro.sample("s", dist.LogNormal(0.0, 0.5))
        with pyro.plate("rows", 4):
            z = pyro.sample("z", dist.Bernoulli(0.3))
            x = pyro.sample("x", dist.Normal(3 * z, s))
            pyro.sample("y", dist.Normal(x, 1.0), obs=y)

    problem = Problem(model, y)
    s, x = rand(3) + 0.5, randn(3, 4, seed=1)
    terms = [
        math.log(w) + td.Normal(3.0 * z, s[:, None]).log_prob(x) for z, w in ((0, 0.7), (1, 0.3))
    ]
    expected = (
        td.LogNormal(0.0, 0.5).log_prob(s)
        + torch.stack(terms).logsumexp(0).sum(1)
        + td.Normal(x, 1.0).log_prob(y).sum(1)
    )
    assert_close(problem.log_joint({"s": s, "x": x}), expected)


def test_one_hot_and_single_valued_latents():
    y = randn(3)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", 3):
            z = pyro.sample("z", dist.OneHotCategorical(torch.tensor([0.4, 0.6])))
            pyro.sample("only", dist.Categorical(torch.ones(1)))
            pyro.sample("y", dist.Normal((z * mu).sum(-1), 1.0), obs=y)

    problem = Problem(model, y)
    mu = randn(5, 2, seed=1)
    terms = torch.tensor([0.4, 0.6]).log() + td.Normal(mu[:, None], 1.0).log_prob(y[:, None])
    expected = td.Normal(0.0, 1.0).log_prob(mu).sum(1) + terms.logsumexp(-1).sum(1)
    assert_close(problem.log_joint({"mu": mu}), expected)
    assert_close(problem.discrete_marginals({"mu": mu})["z"], terms.softmax(-1))
    assert_close(problem.discrete_marginals({"mu": mu})["only"], torch.ones(5, 3, 1))


def test_sequential_enumeration_in_the_model_is_still_summed():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "sequential"})
        pyro.sample("y", dist.Normal(mu + z, 1.0), obs=y)

    mu, y = randn(3), torch.tensor(0.4)
    terms = torch.stack(
        [math.log(w) + td.Normal(mu + z, 1.0).log_prob(y) for z, w in ((0, 0.7), (1, 0.3))]
    )
    expected = td.Normal(0.0, 1.0).log_prob(mu) + terms.logsumexp(0)
    assert_close(Problem(model, y).log_joint({"mu": mu}), expected)


def test_discrete_latents_alone():
    x = torch.tensor(1.0)

    def model(x):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.2, 0.8])))
        pyro.sample("x", dist.Bernoulli(torch.tensor([0.9, 0.3])[z]), obs=x)

    problem = Problem(model, x)
    assert_close(problem.log_joint({}).exp(), 0.2 * 0.9 + 0.8 * 0.3)
    assert_close(problem.discrete_marginals({})["z"], torch.tensor([0.18, 0.24]) / 0.42)
    assert problem.sample_discrete({}, num_samples=7)["z"].shape == (7,)
    assert problem.predictive({}, num_samples=7)["x"].shape == (7,)


def test_crossed_discrete_plates_cannot_be_summed():
    def model(x):
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        rows, columns = pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 2, dim=-1)
        with rows:
            a = pyro.sample("a", dist.Bernoulli(p))
        with columns:
            b = pyro.sample("b", dist.Bernoulli(p))
        with rows, columns:
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)

    problem = Problem(model, randn(3, 2))
    with pytest.raises(
        NotSupportedError, match="its discrete latents cannot be summed out exactly"
    ):
        problem.log_joint({"p": torch.tensor(0.3)})
    given = {"a": torch.ones(3, 1), "b": torch.zeros(2)}
    expected = 5 * math.log(0.3) + 0.0
    expected = 3 * math.log(0.3) + 2 * math.log(0.7)
    expected = expected + td.Normal(1.0, 1.0).log_prob(problem.observed["x"].value).sum()
    assert_close(problem.log_joint({"p": torch.tensor(0.3), **given}), expected)
