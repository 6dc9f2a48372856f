"""Fisher's information, what it bounds and how it changes: closed forms, regressions, simulations."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from seeds import assert_within_errors
from torch.distributions import Bernoulli, Exponential, MultivariateNormal, Normal, Uniform

from vitools import Estimate, Problem
from vitools.errors import NotSupportedError, NumericalError, OptionError
from vitools.information import (
    cramer_rao,
    fisher_information,
    jeffreys_log_density,
    reparameterised,
    reparameterised_log_density,
)


def T(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


X = torch.linspace(-1, 1, 9, dtype=torch.float64)


@pytest.mark.parametrize(
    ("likelihood", "at", "exact"),
    [
        (lambda p: Bernoulli(p), 0.2, [[6.25]]),
        (lambda p: dist.Binomial(10, p), 0.2, [[62.5]]),
        (lambda rate: dist.Poisson(rate), 3.0, [[1 / 3]]),
        (lambda rate: Exponential(rate), 2.0, [[0.25]]),
        (lambda t: Normal(t[0], t[1]), T([1.0, 2.0]), [[0.25, 0], [0, 0.5]]),
        (lambda m, s: Normal(m, s), {"m": 1.0, "s": 2.0}, [[0.25, 0], [0, 0.5]]),
        (lambda s: dist.Normal(0.0, s).expand([7]).to_event(1), 2.0, [[3.5]]),
        (lambda m: dist.Cauchy(m, 1.0), 0.0, [[0.5]]),
        (lambda m: dist.Laplace(m, 2.0), 0.3, [[0.25]]),
        (lambda a: dist.Gamma(a, 1.0), 2.0, [[math.pi**2 / 6 - 1]]),
        (lambda p: dist.Categorical(torch.stack([p[0], p[1], 1 - p[0] - p[1]])), T([0.2, 0.3]),
         [[1 / 0.2 + 2, 2], [2, 1 / 0.3 + 2]]),
        (lambda w: Bernoulli(logits=w[0] + w[1] * X), T([0.0, 0.0]),
         [[9 / 4, 0], [0, float(X.square().sum()) / 4]]),
        (lambda t: MultivariateNormal(t * torch.ones(2).double(), T([[1.0, 0.5], [0.5, 1.0]])), 0.7, [[4 / 3]]),
        (lambda s: MultivariateNormal(torch.zeros(3).double(), s * torch.eye(3).double()), 2.0, [[3 / 8]]),
    ],
)  # fmt: skip
def test_closed_forms(likelihood, at, exact):
    found = fisher_information(likelihood, at)
    assert found.is_exact
    assert torch.allclose(found.matrix, T(exact), rtol=2e-7, atol=1e-9)


def test_simulated_it_is_within_its_errors():
    for entry, exact in (((0, 0), 0.25), ((1, 1), 0.5)):
        found = [
            fisher_information(lambda t: Normal(t[0], t[1]), T([1.0, 2.0]), simulate=True, num_samples=1000, seed=s)[entry]
            for s in range(25)
        ]  # fmt: skip
        assert_within_errors(found, exact)


def regression(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(T(1.0)))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(w[0] + w[1] * x, sigma), obs=y)


AT = {"w": T([0.5, -1.0]), "sigma": T(0.5)}


def exact_regression():
    design = torch.stack([torch.ones(9).double(), X], 1)
    return torch.block_diag(4 * design.mT @ design, T([[2 * 9 * 4]]))


def test_of_a_problem():
    found = fisher_information(Problem(regression, X, X), AT)
    assert found.is_exact
    assert torch.allclose(found.matrix, exact_regression(), atol=1e-8)
    assert found.point.slices == {"w": slice(0, 2), "sigma": slice(2, 3)}


def test_of_a_problem_simulated():
    problem = Problem(regression, X, X)
    found = [
        fisher_information(problem, AT, simulate=True, num_samples=500, seed=s) for s in range(20)
    ]
    exact = exact_regression()
    for entry in ((0, 0), (2, 2)):
        assert_within_errors([f[entry] for f in found], float(exact[entry]))


def mixture(y):
    mu = pyro.sample("mu", dist.Normal(T(0.0), 3.0))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Bernoulli(T(0.5)))
        pyro.sample("y", dist.Normal(mu * (2 * z - 1), 1.0), obs=y)


def test_discrete_latents_are_summed_out():
    """E tanh²(μy) y²: of a symmetric pair of normals, by quadrature here."""
    mu, y = 1.2, torch.linspace(-12, 12, 20001, dtype=torch.float64)
    density = 0.5 * (Normal(mu, 1.0).log_prob(y).exp() + Normal(-mu, 1.0).log_prob(y).exp())
    score = y * torch.tanh(mu * y) - mu
    exact = 4 * float(torch.trapezoid(density * score**2, y))
    problem = Problem(mixture, torch.zeros(4).double())
    found = [fisher_information(problem, {"mu": mu}, num_samples=400, seed=s) for s in range(20)]
    assert not found[0].is_exact
    assert_within_errors([f[0, 0] for f in found], exact)


def series(y):
    """Each observation's mean is the one before it: independent only given the data."""
    a = pyro.sample("a", dist.Normal(T(0.0), 1.0))
    before = T(1.0)
    for t in range(3):
        before = pyro.sample(f"y_{t}", dist.Normal(a * before, 1.0), obs=y[t])


