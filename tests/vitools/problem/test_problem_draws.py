"""Draws: exact conditionals of discrete latents, prior, replicated data, seeds and global state."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td

from vitools.errors import NumericalError, OptionError
from vitools.problem import Problem
from vitools.problem.density.vectorise import DrawMapper


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_frequencies(drawn, probabilities, num_se=4.5):
    """Draws ``[n, …]`` of 0, 1, … against probabilities ``[…, K]``, within Monte Carlo error."""
    found = torch.nn.functional.one_hot(drawn.long(), probabilities.shape[-1]).double().mean(0)
    error = (probabilities * (1 - probabilities) / drawn.shape[0]).sqrt()
    assert bool(((found - probabilities).abs() <= num_se * error + 1e-12).all())


def chain(y):
    """Two switches and a plate of rows that depend on one of them."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    a = pyro.sample("a", dist.Bernoulli(0.4))
    b = pyro.sample(
        "b", dist.Categorical(torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])[a.long()])
    )
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Bernoulli(0.2 + 0.3 * b))
        pyro.sample("y", dist.Normal(mu + 1.5 * z, 1.0), obs=y)


def chain_table(mu, y):
    """p(a, b, z | mu, y) by listing every case: ``[2, 3, 2, …, 2]``."""
    cases = []
    for a, b, *z in itertools.product((0, 1), (0, 1, 2), *[(0, 1)] * len(y)):
        log_p = math.log(0.4 if a else 0.6)
        log_p += math.log([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]][a][b])
        for zn, yn in zip(z, y.tolist(), strict=True):
            p = 0.2 + 0.3 * b
            log_p += math.log(p if zn else 1 - p) - 0.5 * (yn - mu - 1.5 * zn) ** 2
        cases.append(log_p)
    return torch.tensor(cases).softmax(0).reshape((2, 3, *[2] * len(y)))


def test_discrete_draws_have_the_exact_joint_distribution():
    y = torch.tensor([0.3, 2.0])
    problem = Problem(chain, y)
    n = 20_000
    drawn = problem.sample_discrete({"mu": torch.full((n,), 0.2)}, seed=1)
    assert {k: tuple(v.shape) for k, v in drawn.items()} == {"a": (n,), "b": (n,), "z": (n, 2)}
    table = chain_table(0.2, y)
    code = ((drawn["a"] * 3 + drawn["b"]) * 2 + drawn["z"][:, 0]) * 2 + drawn["z"][:, 1]
    assert_frequencies(code, table.flatten())


def test_discrete_marginals_are_those_of_the_listed_cases():
    y = torch.tensor([0.3, 2.0, -1.0])
    problem = Problem(chain, y)
    mu = torch.tensor([[0.2], [-1.0]])
    marginals = problem.discrete_marginals({"mu": mu})
    for i in range(2):
        table = chain_table(float(mu[i]), y)
        torch.testing.assert_close(marginals["a"][i, 0], table.sum((1, 2, 3, 4)))
        torch.testing.assert_close(marginals["b"][i, 0], table.sum((0, 2, 3, 4)))
        for row in range(3):
            others = [d for d in range(5) if d != row + 2]
            torch.testing.assert_close(marginals["z"][i, 0, row], table.sum(others))
    # given a, the rest are conditional on it
    given = problem.discrete_marginals({"mu": mu[0], "a": torch.ones(1)})
    table = chain_table(0.2, y)[1]
    torch.testing.assert_close(given["b"][0], table.sum((1, 2, 3)) / table.sum())
    assert "a" not in given


def test_discrete_draws_keep_what_is_given():
    y = torch.tensor([0.3, 2.0])
    problem = Problem(chain, y)
    n = 8000
    a = torch.ones(n)
    drawn = problem.sample_discrete({"mu": torch.full((n,), 0.2), "a": a})
    assert torch.equal(drawn["a"], a)
    table = chain_table(0.2, y)[1]
    assert_frequencies(drawn["b"], table.sum((1, 2)) / table.sum())


def test_hidden_markov_states_are_drawn_from_their_joint_posterior():
    transition = torch.tensor([[0.8, 0.2], [0.3, 0.7]])
    y = torch.tensor([0.5, 1.5, 0.9])

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        z = 0
        for t in pyro.markov(range(3)):
            z = pyro.sample(f"z_{t}", dist.Categorical(transition[z]))
            pyro.sample(f"y_{t}", dist.Normal(mu + z, 0.5), obs=y[t])

    n = 20_000
    drawn = Problem(model, y).sample_discrete({"mu": torch.full((n,), 0.3)}, seed=2)
    cases = []
    for path in itertools.product((0, 1), repeat=3):
        log_p, state = 0.0, 0
        for t, new in enumerate(path):
            log_p += float(transition[state, new].log())
            log_p += float(td.Normal(0.3 + new, 0.5).log_prob(y[t]))
            state = new
        cases.append(log_p)
    code = drawn["z_0"] * 4 + drawn["z_1"] * 2 + drawn["z_2"]
    assert_frequencies(code, torch.tensor(cases).softmax(0))


