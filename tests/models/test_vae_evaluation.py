"""Figures of a VAE against exact ones: Monte Carlo, quadrature, and the linear case's likelihood."""

import math

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from scipy.stats import multivariate_normal

from vitools.errors import OptionError
from vitools.models.vae import (
    VAE,
    closed_form_kl,
    elbo_terms,
    factor_analysis,
    importance_weighted_log_likelihood,
)

NUM_IMAGES, NUM_PIXELS, LATENT_DIM = 40, 7, 3


@pytest.fixture
def images():
    """Correlated continuous pixels."""
    generator = torch.Generator().manual_seed(5)
    mixing = torch.randn(NUM_PIXELS, NUM_PIXELS, generator=generator, dtype=torch.float64)
    noise = torch.randn(NUM_IMAGES, NUM_PIXELS, generator=generator, dtype=torch.float64)
    return noise @ mixing + torch.arange(NUM_PIXELS)


def linear_vae(mean, loadings, noise_variance):
    """The Gaussian VAE x = W z + μ + noise whose linear encoder is the exact posterior of z.

    Needs Wᵀ diag(ψ)⁻¹ W diagonal, so that the posterior covariance is.
    """
    vae = VAE(len(mean), loadings.shape[1], hidden=(), likelihood="gaussian").double()
    weighted = loadings.T / noise_variance
    precision = (weighted @ loadings).diagonal() + 1
    gain = weighted / precision[:, None]
    with torch.no_grad():
        vae.decoder.network[0].weight.copy_(loadings)
        vae.decoder.network[0].bias.copy_(mean)
        vae.decoder.log_noise_sd.copy_(noise_variance.log() / 2)
        vae.encoder.network[0].weight.copy_(torch.cat([gain, torch.zeros_like(gain)]))
        vae.encoder.network[0].bias.copy_(torch.cat([-gain @ mean, -precision.log() / 2]))
    return vae


def probabilistic_pca(images):
    """Closed-form maximum likelihood, and its total log-likelihood (Tipping & Bishop 1999, (7))."""
    mean = images.mean(0)
    eigenvalues, vectors = torch.linalg.eigh(torch.cov(images.T, correction=0))
    kept, dropped = eigenvalues[-LATENT_DIM:], eigenvalues[:-LATENT_DIM]
    variance = dropped.mean()
    loadings = vectors[:, -LATENT_DIM:] * (kept - variance).sqrt()
    log_determinant = kept.log().sum() + len(dropped) * variance.log()
    log_likelihood = (
        -0.5 * len(images) * (NUM_PIXELS * (math.log(2 * math.pi) + 1) + log_determinant)
    )
    return mean, loadings, variance.expand(NUM_PIXELS), log_likelihood.item()


def test_closed_form_kl_is_the_monte_carlo_kl():
    mean = torch.tensor([[0.3, -1.2, 0.0], [2.0, 0.1, -0.4]], dtype=torch.float64)
    sd = torch.tensor([[0.2, 1.0, 3.0], [0.7, 0.05, 1.4]], dtype=torch.float64)
    noise = torch.randn(
        50_000, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    draws = mean + sd * noise
    log_q = (-0.5 * noise.square() - sd.log()).sum(-1)
    log_p = (-0.5 * draws.square()).sum(-1)
    difference = log_q - log_p
    standard_error = difference.std(0) / math.sqrt(50_000)
    assert (standard_error < 0.05).all()
    assert ((difference.mean(0) - closed_form_kl(mean, sd)).abs() < 4 * standard_error).all()


def test_closed_form_kl_is_zero_only_at_the_prior():
    assert closed_form_kl(torch.zeros(2), torch.ones(2)) == 0
    assert closed_form_kl(torch.zeros(2), torch.tensor([1.0, 0.9])) > 0


def test_linear_gaussian_elbo_is_the_exact_ppca_likelihood(images):
    mean, loadings, noise_variance, exact = probabilistic_pca(images)
    vae = linear_vae(mean, loadings, noise_variance)
    # With q the exact posterior, log p(x, z) - log q(z | x) is log p(x) at every z: one draw is exact.
    with pyro.get_param_store().scope(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        elbo = -Trace_ELBO().loss(vae.model, vae.guide, images)
    assert elbo == pytest.approx(exact, rel=1e-12, abs=1e-8)
    bound = importance_weighted_log_likelihood(vae, images, num_samples=2, seed=1)
    assert bound.value.sum().item() == pytest.approx(exact, rel=1e-12, abs=1e-8)
    assert bound.standard_error.max() < 1e-8


def test_linear_gaussian_bound_is_the_exact_likelihood_of_each_image(images):
    fit = factor_analysis(images, LATENT_DIM)
    covariance = fit.loadings @ fit.loadings.T + fit.noise_variance.diag()
    exact = multivariate_normal(fit.mean.numpy(), covariance.numpy()).logpdf(images.numpy())
    vae = linear_vae(*fit)
    bound = importance_weighted_log_likelihood(vae, images, num_samples=2)
    np.testing.assert_allclose(bound.value.numpy(), exact, rtol=0, atol=1e-8)
    terms = elbo_terms(vae, images, num_samples=2000)
    z_scores = (terms.elbo - torch.as_tensor(exact)) / terms.standard_error
    assert z_scores.abs().max() < 4.5  # the largest of 40 standard normals passes 4.5 once in 3700


def test_bounds_of_a_bernoulli_vae_against_quadrature():
    vae = VAE(num_pixels=5, latent_dim=1, hidden=(6,), seed=3).double()
    with torch.no_grad():
        vae.decoder.network[-1].weight.mul_(4)
        vae.encoder.network[-1].weight[:1].mul_(0.2)
        # q wider than the prior, and so than the posterior: weights of bounded variance.
        vae.encoder.network[-1].weight[1:] = 0.0
        vae.encoder.network[-1].bias[1:] = 0.3
    images, _ = vae.simulate(8, seed=0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    log_likelihood = vae.decoder(torch.as_tensor(nodes)[:, None, None]).log_prob(images)
    log_weights = torch.as_tensor(np.log(weights / weights.sum()))[:, None]
    exact = (log_likelihood + log_weights).logsumexp(0).detach()

    bound = importance_weighted_log_likelihood(vae, images, num_samples=20_000, seed=1)
    assert (bound.standard_error < 0.01).all()
    assert ((bound.value - exact).abs() < 4 * bound.standard_error).all()
    terms = elbo_terms(vae, images, num_samples=2000)
    assert (terms.elbo < exact - 4 * terms.standard_error).all()


def test_elbo_terms_follow_the_seed_and_leave_torchs_generator_alone(images):
    vae = VAE(NUM_PIXELS, 2, (4,), likelihood="gaussian").double()
    state = torch.get_rng_state()
    first, again, other = (elbo_terms(vae, images, 10, seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.elbo, again.elbo)
    assert not torch.equal(first.elbo, other.elbo)
    assert first.elbo.shape == first.kl.shape == first.standard_error.shape == (NUM_IMAGES,)
    assert not first.elbo.requires_grad


@pytest.mark.parametrize("estimate", [elbo_terms, importance_weighted_log_likelihood])
def test_one_sample_has_no_standard_error(images, estimate):
    vae = VAE(NUM_PIXELS, 2, (4,), likelihood="gaussian").double()
    with pytest.raises(OptionError, match=r"num_samples: expected at least 2.*got 1"):
        estimate(vae, images, num_samples=1)
