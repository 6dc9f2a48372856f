"""Heavy tails written as mixtures of normals: as if the user had written the mixture."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi, load, save
from vitools.calculus.start import on_nodes

X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)).double()
Y = X @ torch.tensor([0.5, -0.3]).double() + torch.randn(
    40, generator=torch.Generator().manual_seed(1)
).double().div(3).tan().clamp(-5, 5)


def coefficients():
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    return w, pyro.sample("s", dist.HalfCauchy(2.0))


def student(y):
    w, s = coefficients()
    with pyro.plate("rows", 40):
        pyro.sample("y", dist.StudentT(4.0, X @ w, s), obs=y)


def student_written_out(y):
    w, s = coefficients()
    with pyro.plate("rows", 40):
        weight = pyro.sample("weight", dist.Gamma(2.0, 2.0))
        pyro.sample("y", dist.Normal(X @ w, s * weight.rsqrt()), obs=y)


def freedom(y):
    w, s = coefficients()
    nu = pyro.sample("nu", dist.Gamma(2.0, 0.1))
    with pyro.plate("rows", 40):
        pyro.sample("y", dist.StudentT(nu, X @ w, s), obs=y)


def freedom_written_out(y):
    w, s = coefficients()
    nu = pyro.sample("nu", dist.Gamma(2.0, 0.1))
    with pyro.plate("rows", 40):
        weight = pyro.sample("weight", dist.Gamma(nu / 2, nu / 2))
        pyro.sample("y", dist.Normal(X @ w, s * weight.rsqrt()), obs=y)


def lasso(y):
    w = pyro.sample("w", dist.Laplace(torch.zeros(2), 0.7).to_event(1))
    b = pyro.sample("b", dist.Cauchy(0.0, 2.0))
    with pyro.plate("rows", 40):
        pyro.sample("y", dist.Normal(X @ w + b, 0.5), obs=y)


def lasso_written_out(y):
    v = pyro.sample("v", dist.Exponential(torch.full((2,), 1 / (2 * 0.7**2))).to_event(1))
    w = pyro.sample("w", dist.Normal(torch.zeros(2), v.sqrt()).to_event(1))
    weight = pyro.sample("weight", dist.Gamma(0.5, 0.5))
    b = pyro.sample("b", dist.Normal(0.0, 2.0 * weight.rsqrt()))
    with pyro.plate("rows", 40):
        pyro.sample("y", dist.Normal(X @ w + b, 0.5), obs=y)


def lasso_alone(y):
    w = pyro.sample("w", dist.Laplace(torch.zeros(2), 0.7).to_event(1))
    with pyro.plate("rows", 40):
        pyro.sample("y", dist.Normal(X @ w, 0.5), obs=y)


def lasso_alone_written_out(y):
    v = pyro.sample("v", dist.Exponential(torch.full((2,), 1 / (2 * 0.7**2))).to_event(1))
    w = pyro.sample("w", dist.Normal(torch.zeros(2), v.sqrt()).to_event(1))
    with pyro.plate("rows", 40):
        pyro.sample("y", dist.Normal(X @ w, 0.5), obs=y)


@pytest.mark.parametrize(
    ("model", "written_out"),
    [
        (student, student_written_out),
        (freedom, freedom_written_out),
        (lasso, lasso_written_out),
        (lasso_alone, lasso_alone_written_out),
    ],
)
def test_a_heavy_tail_is_fitted_as_the_mixture_it_is(model, written_out, tmp_path, monkeypatch):
    monkeypatch.setattr(on_nodes, "MOST_INSTEAD", 0)  # as if of more rows
    problem = Problem(model, Y)
    fit, other = cavi(problem, tol=1e-12), cavi(Problem(written_out, Y), tol=1e-12)
    assert fit.bound == pytest.approx(other.bound, abs=1e-6)
    assert set(fit.mean()) == set(problem.latents)
    for name, mean in fit.mean().items():
        torch.testing.assert_close(mean, other.mean()[name], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(fit.sd()[name], other.sd()[name], rtol=1e-5, atol=1e-6)
    weights = fit.log_weights(2000, seed=1)  # of the model as written: its bound is no lower
    assert weights.mean() > fit.bound - 4 * weights.std() / 2000**0.5
    save(fit, tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors", problem)
    drawn = fit.sample(5)
    torch.testing.assert_close(again.log_prob(drawn), fit.log_prob(drawn), rtol=1e-9, atol=1e-9)
