"""Figures of a VAE against exact ones: Monte Carlo, quadrature, and the linear case's likelihood."""

import math

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from scipy.stats import multivariate_normal

from vitools.errors import DataError, OptionError
from vitools.models.hierarchical_vae import HierarchicalVAE
from vitools.models.vae import (
    VAE,
    active_units,
    average,
    closed_form_kl,
    elbo_terms,
    factor_analysis,
    importance_weighted_log_likelihood,
    latent_information,
    linear_vae,
    probabilistic_pca,
)
from vitools.models.vae.evaluation import evaluation

NUM_IMAGES, NUM_PIXELS, LATENT_DIM = 40, 7, 3


@pytest.fixture
def images():
    """Correlated continuous pixels."""
    generator = torch.Generator().manual_seed(5)
    mixing = torch.randn(NUM_PIXELS, NUM_PIXELS, generator=generator, dtype=torch.float64)
    noise = torch.randn(NUM_IMAGES, NUM_PIXELS, generator=generator, dtype=torch.float64)
    return noise @ mixing + torch.arange(NUM_PIXELS)


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
    fit = probabilistic_pca(images, LATENT_DIM)
    vae = linear_vae(fit)
    exact = fit.log_likelihood(images).sum().item()
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
    vae = linear_vae(fit)
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
    first, again, other = (elbo_terms(vae, images, num_samples=10, seed=seed) for seed in (0, 0, 1))
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


def watched_sizes(monkeypatch, most_pairs):
    """Rows and draws of every pass through the networks, of which none may have more pairs."""
    monkeypatch.setattr(evaluation, "MOST_PAIRS", most_pairs)
    sizes, original = [], VAE.log_weights

    def watched(self, *data, num_samples):
        sizes.append((len(data[0]), num_samples))
        return original(self, *data, num_samples=num_samples)

    monkeypatch.setattr(VAE, "log_weights", watched)
    return sizes


@pytest.mark.parametrize(("most_pairs", "passes"), [(7, 40 * 4), (60, 20), (10_000, 1)])
def test_however_the_work_is_cut_up_it_gives_the_exact_likelihood(
    images, monkeypatch, most_pairs, passes
):
    fit = factor_analysis(images, LATENT_DIM)
    sizes = watched_sizes(monkeypatch, most_pairs)
    bound = importance_weighted_log_likelihood(linear_vae(fit), images, num_samples=25)
    torch.testing.assert_close(bound.value, fit.log_likelihood(images), rtol=0, atol=1e-8)
    assert len(sizes) == passes
    assert max(rows * draws for rows, draws in sizes) <= most_pairs
    assert sum(rows * draws for rows, draws in sizes) == 40 * 25


class Paired(VAE):
    """A VAE whose images come with their own first pixel, which it checks."""

    def model(self, images, firsts, batch_size=None):
        assert torch.equal(images[:, 0], firsts)
        super().model(images, batch_size)

    def guide(self, images, firsts, batch_size=None):
        assert torch.equal(images[:, 0], firsts)
        super().guide(images, batch_size)


def test_what_belongs_to_an_image_stays_with_it_in_every_chunk(images, monkeypatch):
    monkeypatch.setattr(evaluation, "MOST_PAIRS", 60)
    vae = Paired(NUM_PIXELS, 2, (4,), likelihood="gaussian").double()
    plain = VAE(NUM_PIXELS, 2, (4,), likelihood="gaussian").double()
    firsts = images[:, 0].clone()
    both = elbo_terms(vae, images, firsts, num_samples=20, seed=3)
    assert torch.equal(both.elbo, elbo_terms(plain, images, num_samples=20, seed=3).elbo)
    information = latent_information(vae, images, firsts, seed=1)
    assert information == latent_information(plain, images, seed=1)
    assert active_units(vae, images, firsts) == active_units(plain, images)


def test_five_thousand_draws_of_a_hierarchical_vae_against_quadrature(monkeypatch):
    vae = HierarchicalVAE(5, (1, 1), ((6,), (4,)), seed=3).double()
    with torch.no_grad():
        for name in ("encoder1", "encoder2"):  # wider than the posterior: bounded weights
            head = getattr(vae, name).network[-1]
            head.weight.mul_(0.2)
            head.bias[1:] = 0.5
    images, _ = vae.simulate(6, seed=0)
    nodes, weights = (torch.as_tensor(part) for part in np.polynomial.hermite_e.hermegauss(60))
    log_weights = (weights / weights.sum()).log()
    with torch.no_grad():
        prior = vae.prior1(nodes[:, None]).base_dist  # of z1, at each node of z2
        latents = prior.loc + prior.scale * nodes  # [z2, z1]
        log_likelihood = vae.decoder(latents[..., None, None]).log_prob(images)
    exact = (log_likelihood + log_weights[:, None] + log_weights[:, None, None]).logsumexp((0, 1))
    bound = importance_weighted_log_likelihood(vae, images, num_samples=5000, seed=1)
    assert (bound.standard_error < 0.02).all()
    assert ((bound.value - exact).abs() < 4 * bound.standard_error).all()
    terms = elbo_terms(vae, images, num_samples=5000)
    assert list(terms.kls) == ["z2", "z1"]
    assert (terms.elbo < exact + 4 * terms.standard_error).all()
    torch.testing.assert_close(terms.elbo, terms.reconstruction - terms.kls["z1"] - terms.kls["z2"])


def test_average_has_the_error_of_a_mean():
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    means = values.reshape(100, 50).mean(1)
    errors = torch.tensor([average(part).standard_error for part in values.reshape(100, 50)])
    # the spread of 100 means is known to 1/√198, their mean error to a tenth of that
    assert means.std().item() == pytest.approx(errors.mean().item(), rel=4 / math.sqrt(198))
    assert math.isnan(average(values[:1]).standard_error)


def test_data_of_different_lengths_or_kinds_are_refused(images):
    vae = VAE(NUM_PIXELS, 2, (4,), likelihood="gaussian").double()
    with pytest.raises(DataError, match="as many rows in each part, got 40, 39"):
        elbo_terms(vae, images, images[:39])
    with pytest.raises(DataError, match="float32 where the weights are"):
        elbo_terms(vae, images.float())