def test_one_hot_and_binomial_draws():
    y = torch.tensor([0.1, 2.2])

    def model(y):
        s = pyro.sample("s", dist.LogNormal(0.0, 1.0))
        with pyro.plate("rows", 2, dim=-2):
            z = pyro.sample("z", dist.OneHotCategorical(torch.tensor([0.2, 0.5, 0.3])))
            count = pyro.sample("count", dist.Binomial(2, 0.4))
            mean = (z * torch.arange(3.0)).sum(-1) + count
            pyro.sample("y", dist.Normal(mean, s), obs=y[:, None])

    problem = Problem(model, y)
    n = 20_000
    drawn = problem.sample_discrete({"s": torch.full((n,), 0.8)})
    assert drawn["z"].shape == (n, 2, 1, 3)
    assert torch.equal(drawn["z"].sum(-1), torch.ones(n, 2, 1))
    marginals = problem.discrete_marginals({"s": torch.tensor(0.8)})
    z, count = torch.arange(3.0)[:, None], torch.arange(3.0)
    for row in range(2):
        table = torch.tensor([0.2, 0.5, 0.3]).log()[:, None]
        table = table + td.Binomial(2, torch.tensor(0.4)).log_prob(count)
        table = table + td.Normal(z + count, 0.8).log_prob(y[row])
        table = table.flatten().softmax(0)
        torch.testing.assert_close(marginals["z"][row, 0], table.reshape(3, 3).sum(1))
        torch.testing.assert_close(marginals["count"][row, 0], table.reshape(3, 3).sum(0))
        code = drawn["z"][:, row, 0].argmax(-1) * 3 + drawn["count"][:, row, 0]
        assert_frequencies(code, table)


def test_impossible_data_have_no_discrete_posterior():
    def model():
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Uniform(0.0, mu.exp() + z), obs=torch.tensor(5.0))

    with pytest.raises(NumericalError, match=r"site 'z': its probabilities .* are NaN"):
        Problem(model).sample_discrete({"mu": torch.ones(3)})


# ---- prior and predictive ------------------------------------------------------------------------


def linear(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), torch.tensor([1.0, 2.0])).to_event(1))
    s = pyro.sample("s", dist.Gamma(3.0, 2.0))
    mean = pyro.deterministic("mean", x @ w)
    with pyro.plate("rows", len(x)):
        outlier = pyro.sample("outlier", dist.Bernoulli(0.1))
        pyro.sample("y", dist.Normal(mean, s + 5 * outlier), obs=y)


X, Y = randn(4, 2, seed=5).double(), randn(4, seed=6).double()


def assert_mean(terms, expected, num_se=4.5):
    """The mean of ``[n, …]`` against its expectation, within Monte Carlo error."""
    error = terms.std(0) / math.sqrt(len(terms))
    assert bool(((terms.mean(0) - expected).abs() <= num_se * error).all())


def test_prior_has_the_moments_of_its_distributions():
    prior = Problem(linear, X, Y).prior(20_000, seed=3)
    assert {k: tuple(v.shape[1:]) for k, v in prior.items()} == {
        "w": (2,),
        "s": (),
        "outlier": (4,),
    }
    assert_mean(prior["w"], torch.zeros(2))
    assert_mean(prior["w"] ** 2, torch.tensor([1.0, 4.0]))
    assert_mean(prior["s"], torch.tensor(1.5))
    assert_mean(prior["s"] ** 2, torch.tensor(3.0))
    assert_mean(prior["outlier"], torch.full((4,), 0.1))


def test_predictive_has_the_moments_given_the_values():
    problem = Problem(linear, X, Y)
    n = 20_000
    w = torch.tensor([0.7, -0.3])
    replicated = problem.predictive({"w": w.expand(n, 2), "s": torch.full((n,), 0.5)}, seed=4)
    assert set(replicated) == {"y", "mean"}
    torch.testing.assert_close(replicated["mean"], (X @ w).expand(n, 4))
    assert_mean(replicated["y"], X @ w)
    # a replicated row has its own outlier switch, drawn from its prior
    assert_mean((replicated["y"] - X @ w) ** 2, torch.tensor(0.9 * 0.25 + 0.1 * 5.5**2))
    held = {"w": w.expand(n, 2), "s": torch.full((n,), 0.5), "outlier": torch.ones(n, 4)}
    replicated = problem.predictive(held, seed=4)
    assert_mean((replicated["y"] - X @ w) ** 2, torch.tensor(5.5**2))


def test_partly_observed_rows_are_filled_in():
    seen = torch.tensor([True, False, True, True])

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 4):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y, obs_mask=seen)

    problem = Problem(model, torch.where(seen, Y, torch.nan))
    n = 8000
    values = {"mu": torch.full((n,), 0.4), "y_unobserved": torch.full((n, 4), 9.0)}
    replicated = problem.predictive(values, seed=1)
    assert set(replicated) == {"y_observed", "y"}
    assert torch.equal(replicated["y"][:, 1], torch.full((n,), 9.0))
    assert_mean(replicated["y"][:, seen], torch.full((3,), 0.4))
    assert set(problem.prior(2)) == {"mu", "y_unobserved"}


