"""Where the posterior lies in the family, the bound is the log evidence, known in closed form."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from scipy.special import betaln, gammaln, multigammaln

from vitools.engines.cavi.cavi import cavi
from vitools.problem import Problem


def double(x):
    return torch.tensor(x, dtype=torch.float64)


def bound(model, *data):
    fit = cavi(Problem(model, *data))
    assert fit.status.is_good
    return fit.elbo().value


def test_beta_binomial():
    counts, n = double([3.0, 5.0, 2.0]), 7

    def model(x):
        p = pyro.sample("p", dist.Beta(double(1.5), double(2.5)))
        with pyro.plate("rows", 3):
            pyro.sample("x", dist.Binomial(n, p), obs=x)

    choose = sum(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) for k in counts.tolist())
    truth = choose + betaln(1.5 + 10, 2.5 + 11) - betaln(1.5, 2.5)
    assert bound(model, counts) == pytest.approx(truth, abs=1e-10)


def test_gamma_poisson():
    x = double([2.0, 0.0, 3.0])

    def model(x):
        rate = pyro.sample("rate", dist.Gamma(double(2.0), double(0.5)))
        with pyro.plate("rows", 3):
            pyro.sample("x", dist.Poisson(rate), obs=x)

    truth = 2 * math.log(0.5) - gammaln(2) + gammaln(7) - 7 * math.log(3.5)
    truth -= sum(gammaln(k + 1) for k in x.tolist())
    assert bound(model, x) == pytest.approx(truth, abs=1e-10)


def test_gamma_exponential():
    x = double([0.3, 1.2, 0.7, 2.1])

    def model(x):
        rate = pyro.sample("rate", dist.Gamma(double(1.5), double(2.0)))
        with pyro.plate("rows", 4):
            pyro.sample("x", dist.Exponential(rate), obs=x)

    truth = 1.5 * math.log(2) - gammaln(1.5) + gammaln(5.5) - 5.5 * math.log(2 + 4.3)
    assert bound(model, x) == pytest.approx(truth, abs=1e-10)


def test_inverse_gamma_normal_variance():
    x = double([0.3, -1.2, 0.7])

    def model(x):
        v = pyro.sample("v", dist.InverseGamma(double(2.5), double(1.5)))
        with pyro.plate("rows", 3):
            pyro.sample("x", dist.Normal(double(0.0), v.sqrt()), obs=x)

    # A Student t with 2a degrees of freedom, scale matrix (b/a) I.
    truth = stats.multivariate_t.logpdf(x.numpy(), shape=0.6 * torch.eye(3).double().numpy(), df=5)
    assert bound(model, x) == pytest.approx(truth, abs=1e-10)


@pytest.mark.parametrize("one_hot", [False, True])
def test_dirichlet_multinomial(one_hot):
    x = torch.tensor([0, 2, 2, 1, 2])
    alpha = double([0.5, 1.0, 2.0])

    def model(x):
        p = pyro.sample("p", dist.Dirichlet(alpha))
        with pyro.plate("rows", 5):
            if one_hot:
                hot = torch.nn.functional.one_hot(x, 3).double()
                pyro.sample("x", dist.OneHotCategorical(p), obs=hot)
            else:
                pyro.sample("x", dist.Categorical(p), obs=x)

    posterior = alpha + double([1.0, 1.0, 3.0])

    def log_beta(a):
        return float(torch.lgamma(a).sum() - torch.lgamma(a.sum()))

    truth = log_beta(posterior) - log_beta(alpha)
    assert bound(model, x) == pytest.approx(truth, abs=1e-10)


def test_normal_normal():
    x = double([0.3, -1.2, 0.7])

    def model(x):
        mean = pyro.sample("mean", dist.Normal(double(0.5), double(2.0)))
        with pyro.plate("rows", 3):
            pyro.sample("x", dist.Normal(mean, double(0.7)), obs=x)

    covariance = 0.49 * torch.eye(3, dtype=torch.float64) + 4
    truth = stats.multivariate_normal.logpdf(x.numpy(), [0.5] * 3, covariance.numpy())
    assert bound(model, x) == pytest.approx(truth, abs=1e-10)


@pytest.mark.parametrize("event", [False, True])
def test_linear_regression_with_known_noise(event):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(12, generator=generator, dtype=torch.float64)
    prior = torch.eye(3, dtype=torch.float64) + 0.3

    def model(y):
        if event:
            zero = torch.zeros(3, dtype=torch.float64)
            w = pyro.sample("w", dist.MultivariateNormal(zero, covariance_matrix=prior))
        else:
            with pyro.plate("inputs", 3):
                w = pyro.sample("w", dist.Normal(double(0.0), double(1.5)))
        with pyro.plate("rows", 12):
            pyro.sample("y", dist.Normal(inputs @ w, double(0.7)), obs=y)

    covariance = prior if event else 2.25 * torch.eye(3, dtype=torch.float64)
    marginal = inputs @ covariance @ inputs.T + 0.49 * torch.eye(12, dtype=torch.float64)
    truth = stats.multivariate_normal.logpdf(y.numpy(), [0.0] * 12, marginal.numpy())
    assert bound(model, y) == pytest.approx(truth, abs=1e-10)


# torch warns of a singular Wishart draw although it redraws it.
def test_wishart_precision_of_a_normal_with_known_mean():
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    scale = torch.eye(2, dtype=torch.float64) + 0.2
    nu = 4.0

    def model(x):
        precision = pyro.sample("precision", dist.Wishart(double(nu), covariance_matrix=scale))
        with pyro.plate("rows", 6):
            zero = torch.zeros(2, dtype=torch.float64)
            pyro.sample("x", dist.MultivariateNormal(zero, precision_matrix=precision), obs=x)

    posterior = torch.linalg.inv(scale) + x.T @ x
    truth = -6 * math.log(math.pi) + multigammaln((nu + 6) / 2, 2) - multigammaln(nu / 2, 2)
    truth -= float(0.5 * nu * torch.logdet(scale) + 0.5 * (nu + 6) * torch.logdet(posterior))
    assert bound(model, x) == pytest.approx(truth, abs=1e-10)


def test_joint_block_of_coefficients_and_intercept_is_exact():
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(8, 2, generator=generator, dtype=torch.float64) + 1
    y = torch.randn(8, generator=generator, dtype=torch.float64)

    def model(y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2).double(), double(1.0)).to_event(1))
        b = pyro.sample("b", dist.Normal(double(0.0), double(2.0)))
        with pyro.plate("rows", 8):
            pyro.sample("y", dist.Normal(inputs @ w + b, double(0.5)), obs=y)

    marginal = inputs @ inputs.T + 4 + 0.25 * torch.eye(8, dtype=torch.float64)
    truth = stats.multivariate_normal.logpdf(y.numpy(), [0.0] * 8, marginal.numpy())
    problem = Problem(model, y)
    fit = cavi(problem, joint=[("w", "b")])
    assert fit.elbo().value == pytest.approx(truth, abs=1e-10)
    assert cavi(problem).elbo().value == pytest.approx(truth, abs=1e-10)  # they are coupled
    assert cavi(problem, joint=()).elbo().value < truth - 0.01
    # The density of the joint factor at its own draws averages to minus its entropy.
    values, log_q = fit.sample_with_log_prob(2000, seed=0)
    gap = problem.log_joint(values) - log_q
    assert torch.allclose(gap, gap.new_tensor(truth), atol=1e-6)


def test_missing_entries_drop_out():
    x = double([0.3, -1.2, 0.7, 9.0])
    seen = torch.tensor([True, True, True, False])

    def model(x):
        mean = pyro.sample("mean", dist.Normal(double(0.5), double(2.0)))
        with pyro.plate("rows", 4):
            pyro.sample("x", dist.Normal(mean, double(0.7)).mask(seen), obs=x)

    covariance = 0.49 * torch.eye(3, dtype=torch.float64) + 4
    truth = stats.multivariate_normal.logpdf(x[:3].numpy(), [0.5] * 3, covariance.numpy())
    assert bound(model, x) == pytest.approx(truth, abs=1e-10)