def test_observations_that_depend_on_each_other_are_simulated():
    """F = Σ_t E y_{t-1}² with y_{-1} = 1: 1 + (a² + 1) + (a² (a² + 1) + 1)."""
    a = 0.8
    second = a**2 + 1
    third = a**2 * second + 1
    problem = Problem(series, T([0.3, 0.1, -0.2]))
    found = [fisher_information(problem, {"a": a}, num_samples=500, seed=s) for s in range(20)]
    assert_within_errors([f[0, 0] for f in found], 1 + second + third)


# ---- what follows from it ----------------------------------------------------------------------


def test_cramer_rao_of_parameters_and_of_a_function():
    fisher = fisher_information(Problem(regression, X, X), AT)
    bound = cramer_rao(fisher)
    assert torch.allclose(bound.matrix, torch.linalg.inv(exact_regression()), atol=1e-10)
    slope = cramer_rao(fisher, lambda at: at["w"][1] / at["sigma"])
    jacobian = T([0.0, 2.0, 4.0])
    exact = jacobian @ torch.linalg.inv(exact_regression()) @ jacobian
    assert slope[0, 0].value == pytest.approx(float(exact), rel=1e-8)
    biased = cramer_rao(fisher_information(lambda m: Normal(m, 1.0), 2.0), bias=lambda m: -0.5 * m)
    assert biased[0, 0].value == pytest.approx(0.25)


def test_no_estimator_of_a_rate_beats_it():
    """(n - 1) / Σ y is unbiased for the rate of exponential data; its variance is λ² / (n - 2)."""
    bound = cramer_rao(fisher_information(lambda rate: Exponential(rate).expand([10]), 2.0))
    assert bound[0, 0].value == pytest.approx(4 / 10)
    assert bound[0, 0].value < 4 / 8


def test_errors_of_what_is_computed_from_a_simulated_matrix():
    found = [
        fisher_information(lambda t: Normal(t[0], t[1]), T([1.0, 2.0]), simulate=True, num_samples=2000, seed=s)
        for s in range(30)
    ]  # fmt: skip
    bounds = [cramer_rao(f) for f in found]
    assert_within_errors([b[0, 0] for b in bounds], 4.0, degrees=49)
    half = [f.log_det() for f in found]
    assert_within_errors(half, math.log(0.125), degrees=49)


def test_under_another_parameter():
    """Of a normal: σ → log σ gives 2, whatever σ; a curve through (μ, σ) gives one number."""
    fisher = fisher_information(lambda t: Normal(t[0], t[1]), T([1.0, 2.0]))
    logs = reparameterised(fisher, lambda t: torch.stack([t[0], t[1].exp()]), T([1.0, math.log(2)]))
    assert torch.allclose(logs.matrix, T([[0.25, 0], [0, 2.0]]), atol=1e-9)
    curve = reparameterised(fisher, lambda t: torch.stack([t**2, 2 * t]), 1.0)
    assert curve[0, 0].value == pytest.approx(4 * 0.25 + 4 * 0.5)
    chain = torch.distributions.ExpTransform()
    rate = fisher_information(lambda r: Exponential(r), 2.0)
    assert reparameterised(rate, chain, math.log(2))[0, 0].value == pytest.approx(1.0)


def test_jeffreys_density_is_the_same_in_any_parameter():
    by_rate = jeffreys_log_density(lambda r: Exponential(r), 2.0)
    moved = reparameterised_log_density(
        lambda r: T(jeffreys_log_density(lambda q: Exponential(q), float(r)).value),
        torch.exp,
        math.log(2),
    )
    by_log = jeffreys_log_density(lambda u: Exponential(u.exp()), math.log(2))
    assert by_rate.value == pytest.approx(-math.log(2))
    assert float(moved) == pytest.approx(by_log.value, abs=1e-9)


# ---- refusals ----------------------------------------------------------------------------------


def on_simplex(y):
    p = pyro.sample("p", dist.Dirichlet(torch.ones(3).double()))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Categorical(p), obs=y)


def up_to(y):
    end = pyro.sample("end", dist.Gamma(T(2.0), T(1.0)))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Uniform(T(0.0), end), obs=y)


def by_factor(y):
    mean = pyro.sample("mean", dist.Normal(T(0.0), T(1.0)))
    pyro.factor("likelihood", dist.Normal(mean, T(1.0)).log_prob(y).sum())


def half_unlikely(y):
    p = pyro.sample("p", dist.Beta(T(1.0), T(1.0)))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Bernoulli(p))
        pyro.sample("y", dist.Normal(z, T(1.0)), obs=y)