def test_predictive_keeps_sample_dims():
    problem = Problem(linear, X, Y)
    replicated = problem.predictive({"w": randn(3, 5, 2), "s": torch.ones(5)})
    assert {k: tuple(v.shape) for k, v in replicated.items()} == {"y": (3, 5, 4), "mean": (3, 5, 4)}
    assert problem.predictive({"w": randn(2), "s": torch.tensor(1.0)})["y"].shape == (4,)


def branching(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    scale = 1.0 if mu > 0 else 2.0
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, scale), obs=y)


@pytest.mark.parametrize(("model", "data"), [(linear, (X, Y)), (branching, (Y,))])
def test_seeds_repeat_and_differ(model, data):
    """Also where vmap gives up half way, which must not use up the seed's randomness."""
    problem = Problem(model, *data)
    first, again, other = (problem.prior(6, seed=s) for s in (1, 1, 2))
    for name in first:
        assert torch.equal(first[name], again[name])
    assert not torch.equal(
        first["w" if "w" in first else "mu"], other["w" if "w" in first else "mu"]
    )
    replicated = [problem.predictive(first, seed=s)["y"] for s in (1, 1, 2)]
    assert torch.equal(replicated[0], replicated[1])
    assert not torch.equal(replicated[0], replicated[2])
    fresh = Problem(model, *data)
    assert all(torch.equal(fresh.prior(6, seed=1)[name], first[name]) for name in first)


def test_a_seeds_draws_do_not_depend_on_earlier_calls():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.VonMises(mu, 1.0), obs=y)  # cannot be drawn under vmap

    problem = Problem(model, Y)
    values = {"mu": randn(3)}
    replicated = problem.predictive(values, seed=1)["y"]
    prior = problem.prior(5, seed=1)["mu"]
    problem.log_joint(values)
    assert torch.equal(problem.predictive(values, seed=1)["y"], replicated)
    assert torch.equal(Problem(model, Y).prior(5, seed=1)["mu"], prior)


def test_draws_within_a_call_differ():
    prior = Problem(branching, Y).prior(50)
    assert len(prior["mu"].unique()) == 50


def test_discrete_draws_repeat():
    problem = Problem(chain, Y)
    values = {"mu": randn(30)}
    first, again, other = (problem.sample_discrete(values, seed=s)["z"] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_global_generator_and_store_are_left_alone():
    def model(y):
        scale = pyro.param("scale", torch.tensor(1.0))
        mu = pyro.sample("mu", dist.Normal(0.0, scale))
        noise = torch.randn(())  # a model may use the generator as it likes
        with pyro.plate("rows", 4):
            pyro.sample("y", dist.Normal(mu, 1.0 + 0 * noise), obs=y)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        kept = pyro.param("kept", torch.tensor(2.0))
        state = torch.get_rng_state()
        problem = Problem(model, Y)
        prior = problem.prior(3)
        with pytest.warns(UserWarning, match="cannot be vectorised"):
            problem.log_joint(prior)
        problem.predictive(prior)
        problem.pointwise_log_likelihood(prior)
        assert torch.equal(torch.get_rng_state(), state)
        assert list(pyro.get_param_store().keys()) == ["kept"]
        assert pyro.param("kept") is kept or torch.equal(pyro.param("kept"), kept)
        pyro.clear_param_store()


def test_outer_handlers_see_nothing():
    with pyro.poutine.trace() as seen, pyro.plate("outer", 5):
        problem = Problem(linear, X, Y)
        problem.log_joint(problem.prior(2))
    assert [k for k in seen.trace.nodes if k not in ("_INPUT", "_RETURN", "outer")] == []


def test_torch_validation_flag_is_restored_even_where_it_differs_from_pyros():
    flag = torch.distributions.Distribution
    before = flag._validate_args
    try:
        flag.set_default_validate_args(False)
        Problem(linear, X, Y).prior(2)
        assert flag._validate_args is False
    finally:
        flag.set_default_validate_args(before)


@pytest.mark.parametrize("count", [0, -1, 2.5])
def test_impossible_counts_are_refused(count):
    with pytest.raises(OptionError, match="expected a positive number of draws, got"):
        Problem(linear, X, Y).prior(count)


def test_many_draws_of_the_prior_keep_no_data(monkeypatch):
    """The data drawn with 10 000 draws of one latent would be 10 000 times as large as it."""
    kept = {}

    def model(x):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(level, 1.0), obs=x)

    def watched(self, function, draws, **options):
        found = mapped(self, function, draws, **options)
        kept.update(found)
        return found

    problem = Problem(model, torch.zeros(50))
    mapped = DrawMapper.__call__
    monkeypatch.setattr(DrawMapper, "__call__", watched)
    assert set(problem.prior(20)) == {"level"}
    assert set(kept) == {"level"}
    assert set(problem.predictive(problem.prior(20))) == {"x"}
