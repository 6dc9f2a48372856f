"""log_joint against formulas written out with torch.distributions, and against Pyro's own traces."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from density_checks import assert_close, rand, randn
from pyro import poutine
from pyro.infer.reparam import LocScaleReparam
from torch import distributions as td

from vitools.errors import VitoolsWarning
from vitools.problem import Problem


def eight_schools(sigma, y):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)
    return theta


Y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]).double()
SIGMA = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]).double()


def test_hierarchy_is_its_formula():
    problem = Problem(eight_schools, SIGMA, y=Y)
    values = {"mu": randn(5, 3), "tau": rand(5, 3) + 0.1, "theta": randn(5, 3, 8, seed=1)}
    mu, tau, theta = values["mu"], values["tau"], values["theta"]
    expected = (
        td.Normal(0.0, 5.0).log_prob(mu)
        + td.HalfCauchy(5.0).log_prob(tau)
        + td.Normal(mu[..., None], tau[..., None]).log_prob(theta).sum(-1)
        + td.Normal(theta, SIGMA).log_prob(Y).sum(-1)
    )
    assert_close(problem.log_joint(values), expected)


def test_sample_dims_broadcast_and_may_be_absent():
    problem = Problem(eight_schools, SIGMA, Y)
    one = {"mu": randn(), "tau": rand() + 0.1, "theta": randn(8)}
    assert problem.log_joint(one).shape == ()
    mixed = {"mu": randn(4, 1), "tau": rand(3) + 0.1, "theta": randn(8)}
    result = problem.log_joint(mixed)
    assert result.shape == (4, 3)
    again = problem.log_joint({"mu": mixed["mu"][2, 0], "tau": mixed["tau"][1], "theta": randn(8)})
    assert_close(result[2, 1], again)


def test_gradient_flows_through_log_joint():
    problem = Problem(eight_schools, SIGMA, Y)
    mu = torch.tensor(0.7, requires_grad=True)
    theta = randn(8)
    problem.log_joint({"mu": mu, "tau": torch.tensor(2.0), "theta": theta}).backward()
    assert_close(mu.grad, -0.7 / 25 + ((theta - 0.7) / 4).sum().item())


def test_values_beyond_their_bounds_have_density_zero():
    def model():
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        s = pyro.sample("s", dist.Exponential(1.0).expand([2]).to_event(1))
        pyro.sample("x", dist.Binomial(3, p), obs=torch.tensor(1.0) + 0 * s.sum().long())

    values = {
        "p": torch.tensor([0.5, 1.5, -0.1, 0.5]),
        "s": torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, -2.0]]),
    }
    result = Problem(model).log_joint(values)
    assert math.isfinite(result[0])
    assert result[1:].tolist() == [-math.inf] * 3


def unplated(y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0))
    s = pyro.sample("s", dist.LogNormal(0.0, 1.0))
    pyro.sample("y", dist.Normal(w, s), obs=y)


def test_batch_dims_outside_plates_are_summed_and_named():
    y = randn(3, seed=4)
    problem = Problem(unplated, y)
    values = {"w": randn(6, 3), "s": rand(6) + 0.5}
    w, s = values["w"], values["s"]
    likelihood = td.Normal(w, s[:, None]).log_prob(y)
    expected = td.Normal(0.0, 1.0).log_prob(w).sum(-1) + td.LogNormal(0.0, 1.0).log_prob(s)
    assert_close(problem.log_joint(values), expected + likelihood.sum(-1))
    assert problem.latents["w"].plates == ("w_dim_0",)
    assert (problem.plates["y_dim_0"].size, problem.plates["y_dim_0"].dim) == (3, -1)
    assert problem.unit_plates(values) == {"y": ("y_dim_0",)}
    assert_close(problem.pointwise_log_likelihood(values)["y"], likelihood)


def test_plates_with_gaps_and_plates_of_one():
    x = randn(4, 1, 2)

    def model(x):
        with pyro.plate("a", 4, dim=-3):
            m = pyro.sample("m", dist.Normal(0.0, 1.0))
            with pyro.plate("b", 2, dim=-1), pyro.plate("one", 1, dim=-2):
                pyro.sample("x", dist.Normal(m, 2.0), obs=x)

    problem = Problem(model, x)
    m = randn(5, 4, 1, 1, seed=2)
    likelihood = td.Normal(m, 2.0).log_prob(x)
    assert_close(
        problem.log_joint({"m": m}),
        td.Normal(0.0, 1.0).log_prob(m).flatten(1).sum(1) + likelihood.flatten(1).sum(1),
    )
    assert problem.unit_plates({"m": m}) == {"x": ("a", "one", "b")}
    assert_close(problem.pointwise_log_likelihood({"m": m})["x"], likelihood)


def test_sequential_plates():
    y = randn(3, 2)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        for i in pyro.plate("groups", 3):
            a = pyro.sample(f"a_{i}", dist.Normal(mu, 1.0))
            with pyro.plate(f"within_{i}", 2):
                pyro.sample(f"y_{i}", dist.Normal(a, 0.5), obs=y[i])

    problem = Problem(model, y)
    mu, a = randn(5), randn(5, 3, seed=1)
    expected = (
        td.Normal(0.0, 1.0).log_prob(mu)
        + td.Normal(mu[:, None], 1.0).log_prob(a).sum(1)
        + td.Normal(a[..., None], 0.5).log_prob(y).sum((1, 2))
    )
    values = {"mu": mu} | {f"a_{i}": a[:, i] for i in range(3)}
    assert_close(problem.log_joint(values), expected)


def test_constrained_supports():
    def model(y):
        theta = pyro.sample("theta", dist.Dirichlet(torch.tensor([2.0, 1.0, 0.5])))
        low = pyro.sample("L", dist.LKJCholesky(3, 2.0))
        u = pyro.sample("u", dist.Uniform(-1.0, 2.0))
        w = pyro.sample("w", dist.Wishart(torch.tensor(9.0), torch.eye(3)))
        with pyro.plate("rows", 2):
            scale = torch.linalg.cholesky(w)
            pyro.sample("y", dist.MultivariateNormal(theta + u, scale_tril=low @ scale), obs=y)

    y = randn(2, 3)
    problem = Problem(model, y)
    prior = problem.prior(7)
    theta, low, u, w = (prior[k] for k in ("theta", "L", "u", "w"))
    scale = low @ torch.linalg.cholesky(w)
    expected = (
        td.Dirichlet(torch.tensor([2.0, 1.0, 0.5])).log_prob(theta)
        + td.LKJCholesky(3, 2.0).log_prob(low)
        - math.log(3.0)
        + td.Wishart(torch.tensor(9.0), torch.eye(3)).log_prob(w)
        + td.MultivariateNormal((theta + u[:, None])[:, None], scale_tril=scale[:, None])
        .log_prob(y)
        .sum(1)
    )
    assert_close(problem.log_joint(prior), expected)


def test_deterministic_factor_and_delta_sites():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        twice = pyro.deterministic("twice", 2 * mu)
        fixed = pyro.sample("fixed", dist.Delta(torch.tensor(3.0)))
        pyro.factor("extra", -mu.abs())
        pyro.sample("y", dist.Normal(twice + fixed, 1.0), obs=y)

    problem = Problem(model, torch.tensor(1.0))
    assert list(problem.latents) == ["mu"]
    assert list(problem.observed) == ["y"]
    assert list(problem.deterministics) == ["twice", "fixed"]
    mu = randn(9)
    expected = td.Normal(0.0, 1.0).log_prob(mu) - mu.abs()
    expected = expected + td.Normal(2 * mu + 3, 1.0).log_prob(torch.tensor(1.0))
    assert_close(problem.log_joint({"mu": mu}), expected)
    replicated = problem.predictive({"mu": mu})
    assert_close(replicated["twice"], 2 * mu)
    assert_close(replicated["fixed"], torch.full((9,), 3.0))


def test_a_factor_alone_is_a_likelihood():
    def banana():
        x = pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.factor("banana", -((x[..., 1] - x[..., 0] ** 2) ** 2))

    problem = Problem(banana)
    x = randn(4, 2)
    expected = td.Normal(0.0, 1.0).log_prob(x).sum(-1) - (x[:, 1] - x[:, 0] ** 2) ** 2
    assert_close(problem.log_joint({"x": x}), expected)
    assert repr(problem) == "Problem(banana: latents x; observed factors only)"
    assert problem.pointwise_log_likelihood({"x": x}) == {}
    assert problem.predictive({"x": x}) == {}


def test_reparameterised_models():
    reparam = {"theta": LocScaleReparam(0.0)}
    problem = Problem(poutine.reparam(eight_schools, config=reparam), SIGMA, Y)
    assert set(problem.latents) == {"mu", "tau", "theta_decentered"}
    assert list(problem.deterministics) == ["theta"]
    mu, tau, raw = randn(4), rand(4) + 0.1, randn(4, 8, seed=1)
    theta = mu[:, None] + tau[:, None] * raw
    expected = (
        td.Normal(0.0, 5.0).log_prob(mu)
        + td.HalfCauchy(5.0).log_prob(tau)
        + td.Normal(0.0, 1.0).log_prob(raw).sum(-1)
        + td.Normal(theta, SIGMA).log_prob(Y).sum(-1)
    )
    values = {"mu": mu, "tau": tau, "theta_decentered": raw}
    assert_close(problem.log_joint(values), expected)


def test_data_dependent_branch_is_looped_with_one_warning():
    def branching(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        scale = 1.0 if mu > 0 else 2.0
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, scale), obs=y)

    y = randn(5, seed=3)
    problem = Problem(branching, y)
    mu = randn(20)
    with pytest.warns(VitoolsWarning, match="model 'branching' cannot be vectorised") as caught:
        first = problem.log_joint({"mu": mu})
    assert len(caught) == 1
    second = problem.log_joint({"mu": mu})  # said once: warnings are errors here
    problem.pointwise_log_likelihood({"mu": mu})
    assert caught[0].filename == __file__
    scale = torch.where(mu > 0, 1.0, 2.0)[:, None]
    expected = td.Normal(0.0, 1.0).log_prob(mu)
    expected = expected + td.Normal(mu[:, None], scale).log_prob(y).sum(1)
    assert_close(first, expected)
    assert_close(second, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_of_the_problem_is_kept(dtype):
    def model(y):
        mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), y.new_ones(())))
        z = pyro.sample("z", dist.Bernoulli(torch.sigmoid(mu)))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu + z, y.new_ones(())), obs=y)

    problem = Problem(model, randn(4).to(dtype))
    prior = problem.prior(3)
    assert {k: v.dtype for k, v in prior.items()} == {"mu": dtype, "z": dtype}
    assert problem.log_joint(prior).dtype == dtype
    assert problem.log_joint({"mu": prior["mu"]}).dtype == dtype
    assert problem.discrete_marginals({"mu": prior["mu"]})["z"].dtype == dtype
    assert problem.predictive(prior)["y"].dtype == dtype
    torch.set_default_dtype(torch.float32)  # float64 data are not rounded where float32 is default
    assert problem.discrete_marginals({"mu": prior["mu"]})["z"].dtype == dtype
    torch.set_default_dtype(torch.float64)
