"""Pyro's hidden Markov models as observed sites: the same as with their states written out."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi, explain
from vitools.distributions import CategoricalMarkovChain, GaussianMarkovChain
from vitools.errors import NotConjugateError, NotSupportedError, VitoolsWarning


def series(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.cumsum(0.6 * torch.randn(*shape, generator=g), -1)


def parameters():
    jump = pyro.sample("jump", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
    level = pyro.sample("level", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    noise = pyro.sample("noise", dist.Gamma(2.0, 1.0))
    return jump, level, noise


def assert_same(observed, written, *data):
    """The same bound and moments; and the judge, who has Pyro's density, sees no less."""
    fit = cavi(Problem(observed, *data), progress=False)
    other = cavi(Problem(written, *data), progress=False)
    assert fit.bound == pytest.approx(other.bound, abs=1e-6)
    for name in fit.mean():
        torch.testing.assert_close(fit.mean()[name], other.mean()[name], rtol=1e-3, atol=1e-3)
    weights = fit.log_weights(400)
    assert float(weights.mean()) > fit.bound - 5 * float(weights.std()) / math.sqrt(400)
    bounds = torch.as_tensor(fit.history.elbo)
    assert bool((bounds.diff() > -1e-9 * bounds.abs().max()).all())
    return fit


def test_discrete_states_of_rows_seen_as_normals():
    y = series(3, 14)
    masked = torch.tensor([True, True, False])
    half = torch.zeros(2)

    def observed(y):
        jump, level, noise = parameters()
        with pyro.plate("rows", 3), pyro.poutine.mask(mask=masked):
            made = dist.Normal(level, noise.rsqrt())
            pyro.sample("y", dist.DiscreteHMM(half, jump.log(), made, duration=14), obs=y)

    def written(y):
        jump, level, noise = parameters()
        with pyro.plate("rows", 3, dim=-1):
            z = pyro.sample(
                "z",
                CategoricalMarkovChain(transition_probs=jump, initial_logits=half, num_steps=15),
            )
        mask = masked[:, None]
        with pyro.plate("r", 3, dim=-2), pyro.plate("t", 14, dim=-1), pyro.poutine.mask(mask=mask):
            pyro.sample("y", dist.Normal(level[z[..., 1:]], noise.rsqrt()), obs=y)

    fit = cavi(Problem(observed, y), progress=False)
    other = cavi(Problem(written, y), progress=False)
    assert fit.bound == pytest.approx(other.bound, abs=1e-6)
    assert "states of y" in explain(Problem(observed, y))
    assert set(fit.mean()) == {"jump", "level", "noise"}


def test_discrete_states_with_transitions_that_change_and_counts():
    g = torch.Generator().manual_seed(1)
    y = torch.poisson(torch.tensor([1.0, 6.0]).repeat(6), generator=g)
    drift = torch.rand(12, 2, 2, generator=g).log_softmax(-1)

    def observed(y):
        rate = pyro.sample("rate", dist.Gamma(torch.tensor([1.0, 6.0]), 1.0).to_event(1))
        pyro.sample("y", dist.DiscreteHMM(torch.zeros(2), drift, dist.Poisson(rate)), obs=y)

    def written(y):
        rate = pyro.sample("rate", dist.Gamma(torch.tensor([1.0, 6.0]), 1.0).to_event(1))
        chain = CategoricalMarkovChain(initial_logits=torch.zeros(2), transition_logits=drift)
        z = pyro.sample("z", chain)
        with pyro.plate("t", 12):
            pyro.sample("y", dist.Poisson(rate[z[1:]]), obs=y)

    assert_same(observed, written, y)


