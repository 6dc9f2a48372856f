"""Latent trajectories of discrete states in densities and draws: against sums over all of them."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from vitools import Problem, cavi, exact, laplace, svi
from vitools.distributions import CategoricalMarkovChain
from vitools.errors import NotSupportedError, OptionError

EXACT = {"rtol": 1e-10, "atol": 1e-10}
HALF = torch.tensor([0.3, 0.7], dtype=torch.float64)
STAY = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
LEVEL = torch.tensor([-1.0, 1.5], dtype=torch.float64)
Y = torch.tensor([0.3, -1.2, 1.0, 1.4, -0.2], dtype=torch.float64)


def chain(steps, states=2):
    if states == 2:
        return CategoricalMarkovChain(HALF, STAY, num_steps=steps)
    jump = torch.arange(1.0, 1 + states**2, dtype=torch.float64).reshape(states, states)
    return CategoricalMarkovChain(torch.ones(states).double() / states, jump, num_steps=steps)


def one_series():
    level = pyro.sample("level", dist.Normal(LEVEL, 1.0).to_event(1))
    jump = pyro.sample("jump", dist.Dirichlet(torch.ones(2, 2).double()).to_event(1))
    z = pyro.sample("z", CategoricalMarkovChain(HALF, jump, num_steps=5))
    with pyro.plate("t", 5):
        pyro.sample("y", dist.Normal(level[z], 0.7), obs=Y)


def forecast_in_reverse():
    """More steps than rows, read backwards; a step may have two rows, and some none."""
    level = pyro.sample("level", dist.Normal(torch.zeros(3).double(), 1.0).to_event(1))
    z = pyro.sample("z", chain(4, 3))
    with pyro.plate("rows", 5):
        pyro.sample("y", dist.Normal(level[z.flip(-1)[[0, 2, 2, 0, 1]]], 0.7), obs=Y)


def panel():
    level = pyro.sample("level", dist.Normal(LEVEL, 1.0).to_event(1))
    with pyro.plate("groups", 2):
        z = pyro.sample("z", chain(3))
    seen = torch.tensor([[True, True, False], [True, True, True]])
    with pyro.plate("t", 3, dim=-2), pyro.plate("g", 2, dim=-1), poutine.mask(mask=seen.T):
        pyro.sample("y", dist.Normal(level[z.mT], 0.7), obs=torch.stack([Y[:3], Y[1:4]], -1))


def an_event_of_series():
    level = pyro.sample("level", dist.Normal(LEVEL, 1.0).to_event(1))
    z = pyro.sample("z", chain(3).expand([2]).to_event(1))
    with pyro.plate("g", 2, dim=-2), pyro.plate("t", 3, dim=-1):
        pyro.sample("y", dist.Normal(level[z], 0.7), obs=torch.stack([Y[:3], Y[1:4]]))


def rows_with_states_of_their_own():
    """A mixture at each step, whose components depend on the state; two sites read it."""
    level = pyro.sample("level", dist.Normal(LEVEL, 1.0).to_event(1))
    z = pyro.sample("z", chain(4))
    with pyro.plate("t", 4):
        w = pyro.sample("w", dist.Bernoulli(torch.tensor([0.2, 0.6]).double()[z]))
        pyro.sample("y", dist.Normal(level[w.long()] + 0.3 * z, 0.7), obs=Y[:4])
        pyro.sample("n", dist.Poisson(torch.tensor([1.0, 4.0]).double()[z]), obs=torch.arange(4.0))


def a_class_of_series():
    """The chain itself depends on another discrete latent."""
    level = pyro.sample("level", dist.Normal(LEVEL, 1.0).to_event(1))
    with pyro.plate("groups", 2, dim=-2):
        c = pyro.sample("c", dist.Bernoulli(torch.tensor(0.4).double()))
        first = torch.stack([HALF, HALF.flip(0)])[c.long()]
        z = pyro.sample("z", CategoricalMarkovChain(first, STAY, num_steps=3))
        with pyro.plate("t", 3):
            pyro.sample(
                "y", dist.Normal(level[z[..., 0, :]], 0.7), obs=torch.stack([Y[:3], Y[1:4]])
            )


def two_chains():
    """A factorial hidden Markov model, and a third chain that nothing ties to the two."""
    level = pyro.sample("level", dist.Normal(LEVEL, 1.0).to_event(1))
    a, b, c = (pyro.sample(name, chain(3, k)) for name, k in (("a", 2), ("b", 3), ("c", 2)))
    with pyro.plate("t", 3):
        pyro.sample("y", dist.Normal(level[a] * b, 0.7), obs=Y[:3])
        pyro.sample("x", dist.Normal(level[c], 0.9), obs=Y[2:])
        pyro.sample("only", dist.Poisson(1.0 + b), obs=torch.tensor([1.0, 3.0, 2.0]))


def one_step():
    level = pyro.sample("level", dist.Normal(LEVEL, 1.0).to_event(1))
    z = pyro.sample("z", chain(1))
    with pyro.plate("t", 1):
        pyro.sample("y", dist.Normal(level[z], 0.7), obs=Y[:1])


def one_way():
    """Impossible transitions, and data that a state cannot make."""
    level = pyro.sample("level", dist.Normal(LEVEL, 1.0).to_event(1))
    left = torch.tensor([[0.8, 0.2], [0.0, 1.0]]).double()
    z = pyro.sample(
        "z", CategoricalMarkovChain(torch.tensor([1.0, 0.0]).double(), left, num_steps=4)
    )
    rate = torch.tensor([0.0, 2.0]).double()
    with pyro.plate("t", 4):
        pyro.sample("y", dist.Normal(level[z], 0.7), obs=Y[:4])
        pyro.sample("n", dist.Binomial(2, rate[z] / 3), obs=torch.tensor([0.0, 0.0, 0.0, 1.0]))


def scaled():
    level = pyro.sample("level", dist.Normal(LEVEL, 1.0).to_event(1))
    with poutine.scale(scale=1.0):
        z = pyro.sample("z", chain(3))
        with pyro.plate("t", 3):
            pyro.sample("y", dist.Normal(level[z], 0.7), obs=Y[:3])


MODELS = [
    one_series,
    forecast_in_reverse,
    panel,
    an_event_of_series,
    rows_with_states_of_their_own,
    a_class_of_series,
    two_chains,
    one_step,
    one_way,
    scaled,
]


def trajectories(site):
    """All values of a site, [S, *shape]."""
    return torch.tensor(
        list(itertools.product(range(site.states), repeat=site.shape.numel()))
    ).reshape(-1, *site.shape)


def everything(problem, values):
    """All trajectories ``{site: [S, *shape]}`` and log p of each with the data at one draw."""
    sites = [site for site in problem.discrete.values() if site.states]
    listed = [trajectories(site) for site in sites]
    rows = torch.cartesian_prod(*(torch.arange(len(each)) for each in listed)).reshape(
        -1, len(sites)
    )
    paths = {
        s.name: each[rows[:, i]] for i, (s, each) in enumerate(zip(sites, listed, strict=True))
    }
    repeated = {k: v.expand(len(rows), *v.shape) for k, v in values.items()}
    return paths, problem.log_joint({**repeated, **paths})


@pytest.mark.parametrize("model", MODELS)
def test_the_density_and_the_probabilities_are_sums_over_all_trajectories(model):
    problem = Problem(model)
    assert all(site.is_summed_out for site in problem.discrete.values())
    values = {name: value[0] for name, value in problem.prior(1).items() if name in problem.drawn}
    paths, log_joint = everything(problem, values)
    torch.testing.assert_close(problem.log_joint(values), log_joint.logsumexp(0), **EXACT)
    found, weights = problem.discrete_marginals(values), log_joint.softmax(0)
    for name, path in paths.items():
        is_there = torch.nn.functional.one_hot(path, problem.latents[name].states).double()
        truth = torch.einsum("s,s...->...", weights, is_there)
        torch.testing.assert_close(found[name], truth, **EXACT)


@pytest.mark.parametrize("model", [one_series, rows_with_states_of_their_own, a_class_of_series])
def test_the_gradient_is_that_of_the_sum(model):
    problem = Problem(model)
    values = {name: value[0] for name, value in problem.prior(1).items() if name in problem.drawn}
    level = values["level"].clone().requires_grad_()
    (found,) = torch.autograd.grad(problem.log_joint({**values, "level": level}), level)
    total = everything(problem, {**values, "level": level})[1].logsumexp(0)
    (truth,) = torch.autograd.grad(total, level)
    torch.testing.assert_close(found, truth, **EXACT)


@pytest.mark.parametrize("model", [one_series, rows_with_states_of_their_own, two_chains])
def test_whole_trajectories_are_drawn_together_with_other_discrete_latents(model):
    """The share of each trajectory among draws, by its binomial error."""
    problem, num_samples = Problem(model), 4000
    values = {name: value[0] for name, value in problem.prior(1).items() if name in problem.drawn}
    paths, log_joint = everything(problem, values)
    repeated = {name: value.expand(num_samples, *value.shape) for name, value in values.items()}
    drawn = problem.sample_discrete(repeated)
    truth = log_joint.softmax(0)
    same = torch.ones(num_samples, len(truth), dtype=torch.bool)
    for name, path in paths.items():
        same &= (drawn[name].unsqueeze(1) == path).flatten(2).all(-1)
    share = same.double().mean(0)
    assert float(share.sum()) == pytest.approx(1.0)
    error = (truth * (1 - truth) / num_samples).sqrt()
    assert bool(((share - truth).abs() < 5 * error + 1e-12).all())
    assert bool(torch.isfinite(problem.log_joint({**repeated, **drawn})).all())


def test_units_and_priors_add_up_to_the_density():
    problem = Problem(panel)
    values = {"level": torch.tensor([[0.1, 0.4], [1.0, -0.2]]).double()}
    parts = problem.pointwise_log_likelihood(values) | problem.log_prior(values)
    total = sum(part.reshape(2, -1).sum(-1) for part in parts.values())
    torch.testing.assert_close(total, problem.log_joint(values), **EXACT)


@pytest.mark.slow
def test_the_evidence_and_the_bounds_of_the_engines():
    """log p(y) by a sum over trajectories and quadrature over one level."""

    def model():
        level = pyro.sample("level", dist.Normal(torch.tensor(0.5).double(), 1.0))
        z = pyro.sample("z", chain(5))
        with pyro.plate("t", 5):
            pyro.sample("y", dist.Normal(level * (2.0 * z - 1), 0.7), obs=Y)

    problem = Problem(model)
    grid = torch.linspace(-8, 8, 101).double()
    terms = torch.stack([everything(problem, {"level": x})[1].logsumexp(0) for x in grid])
    truth = float(torch.trapezoid(terms.exp(), grid).log())
    assert exact(problem).log_evidence.value == pytest.approx(truth, abs=1e-5)
    fit = svi(problem, progress=False, max_steps=200)
    bound = fit.elbo(2000)
    assert bound.value < truth + 4 * bound.standard_error
    assert fit.sample(7, discrete=True)["z"].shape == (7, 5)
    assert fit.predictive(3)["y"].shape == (3, 5)
    assert cavi(problem, progress=False).bound < float(truth)
    assert set(laplace(problem).mean()) == {"level"}


def test_a_trajectory_whose_steps_meet_in_one_row_is_drawn():
    def model():
        level = pyro.sample("level", dist.Normal(LEVEL, 1.0).to_event(1))
        z = pyro.sample("z", chain(5))
        with pyro.plate("t", 4):
            pyro.sample("y", dist.Normal(level[z[1:]] + level[z[:-1]], 0.7), obs=Y[1:])

    problem = Problem(model)
    assert list(problem.drawn) == ["level", "z"]
    assert problem.log_joint(problem.prior(3)).shape == (3,)
    with pytest.raises(
        NotSupportedError, match="a row of site 'y' does not depend on one of its steps alone"
    ):
        svi(problem)
    fit = cavi(problem, progress=False)
    probs = fit.marginal("z").state_probs
    torch.testing.assert_close(fit.mean()["z"], probs[:, 1], **EXACT)
    torch.testing.assert_close(fit.sd()["z"], (probs[:, 0] * probs[:, 1]).sqrt(), **EXACT)


def test_minibatches_of_rows_are_refused():
    def model(size=None):
        level = pyro.sample("level", dist.Normal(LEVEL, 1.0).to_event(1))
        z = pyro.sample("z", chain(5))
        with pyro.plate("t", 5, subsample_size=2) as rows:
            pyro.sample("y", dist.Normal(level[z[rows]], 0.7), obs=Y[rows])

    with pytest.raises(NotSupportedError, match="needs all of them"):
        svi(Problem(model), progress=False)


def test_starts_are_trajectories_or_chains():
    problem = Problem(one_series)
    best = cavi(problem, progress=False).bound
    for start in (torch.tensor([1, 0, 1, 1, 0]), chain(5)):
        assert cavi(problem, start={"z": start}, progress=False).bound == pytest.approx(
            best, abs=1e-3
        )
    with pytest.raises(OptionError, match="outside of its support"):
        cavi(problem, start={"z": torch.tensor([1, 0, 2, 1, 0])})
    with pytest.raises(OptionError, match="expected a CategoricalMarkovChain of 2 states"):
        cavi(problem, start={"z": chain(5, 3)})
