"""Parameters of the model under coordinate ascent: the maximum of the bound, against closed forms."""

import _thread
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints

from vitools import Problem, cavi, load, save
from vitools.errors import NumericalError
from vitools.posterior import Status


def drawn(distribution, *shape, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return distribution.sample(shape)


def number(value):
    return torch.tensor(value, dtype=torch.float64)


NORMAL = 1.7 * drawn(dist.Normal(number(0.3), 1.0), 50)


def normal_means(y):
    level = pyro.param("level", number(0.0))
    tau = pyro.param("tau", number(1.0), constraint=constraints.positive)
    with pyro.plate("rows", len(y)):
        theta = pyro.sample("theta", dist.Normal(level, tau))
        pyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def trained(fit):
    return {name: value.detach() for name, value in fit.problem.params["params"].items()}


def test_empirical_bayes_of_normal_means_is_the_closed_form():
    """y ~ N(μ, 1 + τ²): μ̂ = ȳ, τ̂² = the variance of y less one, and the bound is the evidence."""
    fit = cavi(Problem(normal_means, NORMAL))
    values, variance = trained(fit), NORMAL.var(unbiased=False)
    assert torch.allclose(values["level"], NORMAL.mean(), atol=1e-6)
    assert torch.allclose(values["tau"].exp() ** 2, variance - 1, atol=1e-6)
    evidence = dist.Normal(NORMAL.mean(), variance.sqrt()).log_prob(NORMAL).sum()
    assert abs(fit.bound - float(evidence)) < 1e-9
    assert fit.elbo().is_exact
    assert "parameters of the model trained through the bound: level, tau" in fit.detail
    assert all(b >= a - 1e-9 for a, b in zip(fit.history.elbo, fit.history.elbo[1:], strict=False))
    shrunk = NORMAL.mean() + (1 - 1 / variance) * (NORMAL - NORMAL.mean())
    assert torch.allclose(fit.mean()["theta"], shrunk, atol=1e-6)


def test_a_scale_at_its_boundary_is_approached_without_leaving_the_constraint():
    """Data narrower than their own noise: τ̂ = 0, the bound that of no effects."""
    y = NORMAL / 10
    fit = cavi(Problem(normal_means, y))
    assert 0 <= float(trained(fit)["tau"].exp()) < 0.05
    assert abs(fit.bound - float(dist.Normal(y.mean(), 1.0).log_prob(y).sum())) < 0.01


@pytest.mark.parametrize("start", [1.0, 30.0])
def test_a_scale_without_a_constraint_ends_where_one_with_it_does(start):
    """y_n ~ N(0, s²) far below its start: σ̂² = the mean of y², although the first step is beyond 0."""
    y = NORMAL / 100

    def model():
        scale = pyro.param("scale", number(start))
        pyro.sample("other", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(0.0, scale), obs=y)

    fit = cavi(Problem(model))
    assert abs(float(trained(fit)["scale"]) / float(y.square().mean().sqrt()) - 1) < 1e-4
    assert fit.status is Status.CONVERGED


def test_a_parameter_held_by_the_edge_of_what_is_allowed_is_named():
    """Zeros of a Poisson: its rate would go to 0 at a slope of one nat a row, and has no constraint."""

    def model():
        rate = pyro.param("rate", number(2.0))
        scale = pyro.param("scale", number(1.0), constraint=constraints.positive)
        pyro.sample("other", dist.Normal(0.0, scale))
        pyro.sample("seen", dist.Normal(0.0, scale), obs=number(1.0))
        with pyro.plate("rows", 30):
            pyro.sample("y", dist.Poisson(rate), obs=torch.zeros(30, dtype=torch.float64))

    with pytest.raises(
        NumericalError, match=r"parameters 'rate': the bound still rises .*constraint="
    ):
        cavi(Problem(model))


def test_parameters_of_a_gamma_prior_maximise_the_negative_binomial_likelihood():
    """Counts with Gamma(a, b) rates: the gradient of the closed-form marginal likelihood is zero."""
    counts = drawn(dist.GammaPoisson(number(2.0), 0.5), 40)

    def model(counts):
        a = pyro.param("a", number(1.0), constraint=constraints.positive)
        b = pyro.param("b", number(1.0), constraint=constraints.positive)
        with pyro.plate("rows", len(counts)):
            rate = pyro.sample("rate", dist.Gamma(a, b))
            pyro.sample("count", dist.Poisson(rate), obs=counts)

    fit = cavi(Problem(model, counts))
    a, b = (trained(fit)[name].clone().requires_grad_() for name in "ab")
    evidence = dist.GammaPoisson(a.exp(), b.exp()).log_prob(counts).sum()
    assert abs(fit.bound - float(evidence.detach())) < 1e-8
    for slope in torch.autograd.grad(evidence, [a, b]):
        assert abs(float(slope)) < 1e-3


X = drawn(dist.Normal(number(0.0), 1.0), 60)
SIGNS = drawn(dist.Bernoulli(logits=1.0 + 2.0 * X), seed=1)


def logistic(y):
    spread = pyro.param("spread", number(1.0), constraint=constraints.positive)
    offset = pyro.param("offset", number(0.0))
    slope = pyro.sample("slope", dist.Normal(0.0, spread))
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(X)):
        pyro.sample("y", dist.Bernoulli(logits=slope * X + level + offset), obs=y)


