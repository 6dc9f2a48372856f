"""Discrete states over time as one factor: against the forward algorithm and enumeration."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugacy_checks import assert_never_falls, assert_updates_are_optimal, fitted
from hypothesis import given, settings
from hypothesis import strategies as st

from vitools import Problem, cavi, compare, explain, load, save
from vitools.distributions import CategoricalMarkovChain, GaussianMarkovChain
from vitools.errors import NotConjugateError

EXACT = {"rtol": 1e-10, "atol": 1e-10}
STAY = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
LEVEL = torch.tensor([-1.0, 1.5], dtype=torch.float64)


def forward(initial, later, likelihood):
    """log Σ_z p(z) ∏_t likelihood[t, z_t] (Rabiner 1989)."""
    ahead, total = initial, 0.0
    for t, row in enumerate(likelihood):
        ahead = (ahead @ later[t - 1] if t else ahead) * row
        total = total + ahead.sum().log()
        ahead = ahead / ahead.sum()
    return total


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 30), st.integers(2, 4), st.booleans(), st.booleans())
def test_the_bound_is_that_of_the_forward_algorithm(seed, steps, states, varies, one_way):
    g = torch.Generator().manual_seed(seed)
    initial = torch.rand(states, generator=g) + 0.1
    later = torch.rand(steps - 1 if varies and steps > 2 else 1, states, states, generator=g) + 0.1
    later = later.triu() if one_way else later
    initial, later = initial / initial.sum(), later / later.sum(-1, keepdim=True)
    levels = torch.randn(states, generator=g)
    y = torch.randn(steps, generator=g)
    observed = torch.rand(steps, generator=g) < 0.8

    def model(y):
        z = pyro.sample("z", CategoricalMarkovChain(initial, later, num_steps=steps))
        with pyro.plate("t", steps), pyro.poutine.mask(mask=observed):
            pyro.sample("y", dist.Normal(levels[z], 0.7), obs=y)

    likelihood = dist.Normal(levels, 0.7).log_prob(y.unsqueeze(-1))
    likelihood = torch.where(observed.unsqueeze(-1), likelihood, 0.0).exp()
    truth = forward(initial, later.expand(max(steps - 1, 1), states, states), likelihood)
    fit = cavi(Problem(model, y), progress=False)
    torch.testing.assert_close(torch.tensor(fit.bound), truth, **EXACT)
    torch.testing.assert_close(fit.log_weights(10), truth.expand(10), rtol=1e-9, atol=1e-9)


def test_probabilities_of_states_are_those_of_enumeration():
    y = torch.tensor([0.3, -1.2, 1.0, 1.4, -0.2])

    def model(y):
        z = pyro.sample("z", CategoricalMarkovChain(torch.tensor([0.3, 0.7]), STAY, num_steps=5))
        with pyro.plate("t", 5):
            pyro.sample("y", dist.Normal(LEVEL[z], 0.7), obs=y)

    chain = CategoricalMarkovChain(torch.tensor([0.3, 0.7]), STAY, num_steps=5)
    weights, states = [], []
    for path in itertools.product(range(2), repeat=5):
        z = torch.tensor(path)
        weights.append(chain.log_prob(z) + dist.Normal(LEVEL[z], 0.7).log_prob(y).sum())
        states.append(torch.nn.functional.one_hot(z, 2).double())
    shares = torch.stack(weights).softmax(0)
    truth = torch.einsum("n,ntk->tk", shares, torch.stack(states))
    fit = cavi(Problem(model, y), progress=False)
    torch.testing.assert_close(fit.marginal("z").state_probs, truth, **EXACT)


def series(groups, steps, seed=0):
    torch.manual_seed(seed)
    z = CategoricalMarkovChain(torch.tensor([0.5, 0.5]), STAY, num_steps=steps).sample((groups,))
    return LEVEL[z] + 0.5 * torch.randn(groups, steps)


def learnt(y):
    """A panel: levels, noise and transitions are latent and shared."""
    groups, steps = y.shape
    level = pyro.sample("level", dist.Normal(LEVEL, 2.0).to_event(1))
    noise = pyro.sample("noise", dist.HalfCauchy(1.0))
    jump = pyro.sample("jump", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
    start = pyro.sample("start", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("groups", groups, dim=-1):
        z = pyro.sample("z", CategoricalMarkovChain(start, jump, num_steps=steps))
    with pyro.plate("g", groups, dim=-2), pyro.plate("t", steps, dim=-1):
        pyro.sample("y", dist.Normal(level[z], noise), obs=y)


@pytest.mark.uses_global_generator
def test_updates_of_a_panel_are_optimal_and_the_bound_never_falls():
    y = series(3, 12)
    conjugate, bounds = fitted(learnt, (y,))
    assert_never_falls(bounds)
    assert_updates_are_optimal(conjugate)


@pytest.mark.uses_global_generator
@pytest.mark.slow
def test_a_fit_is_explained_kept_and_compared(tmp_path):
    problem = Problem(learnt, series(4, 60))
    fit = cavi(problem, progress=False)
    assert "CategoricalMarkovChain" in explain(problem)
    jump = fit.mean()["jump"]
    torch.testing.assert_close(jump, STAY, rtol=0, atol=0.12)
    save(fit, tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors", problem)
    draws, there = fit.sample(4, discrete=True), again.sample(4, discrete=True)
    assert all(torch.equal(draws[name], there[name]) for name in draws)
    assert draws["z"].shape == (4, 4, 60)
    torch.testing.assert_close(fit.log_prob(draws), again.log_prob(draws))
    assert "cavi" in str(compare({"cavi": fit}))


@pytest.mark.uses_global_generator
@pytest.mark.parametrize("emission", ["Poisson", "Categorical"])
def test_other_emissions(emission):
    torch.manual_seed(1)
    steps = 80
    z = CategoricalMarkovChain(torch.tensor([0.5, 0.5]), STAY, num_steps=steps).sample()
    table = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.2, 0.7]])
    rate = torch.tensor([1.0, 8.0])
    y = (
        dist.Poisson(rate[z]).sample()
        if emission == "Poisson"
        else dist.Categorical(table[z]).sample()
    )

    def model(y):
        z = pyro.sample(
            "z", CategoricalMarkovChain(torch.tensor([0.5, 0.5]), STAY, num_steps=steps)
        )
        if emission == "Poisson":
            rates = pyro.sample("rates", dist.Gamma(rate, 1.0).to_event(1))
            made = dist.Poisson(rates[z])
        else:
            rows = pyro.sample("rows", dist.Dirichlet(1 + 5 * table).to_event(1))
            made = dist.Categorical(rows[z])
        with pyro.plate("t", steps):
            pyro.sample("y", made, obs=y)

    conjugate, bounds = fitted(model, (y,))
    assert_never_falls(bounds)
    assert_updates_are_optimal(conjugate)


@pytest.mark.uses_global_generator
def test_a_switching_model_is_two_chains_that_keep_each_others_expectations():
    torch.manual_seed(2)
    steps = 30
    y = torch.cumsum(0.2 * torch.randn(steps), 0) + LEVEL[(torch.arange(steps) // 8) % 2]

    def model(y):
        z = pyro.sample(
            "z", CategoricalMarkovChain(torch.tensor([0.5, 0.5]), STAY, num_steps=steps)
        )
        walk = pyro.sample("walk", GaussianMarkovChain(torch.zeros(1), 0.1, 0.2, num_steps=steps))
        level = pyro.sample("level", dist.Normal(LEVEL, 1.0).to_event(1))
        with pyro.plate("t", steps):
            pyro.sample("y", dist.Normal(walk[:, 0] + level[z], 0.1), obs=y)

    _, bounds = fitted(model, (y,))
    assert_never_falls(bounds)


def test_states_that_are_no_neighbours_are_refused():
    def model(y):
        z = pyro.sample("z", CategoricalMarkovChain(torch.tensor([0.5, 0.5]), STAY, num_steps=6))
        with pyro.plate("t", 4):
            pyro.sample("y", dist.Normal(LEVEL[z[2:]] + LEVEL[z[:-2]], 1.0), obs=y)

    with pytest.raises(NotConjugateError, match="no neighbours"):
        cavi(Problem(model, torch.zeros(4)), progress=False)


@pytest.mark.uses_global_generator
def test_restarts_run_together_and_find_what_one_by_one_finds():
    problem = Problem(learnt, series(3, 15))
    together = cavi(problem, progress=False, restarts=3)
    alone = [cavi(problem, progress=False, seed=seed).bound for seed in range(3)]
    assert together.bound == pytest.approx(max(alone), abs=1e-4)
