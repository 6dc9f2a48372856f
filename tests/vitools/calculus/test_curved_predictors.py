"""Curved functions of Gaussian predictors: the bound written out, stationary where the fit is."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugacy_checks import assert_bound_matches_monte_carlo, assert_never_falls, fitted
from pyro import sample
from scipy import integrate, special, stats

from vitools import Problem, cavi, load, save
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.densities.rules.bernoulli import log_complement, log_probability
from vitools.errors import NumericalError

_generator = torch.Generator().manual_seed(0)
X = torch.randn(25, 2, generator=_generator, dtype=torch.float64)
Z = torch.randn(25, generator=_generator, dtype=torch.float64)
HITS = (X[:, 0] + Z > 0).double()
CUTS = torch.tensor([-1.0, 0.5], dtype=torch.float64)
GRADES = ((X[:, 0] + Z).unsqueeze(-1) > CUTS).sum(-1)
COUNTS = (X[:, 0] + 0.5 * Z).exp().round()
NODES, WEIGHTS = (torch.as_tensor(a) for a in special.roots_hermitenorm(80))
WEIGHTS = WEIGHTS / math.sqrt(2 * math.pi)


def gaussian_bound(mean, root, design, log_likelihood, prior):
    """E log p(y | η) by Gauss-Hermite, less the divergence from N(0, diag prior)."""
    covariance = root @ root.T
    eta_mean = design @ mean
    eta_sd = ((design @ covariance) * design).sum(-1).sqrt()
    eta = eta_mean.unsqueeze(-1) + eta_sd.unsqueeze(-1) * NODES
    expected = (log_likelihood(eta) * WEIGHTS).sum()
    q = torch.distributions.MultivariateNormal(mean, scale_tril=root)
    p = torch.distributions.MultivariateNormal(torch.zeros_like(mean), prior.diag())
    return expected - torch.distributions.kl_divergence(q, p)


def log_bernoulli(eta):
    return HITS.unsqueeze(-1) * eta - torch.nn.functional.softplus(eta)


def log_probit(eta):
    return torch.special.log_ndtr((2 * HITS - 1).unsqueeze(-1) * eta)


def log_binomial(eta):
    return dist.Binomial(5, logits=eta).log_prob((HITS + 2).unsqueeze(-1))


def log_ordinal(eta):
    return dist.OrderedLogistic(eta, CUTS).log_prob(GRADES.unsqueeze(-1))


def log_poisson(eta):
    return dist.Poisson(eta.exp()).log_prob(COUNTS.unsqueeze(-1))


def log_normal_of_exp(eta):
    return dist.Normal(0.7, eta.exp()).log_prob(Z.unsqueeze(-1))


CURVED = {
    "bernoulli": (lambda eta: dist.Bernoulli(logits=eta), HITS, log_bernoulli),
    "sigmoid": (lambda eta: dist.Bernoulli(torch.sigmoid(eta)), HITS, log_bernoulli),
    "probit": (lambda eta: dist.Bernoulli(dist.Normal(0.0, 1.0).cdf(eta)), HITS, log_probit),
    "Φ": (lambda eta: dist.Bernoulli(torch.special.ndtr(eta)), HITS, log_probit),
    "binomial": (lambda eta: dist.Binomial(5, logits=eta), HITS + 2, log_binomial),
    "ordinal": (lambda eta: dist.OrderedLogistic(eta, CUTS), GRADES, log_ordinal),
    "poisson": (lambda eta: dist.Poisson(eta.exp()), COUNTS, log_poisson),
    "normal scale": (lambda eta: dist.Normal(0.7, eta.exp()), Z, log_normal_of_exp),
}


@pytest.mark.parametrize("name", CURVED)
def test_two_sites_under_a_curved_likelihood(name):
    """One joint factor, at a stationary point of the bound over all normal distributions."""
    likelihood, data, log_likelihood = CURVED[name]

    def model():
        w = sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        b = sample("b", dist.Normal(0.0, 2.0))
        with pyro.plate("n", 25):
            sample("y", likelihood(X @ w + b), obs=data)

    fit = cavi(Problem(model), tol=1e-14, max_sweeps=500)
    (factor,) = fit.factors
    q = factor.distribution
    mean = q.mean.clone().requires_grad_()
    root = torch.linalg.cholesky(q.covariance_matrix).requires_grad_()
    design = torch.cat([X, torch.ones(25, 1)], -1)
    prior = torch.tensor([1.0, 1.0, 4.0])
    bound = gaussian_bound(mean, root.tril(), design, log_likelihood, prior)
    assert fit.elbo().value == pytest.approx(bound.item(), rel=1e-8)
    bound.backward()
    assert float(mean.grad.abs().max()) < 1e-4
    assert float(root.grad.tril().abs().max()) < 1e-4


def test_probabilities_next_to_one_keep_their_complement():
    """1 - σ(η) rounds to 0 from η = 37 on; its logarithm is that of σ(-η)."""

    def model(link):
        w = sample("w", dist.Normal(torch.zeros(2), 30.0).to_event(1))
        with pyro.plate("n", 25):
            sample("y", link(X @ w), obs=(X[:, 0] > 0).double())  # separable: η in the tens

    by_logit = cavi(Problem(model, lambda eta: dist.Bernoulli(logits=eta)), max_sweeps=40)
    by_sigmoid = cavi(Problem(model, lambda eta: dist.Bernoulli(torch.sigmoid(eta))), max_sweeps=40)
    assert by_sigmoid.elbo().value == pytest.approx(by_logit.elbo().value, rel=1e-9)


def test_a_vector_latent_is_a_predictor_itself():
    """f ~ N(0, L Lᵀ) under a logit, as Gaussian process classification has it, is f = L w."""
    root = torch.linalg.cholesky((-((Z.unsqueeze(-1) - Z) ** 2)).exp() + 0.1 * torch.eye(25))
    rows = torch.arange(25)

    def vector():
        f = sample("f", dist.MultivariateNormal(torch.zeros(25), scale_tril=root))
        with pyro.plate("n", 25):
            sample("y", dist.Bernoulli(logits=f[rows]), obs=HITS)

    def written_out():
        w = sample("w", dist.Normal(torch.zeros(25), 1.0).to_event(1))
        with pyro.plate("n", 25):
            sample("y", dist.Bernoulli(logits=root @ w), obs=HITS)

    one, other = cavi(Problem(vector), tol=1e-12), cavi(Problem(written_out), tol=1e-12)
    assert one.elbo().value == pytest.approx(other.elbo().value, rel=1e-9)
    mean = root @ other.mean()["w"]
    torch.testing.assert_close(one.mean()["f"], mean, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "normal_cdf", [dist.Normal(0.0, 1.0).cdf, torch.special.ndtr], ids=["cdf", "ndtr"]
)
def test_probits_far_out_keep_their_tails(normal_cdf):
    """½ (1 + erf(η/√2)) rounds to 0 from η = -8.3 on; one outlier stands at η near -30."""
    x = torch.linspace(-30, 30, 80, dtype=torch.float64)
    hits = (x > 0).double()
    hits[3] = 1.0

    def model():
        w = sample("w", dist.Normal(0.0, 3.0))
        with pyro.plate("n", 80):
            sample("y", dist.Bernoulli(normal_cdf(w * x)), obs=hits)

    def density(w):
        sign = 2 * hits.numpy() - 1
        return np.exp(
            stats.norm.logpdf(w, 0, 3) + special.log_ndtr(sign * w * x.numpy()).sum() + 25
        )

    evidence, _ = integrate.quad(density, -0.1, 1.0, epsabs=0, epsrel=1e-11, limit=400)
    assert cavi(Problem(model)).elbo().value == pytest.approx(math.log(evidence) - 25, rel=1e-8)


@pytest.mark.parametrize("logit", [-30.0, 0.3, 25.0, 800.0, math.inf])
def test_known_logits_keep_the_probability_next_to_one(logit):
    logits = Expression.constant(torch.tensor(logit))
    found = float(log_probability(None, logits).value())
    assert found == pytest.approx(special.log_expit(logit), rel=1e-14)
    assert float(log_complement(None, logits).value()) == pytest.approx(
        special.log_expit(-logit), rel=1e-14
    )


def test_mean_and_log_scale_of_a_regression():
    """Normal(X b, exp(X g)): E (y - xb)² e^(-2xg) = ((y - xm)² + xᵀSx) exp(-2xm' + 2xᵀS'x)."""

    def model():
        b = sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        g = sample("g", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("n", 25):
            sample("y", dist.Normal(X @ b, (X @ g).exp()), obs=Z)

    fit = cavi(Problem(model), tol=1e-14, max_sweeps=500)
    parts = []
    for name in "bg":
        q = fit.marginal(name)
        parts += [q.mean.clone(), torch.linalg.cholesky(q.covariance_matrix)]
    leaves = [part.requires_grad_() for part in parts]
    of_b, root_b, of_g, root_g = leaves
    variance_b, variance_g = (((X @ r.tril()) ** 2).sum(-1) for r in (root_b, root_g))
    weight = (-2 * X @ of_g + 2 * variance_g).exp()
    squares = ((Z - X @ of_b) ** 2 + variance_b) * weight
    expected = (-0.5 * math.log(2 * math.pi) - X @ of_g - 0.5 * squares).sum()
    p = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    for mean, root in ((of_b, root_b), (of_g, root_g)):
        q = torch.distributions.MultivariateNormal(mean, scale_tril=root.tril())
        expected = expected - torch.distributions.kl_divergence(q, p)
    assert fit.elbo().value == pytest.approx(expected.item(), rel=1e-9)
    expected.backward()
    for leaf in leaves:
        slope = leaf.grad.tril() if leaf.dim() == 2 else leaf.grad
        assert float(slope.abs().max()) < 1e-4


def test_group_effects_with_a_half_normal_scale():
    """A logistic regression with varying intercepts: exact bound, optimal updates, no fall."""
    group = torch.arange(25) % 5

    def model():
        tau, b = sample("tau", dist.HalfNormal(1.0)), sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("groups", 5):
            u = sample("u", dist.Normal(0.0, tau))
        with pyro.plate("n", 25):
            sample("y", dist.Bernoulli(logits=b + u[group]), obs=HITS)

    conjugate, bounds = fitted(model, sweeps=30)
    assert_never_falls(bounds)
    assert_bound_matches_monte_carlo(conjugate, model, (), draws=100)


def test_flat_priors_give_least_squares():
    """Under flat priors and noise of sd 0.5: N(β̂, ¼ (XᵀX)⁻¹)."""

    def model():
        real = dist.constraints.real
        w = sample("w", dist.ImproperUniform(dist.constraints.real_vector, (), (2,)))
        b = sample("b", dist.ImproperUniform(real, (), ()))
        with pyro.plate("n", 25):
            sample("y", dist.Normal(X @ w + b, 0.5), obs=Z)

    fit = cavi(Problem(model), tol=1e-14)
    (factor,) = fit.factors
    q = factor.distribution
    design = torch.cat([X, torch.ones(25, 1)], -1)
    gram = design.T @ design
    torch.testing.assert_close(q.mean, torch.linalg.solve(gram, design.T @ Z))
    torch.testing.assert_close(q.covariance_matrix, 0.25 * gram.inverse())
    rest = ((Z - design @ q.mean) ** 2).sum() / 0.5
    truth = -25 * math.log(0.5 * math.sqrt(2 * math.pi)) - rest
    truth = truth + 0.5 * torch.logdet(2 * math.pi * q.covariance_matrix)
    assert fit.elbo().value == pytest.approx(float(truth), rel=1e-9)


def test_integrals_that_fall_short_are_told_with_the_bound(tmp_path):
    """A kink inside an unknown function: quadrature by nodes converges slowly there."""

    def model(link):
        w = sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("n", 25):
            sample("y", dist.Poisson(link(X @ w)), obs=COUNTS)

    rough = Problem(model, lambda eta: torch.nn.functional.softplus(eta.abs()))
    fit = cavi(rough, max_sweeps=5)
    assert "integrals in the bound accurate to about" in fit.detail
    assert fit.elbo().standard_error > 1e-6
    save(fit, tmp_path / "fit.safetensors")
    assert load(tmp_path / "fit.safetensors", rough).elbo() == fit.elbo()
    smooth = cavi(Problem(model, torch.nn.functional.softplus), max_sweeps=5)
    assert smooth.elbo().is_exact
    assert "integrals" not in smooth.detail


def test_flat_priors_that_the_data_leave_open_are_refused():
    """a + b is known, a - b is not: its precision is rounding, and Cholesky may pass."""

    def model(y):
        flat = dist.ImproperUniform(dist.constraints.real, (), ())
        a, b = sample("a", flat), sample("b", flat)
        with pyro.plate("n", len(y)):
            sample("y", dist.Normal(a + b, 1.0), obs=y)

    for y in (Z, 1e3 * Z[:7]):
        with pytest.raises(NumericalError, match="improper"):
            cavi(Problem(model, y))


def test_flat_priors_of_a_far_covariate_are_taken():
    """Calendar years: 1 - R² of the slope on the intercept is 2e-6, far above rounding."""
    years = torch.arange(2000.0, 2010.0, dtype=torch.float64)
    y = 3 + 0.5 * (years - 2005) + Z[:10]

    def model():
        flat = dist.ImproperUniform(dist.constraints.real, (), ())
        a, b = sample("a", flat), sample("b", flat)
        with pyro.plate("n", 10):
            sample("y", dist.Normal(a + b * years, 1.0), obs=y)

    fit = cavi(Problem(model))
    slope, _ = np.polyfit(years.numpy(), y.numpy(), 1)
    assert float(fit.mean()["b"]) == pytest.approx(slope, rel=1e-6)
    spread = float((years - years.mean()).square().sum())
    assert float(fit.sd()["b"]) == pytest.approx(spread**-0.5, rel=1e-6)