@pytest.mark.parametrize("kind", ["Normal", "MultivariateNormal"])
def test_gaussian_states(kind):
    y = series(20).unsqueeze(-1)
    matrix = torch.tensor([[1.0, 0.0], [1.0, 0.8]])  # rows are old states, as Pyro has it
    loading = torch.tensor([[1.0], [0.3]])
    spread = torch.tensor([[1.0, 0.2], [0.2, 0.5]])

    def observed(y):
        noise = pyro.sample("noise", dist.Gamma(2.0, 1.0))
        first = dist.MultivariateNormal(torch.zeros(2), spread)
        if kind == "Normal":
            drift = pyro.sample("drift", dist.Gamma(2.0, 1.0))
            step = dist.Normal(torch.tensor([0.1, 0.0]), drift.rsqrt()).to_event(1)
        else:
            step = dist.MultivariateNormal(torch.tensor([0.1, 0.0]), spread)
        seen = dist.Normal(torch.zeros(1), noise.rsqrt()).to_event(1)
        pyro.sample("y", dist.GaussianHMM(first, matrix, step, loading, seen, duration=20), obs=y)

    def written(y):
        noise = pyro.sample("noise", dist.Gamma(2.0, 1.0))
        root = torch.linalg.cholesky(spread)
        if kind == "Normal":
            drift = pyro.sample("drift", dist.Gamma(2.0, 1.0))
            step = {"transition_scale": drift.rsqrt() * torch.ones(2)}
        else:
            step = {"transition_scale_tril": root}
        chain = GaussianMarkovChain(
            torch.zeros(2),
            transition_matrix=matrix.T,
            transition_offset=torch.tensor([0.1, 0.0]),
            num_steps=21,
            initial_scale_tril=root,
            **step,
        )
        x = pyro.sample("x", chain)
        with pyro.plate("t", 20, dim=-1):
            pyro.sample("y", dist.Normal(x[1:] @ loading, noise.rsqrt()).to_event(1), obs=y)

    fit = cavi(Problem(observed, y), progress=False)
    # states that are written out would have the scale of their increments in cells of its values
    other = cavi(Problem(written, y), nested=(), progress=False)
    assert fit.bound == pytest.approx(other.bound, abs=1e-6)
    with pytest.warns(VitoolsWarning, match="vectorised over draws"):  # Pyro's filter looks at data
        weights = fit.log_weights(40)
    assert float(weights.mean()) > fit.bound - 5 * float(weights.std()) / math.sqrt(40)


def test_a_chain_of_known_parameters_is_a_number():
    y = series(9)
    chain = dist.DiscreteHMM(
        torch.zeros(2), torch.zeros(2, 2), dist.Normal(torch.tensor([0.0, 1.0]), 1.0), duration=9
    )

    def model(y):
        extra = pyro.sample("extra", dist.Normal(0.0, 1.0))
        pyro.sample("y", chain, obs=y)
        pyro.sample("seen", dist.Normal(extra, 1.0), obs=torch.tensor(0.3))

    fit = cavi(Problem(model, y), progress=False)
    seen = dist.Normal(0.0, math.sqrt(2.0)).log_prob(torch.tensor(0.3))
    assert fit.bound == pytest.approx(float(chain.log_prob(y) + seen), abs=1e-9)


def test_noise_of_another_kind_is_refused_by_name():
    def model(y):
        noise = pyro.sample("noise", dist.Gamma(2.0, 1.0))
        first = dist.Normal(torch.zeros(1), 1.0).to_event(1)
        root = noise.rsqrt() * torch.eye(1)
        step = dist.MultivariateNormal(torch.zeros(1), scale_tril=root)
        one = torch.eye(1)
        pyro.sample("y", dist.GaussianHMM(first, one, step, one, first, duration=8), obs=y)

    with pytest.raises(NotConjugateError, match="'noise'"):
        cavi(Problem(model, series(8).unsqueeze(-1)), progress=False)


def linear(step=None, seen=None, kind=dist.LinearHMM):
    def model(y):
        noise = pyro.sample("noise", dist.Gamma(2.0, 1.0))
        own = seen or dist.Normal(torch.zeros(1), noise.rsqrt()).to_event(1)
        first = dist.Normal(torch.zeros(1), 1.0).to_event(1)
        one = torch.eye(1)
        made = kind(first, one, step or first, one, own, duration=20)
        pyro.sample("y", made, obs=y)

    return model


@pytest.mark.parametrize("kind", ["Normal", "MultivariateNormal"])
def test_a_linear_chain_of_normal_noise_is_a_gaussian_one(kind):
    y, step = series(20).unsqueeze(-1), None
    if kind == "MultivariateNormal":
        step = dist.MultivariateNormal(torch.zeros(1), 0.5 * torch.eye(1))
    one, other = (Problem(linear(step, kind=k), y) for k in (dist.LinearHMM, dist.GaussianHMM))
    values = other.prior(3)
    torch.testing.assert_close(one.log_joint(values), other.log_joint(values))
    bounds = [cavi(problem, progress=False).bound for problem in (one, other)]
    assert bounds[0] == pytest.approx(bounds[1], abs=1e-9)


def test_a_linear_chain_of_what_is_exponential_has_the_density_of_its_logarithm():
    y = series(20).unsqueeze(-1)
    log_normal = dist.LogNormal(torch.zeros(1), 0.7).to_event(1)
    normal = dist.Normal(torch.zeros(1), 0.7).to_event(1)
    one = Problem(linear(seen=log_normal), y.exp())
    values = one.prior(3)
    truth = Problem(linear(seen=normal), y).log_joint(values) - y.sum()
    torch.testing.assert_close(one.log_joint(values), truth)


def test_a_linear_chain_of_heavier_noise_is_refused_with_what_to_write():
    seen = dist.StudentT(4.0, torch.zeros(1), 1.0).to_event(1)
    with pytest.raises(NotSupportedError, match="observation_dist is a StudentT has no density"):
        Problem(linear(seen=seen), series(20).unsqueeze(-1))
