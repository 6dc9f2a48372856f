"""Scalars under curved functions that share a normal factor with what they are tied to, in loops too."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, optimize, special, stats

from vitools import Problem, cavi, explain
from vitools.calculus import ConjugateModel
from vitools.calculus.blocks.free_form import FreeFormBlock
from vitools.calculus.tracing import rolling
from vitools.distributions import GaussianMarkovChain

STEPS = 24
_generator = torch.Generator().manual_seed(3)
PATH = torch.cumsum(0.5 * torch.randn(STEPS, generator=_generator, dtype=torch.float64), 0)
COUNTS = torch.poisson(PATH.exp(), generator=_generator)
CONTROL = torch.randn(STEPS, generator=_generator, dtype=torch.float64)
COINS = (torch.rand(STEPS, generator=_generator) < torch.sigmoid(PATH)).double()


def two_sites():
    a = pyro.sample("a", dist.Normal(0.5, 1.0))
    b = pyro.sample("b", dist.Normal(a, 0.7))
    pyro.sample("y", dist.Poisson(b.exp()), obs=torch.tensor(4.0))


def on_a_grid(log_density):
    """log of the integral of exp log_density(a, b), and the sds of a and b, by the trapezoid rule."""
    line = np.linspace(-7.0, 8.0, 1501)
    a, b = np.meshgrid(line, line, indexing="ij")
    log_p = log_density(a, b)
    mass = special.softmax(log_p)
    sds = [math.sqrt((mass * x**2).sum() - (mass * x).sum() ** 2) for x in (a, b)]
    return special.logsumexp(log_p) + 2 * math.log(line[1] - line[0]), sds


def best_normal_bound():
    """The bound of two_sites maximised over all normals of (a, b), by L-BFGS on its closed form."""

    def loss(free):
        mean, root = free[:2], np.array([[free[2], 0.0], [free[3], free[4]]])
        covariance = root @ root.T
        (a, b), ((v_a, c), (_, v_b)) = mean, covariance
        log_a = -0.5 * math.log(2 * math.pi) - 0.5 * ((a - 0.5) ** 2 + v_a)
        of_b = (b - a) ** 2 + v_a + v_b - 2 * c
        log_b = -0.5 * math.log(2 * math.pi * 0.49) - 0.5 * of_b / 0.49
        log_y = 4 * b - math.exp(b + v_b / 2) - math.lgamma(5)
        entropy = 1 + math.log(2 * math.pi) + math.log(abs(free[2] * free[4]))
        return -(log_a + log_b + log_y + entropy)

    found = optimize.minimize(loss, [1.0, 1.0, 0.6, 0.3, 0.4], method="BFGS", tol=1e-10)
    return -found.fun


def test_two_sites_have_the_best_normal_between_them():
    fit = cavi(Problem(two_sites), tol=1e-13)
    assert fit.bound == pytest.approx(best_normal_bound(), abs=1e-8)
    evidence, sds = on_a_grid(
        lambda a, b: (
            stats.norm.logpdf(a, 0.5, 1.0)
            + stats.norm.logpdf(b, a, 0.7)
            + stats.poisson.logpmf(4, np.exp(b))
        )
    )
    assert evidence - 0.02 < fit.bound < evidence
    for name, sd in zip("ab", sds, strict=True):
        assert float(fit.sd()[name]) == pytest.approx(sd, rel=0.05)


@pytest.mark.parametrize("apart", [{"joint": ()}, {"factorised": ["b"]}, {"factorised": "all"}])
def test_sites_kept_apart_take_their_optimal_factors(apart):
    model = ConjugateModel(two_sites, **apart)
    assert isinstance(model.block_of["b"], FreeFormBlock)
    assert cavi(Problem(two_sites), **apart).bound < cavi(Problem(two_sites)).bound - 0.01


def test_a_scalar_that_nothing_is_tied_to_keeps_its_integral():
    def model():
        b = pyro.sample("b", dist.Normal(0.5, 1.2))
        pyro.sample("y", dist.Poisson(b.exp()), obs=torch.tensor(4.0))

    def density(b):
        return stats.norm.pdf(b, 0.5, 1.2) * stats.poisson.pmf(4, math.exp(b))

    evidence = math.log(integrate.quad(density, -8, 8, epsabs=0, epsrel=1e-11)[0])
    assert cavi(Problem(model)).bound == pytest.approx(evidence, abs=1e-9)


def test_a_scalar_under_a_function_of_its_own_and_one_with_another():
    """exp(a) and exp(a + b): no site of the second may have a factor that is not normal."""

    def model():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Poisson(a.exp()), obs=torch.tensor(2.0))
        pyro.sample("z", dist.Poisson((a + b).exp()), obs=torch.tensor(7.0))

    evidence, _ = on_a_grid(
        lambda a, b: (
            stats.norm.logpdf(a)
            + stats.norm.logpdf(b)
            + stats.poisson.logpmf(2, np.exp(a))
            + stats.poisson.logpmf(7, np.exp(a + b))
        )
    )
    fit = cavi(Problem(model))
    assert evidence - 0.02 < fit.bound < evidence


# ---- loops -------------------------------------------------------------------------------------


def walk_of_counts(counts):
    x = pyro.sample("x_0", dist.Normal(0.0, 1.0))
    pyro.sample("y_0", dist.Poisson(x.exp()), obs=counts[0])
    for t in pyro.markov(range(1, len(counts))):
        x = pyro.sample(f"x_{t}", dist.Normal(x, 0.5))
        pyro.sample(f"y_{t}", dist.Poisson(x.exp()), obs=counts[t])


def chain_of_counts(counts):
    chain = GaussianMarkovChain(torch.zeros(1), 1.0, torch.tensor([0.5]), num_steps=len(counts))
    x = pyro.sample("x", chain)
    with pyro.plate("t", len(counts)):
        pyro.sample("y", dist.Poisson(x[:, 0].exp()), obs=counts)


def exact_walk(counts):
    """log p(y), means and sds of all states, by forward and backward sums over a fine grid."""
    grid = np.linspace(-6.0, 6.0, 1201)
    width = grid[1] - grid[0]
    step = stats.norm.logpdf(grid[:, None], grid, 0.5) + math.log(width)  # [to, from]
    seen = [stats.poisson.logpmf(int(y), np.exp(grid)) for y in counts]
    forward = [stats.norm.logpdf(grid) + seen[0]]
    for own in seen[1:]:
        forward.append(special.logsumexp(step + forward[-1], axis=1) + own)
    backward = [np.zeros_like(grid)]
    for own in reversed(seen[1:]):
        backward.append(special.logsumexp(step.T + (own + backward[-1]), axis=1))
    evidence = float(special.logsumexp(forward[-1]) + math.log(width))
    posterior = [special.softmax(f + b) for f, b in zip(forward, reversed(backward), strict=True)]
    means = np.array([p @ grid for p in posterior])
    return evidence, means, np.sqrt(np.array([p @ grid**2 for p in posterior]) - means**2)


def read_step_by_step(monkeypatch, model, *data, **options):
    monkeypatch.setattr(rolling, "SHORTEST", 10**6)
    fit = cavi(Problem(model, *data), progress=False, **options)
    monkeypatch.undo()
    return fit


def test_a_walk_under_counts_is_one_chain_rolled_or_not(monkeypatch):
    fit = cavi(Problem(walk_of_counts, COUNTS), tol=1e-12)
    chain = cavi(Problem(chain_of_counts, COUNTS), tol=1e-12)
    apart = read_step_by_step(monkeypatch, walk_of_counts, COUNTS, tol=1e-12)
    assert set(ConjugateModel(walk_of_counts, (COUNTS,)).trace.rolled) == {"x"}
    assert fit.bound == pytest.approx(chain.bound, abs=1e-9)
    assert apart.bound == pytest.approx(chain.bound, abs=1e-9)
    torch.testing.assert_close(fit.mean()["x"], chain.mean()["x"].squeeze(-1), atol=1e-5, rtol=0)
    evidence, means, sds = exact_walk(COUNTS)
    assert evidence - 0.004 * STEPS < fit.bound < evidence
    found = fit.sd()["x"].numpy()
    assert np.abs((fit.mean()["x"].numpy() - means) / sds).max() < 0.05
    assert np.abs(found / sds - 1).max() < 0.05


def softplus_rates(counts):
    x = pyro.sample("x_0", dist.Normal(0.0, 1.0))
    for t in pyro.markov(range(len(counts))):
        if t:
            x = pyro.sample(f"x_{t}", dist.Normal(0.9 * x, 0.5))
        rate = torch.nn.functional.softplus(x + 0.1 * t) * (1.0 + CONTROL[t].abs())
        pyro.sample(f"y_{t}", dist.Poisson(rate), obs=counts[t])


def scaled_odds(coins):
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    x = pyro.sample("x_0", dist.Normal(0.0, 1.0))
    for t in pyro.markov(range(len(coins))):
        if t:
            x = pyro.sample(f"x_{t}", dist.Normal(x, 0.5))
        odds = 2.0 * x + CONTROL[t] * slope - 0.3
        pyro.sample(f"y_{t}", dist.Bernoulli(torch.sigmoid(odds)), obs=coins[t])


def volatility(returns):
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    x = pyro.sample("x_0", dist.Normal(0.0, 1.0))
    for t in pyro.markov(range(len(returns))):
        if t:
            x = pyro.sample(f"x_{t}", dist.Normal(level + 0.9 * (x - level), 0.5))
        pyro.sample(f"y_{t}", dist.Normal(0.0, (x / 2).exp()), obs=returns[t])


def robust_walk(counts):
    x = pyro.sample("x_0", dist.Normal(0.0, 1.0))
    for t in range(len(counts)):
        if t:
            x = pyro.sample(f"x_{t}", dist.StudentT(4.0, x, 0.4))
        if t % 5 != 2:  # no observation
            pyro.sample(f"y_{t}", dist.Poisson(x.exp()), obs=counts[t])


LOOPS = [
    (softplus_rates, COUNTS),
    (scaled_odds, COINS),
    (volatility, CONTROL * (PATH / 2).exp()),
    (robust_walk, COUNTS),
]


@pytest.mark.parametrize(("model", "data"), LOOPS, ids=lambda x: getattr(x, "__name__", ""))
def test_functions_with_data_in_them_are_rolled(monkeypatch, model, data):
    few = data[:5]
    monkeypatch.setattr(rolling, "SHORTEST", 4)
    read = ConjugateModel(model, (few,)).trace
    assert "x" in read.rolled
    assert not read.step_by_step
    fit = cavi(Problem(model, few), tol=1e-11)
    other = read_step_by_step(monkeypatch, model, few, tol=1e-11)
    assert fit.bound == pytest.approx(other.bound, abs=1e-7)
    for name, sd in other.sd().items():
        torch.testing.assert_close(fit.sd()[name], sd, rtol=1e-3, atol=0)


def lognormal_walk(counts):
    x = pyro.sample("x_0", dist.LogNormal(0.0, 1.0))
    for t in range(len(counts)):
        if t:
            x = pyro.sample(f"x_{t}", dist.LogNormal(x.log(), 0.5))
        pyro.sample(f"y_{t}", dist.Poisson(x), obs=counts[t])


def test_what_is_read_step_by_step_is_said():
    text = explain(Problem(lognormal_walk, COUNTS[:8]))
    assert "x_0, …, x_7: states of a loop, read one by one: a LogNormal has no factor" in text
    assert "one by one" not in explain(Problem(walk_of_counts, COUNTS[:8]))


def test_a_vector_tied_to_its_neighbours_is_one_factor():
    """Differences of neighbours seen beside counts: the walk again, written as a plate."""

    def model(counts):
        with pyro.plate("t", len(counts)):
            x = pyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))
            pyro.sample("y", dist.Poisson(x.exp()), obs=counts)
        first = torch.zeros(1, dtype=torch.float64)
        pyro.sample("start", dist.Normal(x[:1], 1.0).to_event(1), obs=first)
        steps = torch.zeros(len(counts) - 1, dtype=torch.float64)
        pyro.sample("steps", dist.Normal(x[1:] - x[:-1], 0.5).to_event(1), obs=steps)

    fit = cavi(Problem(model, COUNTS), tol=1e-12)
    chain = cavi(Problem(chain_of_counts, COUNTS), tol=1e-12)
    assert fit.bound == pytest.approx(chain.bound, abs=1e-9)


def test_trained_parameters_meet_shared_factors():
    def model(counts, spread=None):
        one, positive = torch.tensor(1.0, dtype=torch.float64), dist.constraints.positive
        s = pyro.param("s", one, constraint=positive) if spread is None else spread
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(counts)):
            x = pyro.sample("x", dist.Normal(level, s))
            pyro.sample("y", dist.Poisson(x.exp()), obs=counts)

    counts = COUNTS[:12] ** 2
    fit = cavi(Problem(model, counts))
    best = float(fit.problem.params["params"]["s"].detach().exp())
    at_best = cavi(Problem(model, counts, best)).bound
    assert fit.bound == pytest.approx(at_best, abs=1e-6)
    assert all(cavi(Problem(model, counts, best * c)).bound < at_best for c in (0.95, 1.05))
