"""Masks, scales and minibatches: what counts how often in the density."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from density_checks import assert_close, randn
from pyro import poutine
from torch import distributions as td

from vitools.errors import NotSupportedError
from vitools.problem import Problem


def test_masked_rows_may_be_nan_and_do_not_count():
    y = randn(5)
    missing = torch.tensor([False, True, False, False, True])
    holes = torch.where(missing, torch.nan, y)

    def by_handler(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 5), poutine.mask(mask=~missing):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    def by_distribution(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 5):
            pyro.sample("y", dist.Normal(mu, 1.0).mask(~missing), obs=y)

    for model in (by_handler, by_distribution):
        mu = randn(4, seed=1).requires_grad_()
        result = Problem(model, holes).log_joint({"mu": mu})
        seen = y[~missing]
        expected = td.Normal(0.0, 1.0).log_prob(mu)
        expected = expected + td.Normal(mu[:, None], 1.0).log_prob(seen).sum(1)
        assert_close(result, expected)
        (gradient,) = torch.autograd.grad(result.sum(), mu)
        assert_close(gradient, (-mu + (seen - mu[:, None]).sum(1)).detach())


def test_obs_mask_leaves_a_proper_density_for_what_is_missing():
    y, seen = randn(3), torch.tensor([True, False, True])

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y, obs_mask=seen)

    problem = Problem(model, torch.where(seen, y, torch.nan))
    assert list(problem.latents) == ["mu", "y_unobserved"]
    mu, unseen = randn(4), randn(4, 3, seed=1)
    # every entry of y_unobserved keeps its density, so that the evidence is that of the seen rows
    expected = (
        td.Normal(0.0, 1.0).log_prob(mu)
        + td.Normal(mu[:, None], 1.0).log_prob(unseen).sum(1)
        + td.Normal(mu[:, None], 1.0).log_prob(y[seen]).sum(1)
    )
    assert_close(problem.log_joint({"mu": mu, "y_unobserved": unseen}), expected)


def test_masked_discrete_padding_sums_to_one():
    lengths = torch.tensor([3, 1])
    y = randn(2, 3)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", 2, dim=-1):
            z = 0
            for t in pyro.markov(range(3)):
                with poutine.mask(mask=t < lengths):
                    p = torch.tensor([[0.7, 0.3], [0.2, 0.8]])[z]
                    z = pyro.sample(f"z_{t}", dist.Categorical(p))
                    pyro.sample(f"y_{t}", dist.Normal(mu[z], 1.0), obs=y[:, t])

    mu = torch.tensor([-0.4, 1.3])
    transition = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
    expected = td.Normal(0.0, 1.0).log_prob(mu).sum()
    for row in range(2):
        state = transition[0]
        total = 0.0
        for t in range(int(lengths[row])):
            state = state if t == 0 else state @ transition
            state = state * td.Normal(mu, 1.0).log_prob(y[row, t]).exp()
            total = total + state.sum().log()
            state = state / state.sum()
        expected = expected + total
    assert_close(Problem(model, y).log_joint({"mu": mu}), expected)


def test_scale_multiplies_densities():
    y = randn(4)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with poutine.scale(scale=0.25), pyro.plate("rows", 4):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    mu = randn(3, seed=1)
    expected = td.Normal(0.0, 1.0).log_prob(mu)
    expected = expected + 0.25 * td.Normal(mu[:, None], 1.0).log_prob(y).sum(1)
    problem = Problem(model, y)
    assert_close(problem.log_joint({"mu": mu}), expected)
    assert problem.observed["y"].scale == 0.25


WEIGHTS = torch.tensor([1.0, 3.0, 2.0]).double()


@pytest.mark.parametrize("scale", [2.5, WEIGHTS])
def test_scale_weights_rows_after_their_discrete_latents_are_summed(scale):
    y = randn(3)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", 3), poutine.scale(scale=scale):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.3, 0.7])))
            pyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)

    mu = randn(4, 2, seed=1)
    rows = torch.tensor([0.3, 0.7]).log() + td.Normal(mu[:, None], 1.0).log_prob(y[:, None])
    expected = td.Normal(0.0, 1.0).log_prob(mu).sum(1) + (scale * rows.logsumexp(-1)).sum(-1)
    problem = Problem(model, y)
    assert_close(problem.log_joint({"mu": mu}), expected)
    assert_close(problem.discrete_marginals({"mu": mu})["z"], rows.softmax(-1))


def test_different_scales_around_one_sum_are_refused():
    def model(y):
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        with pyro.plate("rows", 3):
            z = pyro.sample("z", dist.Bernoulli(p))
            with poutine.scale(scale=0.5):
                pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    problem = Problem(model, randn(3))
    with pytest.raises(NotSupportedError, match="'z', 'y' share discrete latents but have diff"):
        problem.log_joint({"p": torch.tensor(0.3)})


def subsampled_mixture(y, size):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(y), subsample_size=size) as rows:
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("y", dist.Normal(mu[z], 1.0), obs=y[rows])


@pytest.mark.parametrize("size", [1, 3, 7])
def test_subsampled_plates_span_all_data(size):
    y = randn(7)
    problem = Problem(subsampled_mixture, y, size)
    assert (problem.plates["rows"].size, problem.plates["rows"].subsample_size) == (7, size)
    assert problem.observed["y"].shape == (7,)
    mu = randn(4, 2, seed=1)
    rows = torch.tensor([0.3, 0.7]).log() + td.Normal(mu[:, None], 1.0).log_prob(y[:, None])
    rows = rows.logsumexp(-1)
    prior = td.Normal(0.0, 1.0).log_prob(mu).sum(1)
    assert_close(problem.log_joint({"mu": mu}), prior + rows.sum(1))
    assert_close(problem.pointwise_log_likelihood({"mu": mu})["y"], rows)
    assert problem.predictive({"mu": mu})["y"].shape == (4, 7)


@pytest.mark.parametrize("size", [1, 3])
def test_a_minibatch_is_an_unbiased_estimate(size):
    # every minibatch of one row once: their mean is the full density, because the rows' discrete
    # latents are summed before the minibatch weight 7 / size is applied
    from vitools.isolation import isolated
    from vitools.problem.density.enumeration import FactorGraph

    y, mu = randn(7), randn(2, seed=1)
    problem = Problem(subsampled_mixture, y, size)
    totals = []
    for start in range(7):
        rows = (torch.arange(size) + start) % 7
        held = {"mu": mu, "rows": rows}

        class Choose(poutine.messenger.Messenger):
            def _pyro_sample(self, msg, held=held):
                if msg["name"] in held:
                    msg["value"], msg["done"] = held[msg["name"]], msg["name"] == "rows"
                    msg["is_observed"] = msg["name"] == "mu" or msg["is_observed"]

        def run(choose=Choose):
            with choose():
                return problem.call()

        with isolated(problem.params):
            totals.append(FactorGraph(run, problem.max_plate_nesting).log_density())
    assert_close(torch.stack(totals).mean(), problem.log_joint({"mu": mu}))


def test_subsample_statement_and_nested_minibatches():
    x = randn(6, 4)

    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        rows = pyro.plate("rows", 6, subsample_size=2, dim=-2)
        with rows, pyro.plate("columns", 4, subsample_size=3, dim=-1):
            batch = pyro.subsample(x, event_dim=0)
            pyro.sample("x", dist.Normal(mu, 1.0), obs=batch)

    mu = randn(3, seed=1)
    expected = td.Normal(0.0, 1.0).log_prob(mu)
    expected = expected + td.Normal(mu[:, None, None], 1.0).log_prob(x).sum((1, 2))
    assert_close(Problem(model, x).log_joint({"mu": mu}), expected)