@pytest.mark.parametrize("simulate", [False, True])
@pytest.mark.parametrize(
    ("model", "at", "words"),
    [
        (lambda p: Bernoulli(p), 0.0, "at: 'probs' of the Bernoulli is 0 there, the edge of its range"),
        (lambda p: Bernoulli(p), 1.0, "'probs' of the Bernoulli is 1 there"),
        (lambda p: Bernoulli(p**2), 0.0, "'probs' of the Bernoulli is 0"),
        (lambda p: dist.Binomial(10, p).expand([3]).to_event(1), 0.0, "'probs' of the Binomial is 0"),
        (lambda rate: dist.Poisson(rate), 0.0, "'rate' of the Poisson is 0"),
        (lambda s: Normal(0.0, s), 0.0, "'scale' of the Normal is 0"),
        (lambda p: dist.Categorical(torch.stack([p[0], p[1], 1 - p[0] - p[1]])), T([0.5, 0.5]), "'probs' of the Categorical is 0"),
        (Problem(half_unlikely, X), {"p": 1.0}, "'probs' of the Bernoulli is 1"),
    ],
)  # fmt: skip
def test_at_an_edge_there_is_none(model, at, words, simulate):
    with pytest.raises(NotSupportedError, match=words):
        fisher_information(model, at, simulate=simulate)


def test_a_constant_on_an_edge_is_no_edge_of_the_parameter():
    """A class that never comes, and a prior's edge where the likelihood is smooth."""
    found = fisher_information(
        lambda p: dist.Categorical(torch.stack([p, 1 - p, torch.zeros_like(p)])), 0.2
    )
    assert found[0, 0].value == pytest.approx(6.25)
    ends = Problem(lambda y: pyro.sample("y", dist.Normal(pyro.sample("m", dist.Uniform(T(0.0), T(1.0))), 1.0), obs=y), T(0.3))  # fmt: skip
    assert fisher_information(ends, {"m": 0.0})[0, 0].value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: fisher_information(Problem(up_to, X.abs()), {"end": 2.0 + float(X.abs().max())}, simulate=True), NotSupportedError, "support of the data moves"),
        (lambda: fisher_information(Problem(by_factor, X), {"mean": 0.5}), NotSupportedError, "pyro.factor statement .'likelihood'."),
        (lambda: fisher_information(3, 1.0), OptionError, "model: expected a Problem, or a function"),
        (lambda: fisher_information(lambda p: p, 1.0), OptionError, "returns a distribution, got Tensor"),
        (lambda: fisher_information(lambda p: Bernoulli(p), math.nan), OptionError, "at: expected finite real numbers"),
        (lambda: fisher_information(lambda p: Bernoulli(p), "x"), OptionError, "at: expected a number or a tensor, got str"),
        (lambda: fisher_information(lambda p: Bernoulli(p), {}), OptionError, "at: expected a value of the parameters"),
        (lambda: fisher_information(lambda p: Bernoulli(p), 0.5, num_samples=3), OptionError, "num_samples"),
        (lambda: fisher_information(lambda b: Uniform(T(0.0), b), 2.0), NotSupportedError, "support of the data moves"),
        (lambda: fisher_information(lambda b: Uniform(T(0.0), b), 2.0, simulate=True), NotSupportedError, "support of the data moves"),
        (lambda: fisher_information(Problem(regression, X, X), 1.0), OptionError, "at: expected {site: value} for w, sigma"),
        (lambda: fisher_information(Problem(regression, X, X), {"w": T([0.0, 1.0])}), OptionError, "expected a value of 'sigma' too"),
        (lambda: fisher_information(Problem(regression, X, X), {**AT, "sgma": 1}), OptionError, "no latent 'sgma'.*sigma"),
        (lambda: fisher_information(Problem(regression, X, X), {**AT, "w": 1.0}), OptionError, r"at\['w'\]: expected shape \[2\], got \[\]"),
        (lambda: fisher_information(Problem(regression, X, X), {**AT, "sigma": -1.0}), OptionError, r"at\['sigma'\]: expected a value in"),
        (lambda: fisher_information(Problem(on_simplex, T([0, 1]).long()), {"p": T([0.2, 0.3, 0.5])}), NotSupportedError, "entries are not free"),
        (lambda: cramer_rao(Estimate(1.0)), OptionError, "fisher: expected the result of fisher_information"),
        (lambda: cramer_rao(fisher_information(lambda t: Normal(t[0] + t[1], 1.0), T([1.0, 2.0]))), NumericalError, "singular"),
        (lambda: cramer_rao(fisher_information(lambda m: Normal(m, 1.0), 2.0), estimand=3), OptionError, "estimand: expected a function"),
        (lambda: cramer_rao(fisher_information(lambda m: Normal(m, 1.0), 2.0), bias=lambda m: torch.stack([m, m])), OptionError, "bias: expected 1 numbers"),
        (lambda: reparameterised(fisher_information(lambda m: Normal(m, 1.0), 2.0), torch.exp, 2.0), OptionError, "at: expected a point that to_theta maps to"),
        (lambda: reparameterised_log_density(lambda m: m, lambda m: torch.stack([m, m]), 2.0), OptionError, "to_theta: expected as many parameters"),
    ],
)  # fmt: skip
def test_what_is_refused(call, kind, words):
    with pytest.raises(kind, match=words) as found:
        call()
    assert str(found.value)[-1] in ".?"