def half_cauchy(y):
    width = pyro.param("width", number(1.0), constraint=constraints.positive)
    scale = pyro.sample("scale", dist.HalfCauchy(width))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(0.0, scale), obs=y)


def log_rates(y):
    """The data inside a curved function follow from a parameter."""
    shape = pyro.param("shape", number(1.0), constraint=constraints.positive)
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(X)):
        mean = (level + slope * X).exp()
        pyro.sample("y", dist.Gamma(shape, shape / mean), obs=y)


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (logistic, SIGNS),
        (half_cauchy, NORMAL),
        (log_rates, drawn(dist.Gamma(number(3.0), 3 / (0.5 + X).exp()), seed=2)),
    ],
    ids=["under a predictor", "inside a prior", "inside a curved function"],
)
def test_no_other_value_of_a_parameter_has_a_higher_bound(model, data):
    fit = cavi(Problem(model, data))
    best = trained(fit)
    step, falls = 0.02, []
    for name in best:
        for sign in (-1, 1):
            moved = {
                key: torch.nn.Parameter(value + sign * step * (key == name))
                for key, value in best.items()
            }
            params = {"params": moved, "constraints": fit.problem.params["constraints"]}
            falls.append(fit.bound - cavi(fit.problem.with_params(params)).bound)
        below, above = falls[-2:]
        assert min(below, above) > 0
        # a parabola through the three points has its top at the answer
        assert abs(above - below) / (2 * (above + below)) * step < 1e-3
    assert math.isfinite(fit.bound)


def test_modules_are_trained_and_come_back_from_a_file(tmp_path):
    """A linear prior mean by ``pyro.module``: generalised least squares of y on x."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Linear(1, 1).double()
    y = 2 * X - 1 + drawn(dist.Normal(number(0.0), 1.0), 60, seed=3)

    def model(x, y):
        pyro.module("network", network)
        with pyro.plate("rows", len(x)):
            theta = pyro.sample("theta", dist.Normal(network(x[:, None])[:, 0], 0.5))
            pyro.sample("y", dist.Normal(theta, 1.0), obs=y)

    before = [p.detach().clone() for p in network.parameters()]
    fit = cavi(Problem(model, X, y))
    design = torch.stack([X, torch.ones_like(X)], -1)
    slope, level = torch.linalg.lstsq(design, y).solution
    values = trained(fit)
    assert abs(float(values["network$$$weight"]) - float(slope)) < 1e-5
    assert abs(float(values["network$$$bias"]) - float(level)) < 1e-5
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert fit.log_weights(5, seed=1).std() < 1e-8  # q is exact where the parameters are
    save(fit, tmp_path / "fit")
    back = load(tmp_path / "fit", Problem(model, X, y))
    assert back.bound == fit.bound
    assert torch.equal(back.mean()["theta"], fit.mean()["theta"])


def test_a_length_scale_inside_a_kernel_maximises_the_marginal_likelihood():
    """y = f + noise, f ~ N(0, K(ℓ)): the gradient of log N(y; 0, K(ℓ) + I) is zero, the bound is its value."""
    t = torch.linspace(0.0, 1.0, 12, dtype=torch.float64)
    y = 2 * torch.sin(6 * t) + 0.3 * drawn(dist.Normal(number(0.0), 1.0), 12, seed=4)

    def kernel(length):
        return (
            4 * torch.exp(-0.5 * ((t[:, None] - t) / length) ** 2) + 1e-3 * torch.eye(12).double()
        )

    def model(y):
        length = pyro.param("length", number(0.1), constraint=constraints.positive)
        f = pyro.sample("f", dist.MultivariateNormal(torch.zeros(12).double(), kernel(length)))
        with pyro.plate("rows", 12):
            pyro.sample("y", dist.Normal(f, 1.0), obs=y)

    fit = cavi(Problem(model, y))
    free = trained(fit)["length"].clone().requires_grad_()
    whole = kernel(free.exp()) + torch.eye(12).double()
    evidence = dist.MultivariateNormal(torch.zeros(12).double(), whole).log_prob(y)
    assert abs(fit.bound - float(evidence.detach())) < 1e-6
    assert abs(float(torch.autograd.grad(evidence, free)[0])) < 1e-3


def test_parameters_that_were_given_are_held():
    problem = Problem(normal_means, NORMAL)
    fit = cavi(problem.with_params(problem.params))
    assert "parameters held at the values given: level, tau" in fit.detail
    assert float(trained(fit)["tau"].exp()) == 1.0


def test_an_interrupted_run_keeps_the_best_so_far():
    calls = []

    def model(y):
        calls.append(1)
        if len(calls) == 6:
            _thread.interrupt_main()
        normal_means(y)

    problem = Problem(model, NORMAL)
    calls.clear()
    fit = cavi(problem)
    assert fit.status is Status.INTERRUPTED
    assert fit.bound == max(fit.history.elbo)
    again = cavi(fit.problem.with_params(fit.problem.params))
    assert abs(again.bound - fit.bound) < 1e-6


def test_the_same_seed_gives_the_same_numbers():
    one, two = (cavi(Problem(logistic, SIGNS), seed=3) for _ in range(2))
    assert one.bound == two.bound
    assert all(torch.equal(trained(one)[k], trained(two)[k]) for k in trained(one))
