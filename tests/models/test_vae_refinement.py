"""Amortisation and approximation gaps where both have closed forms."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from vitools import Problem, svi
from vitools.errors import NotSupportedError
from vitools.models.vae import VAE, factor_analysis, inference_gaps, linear_vae


def pixels(num_images):
    generator = torch.Generator().manual_seed(5)
    mixing = torch.randn(7, 7, generator=generator, dtype=torch.float64)
    return torch.randn(num_images, 7, generator=generator, dtype=torch.float64) @ mixing / 4


def by_svi(model, guide, images):
    svi(Problem(model, images), guide, learning_rate=0.02, compile=False)


@pytest.fixture
def images():
    return pixels(40)


def test_an_encoder_that_is_off_is_put_right_and_the_gap_is_its_kl(images):
    vae = linear_vae(factor_analysis(images, 3))
    exact = vae.encoder(images)  # the posterior, of which the encoder is now made to miss
    with torch.no_grad():
        vae.encoder.network[0].bias[:3] += torch.tensor([0.3, -0.2, 0.1]) * exact.stddev[0]
        vae.encoder.network[0].bias[3:] += 0.4
    expected = kl_divergence(vae.encoder(images), exact)[:5]

    def to_the_posterior(model, guide, some):
        local = guide.__self__
        assert local.mean.shape == (5, 3)
        with torch.no_grad():
            local.mean.copy_(exact.mean[:5])
            local.log_sd.copy_(exact.stddev[:5].log())

    gaps = inference_gaps(vae, images[:5], to_the_posterior, num_samples=20_000)
    assert (gaps.amortisation_error < 0.02).all()
    assert ((gaps.amortisation - expected).abs() < 4 * gaps.amortisation_error).all()
    assert (gaps.approximation.abs() < 4 * gaps.approximation_error).all()


def test_svi_closes_the_gap_and_leaves_that_of_independent_coordinates(images):
    fit = factor_analysis(images, 2)
    vae = linear_vae(fit)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    with torch.no_grad():  # turned latents have a correlated posterior, beyond the encoder's family
        loadings = vae.decoder.network[0].weight @ torch.diag(torch.tensor([1.0, 0.2]).double())
        vae.decoder.network[0].weight.copy_(loadings @ turn)
        vae.encoder.network[0].bias[:2] += 0.2
    loadings, noise = vae.decoder.network[0].weight.detach(), fit.noise_variance
    precision = torch.eye(2) + (loadings.T / noise) @ loadings
    # KL of the best product of normals from a normal: ½ (Σ log P_kk - log |P|), the same for all.
    approximation = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    assert approximation > 0.1
    mean = torch.linalg.solve(precision, ((loadings.T / noise) @ (images - fit.mean).T)).T
    posterior = MultivariateNormal(mean, precision_matrix=precision)
    encoded = vae.encoder(images)
    whole = kl_divergence(
        MultivariateNormal(encoded.mean, torch.diag_embed(encoded.variance)), posterior
    )
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    gaps = inference_gaps(vae, images[:5], by_svi, num_samples=20_000)
    assert (gaps.approximation_error < 0.03).all()
    off = (gaps.approximation - approximation).abs()
    assert (off < 4 * gaps.approximation_error + 0.01).all()  # svi stops 0.01 nat a latent short
    off = (gaps.amortisation - (whole[:5] - approximation)).abs()
    assert (off < 4 * gaps.amortisation_error + 0.02).all()
    for name, value in vae.state_dict().items():
        assert torch.equal(value, before[name])


def test_encoders_of_other_families_are_refused(images):
    vae = VAE(7, 3, (4,), likelihood="gaussian", latents="dirichlet").double()
    with pytest.raises(NotSupportedError, match="independent normals, got Dirichlet"):
        inference_gaps(vae, images, by_svi)


def test_the_gap_follows_the_seed(images):
    vae = VAE(7, 2, (4,), likelihood="gaussian").double()
    nothing = lambda model, guide, some: None  # noqa: E731
    first, again = (inference_gaps(vae, images[:3], nothing, 50, seed=1) for _ in range(2))
    assert torch.equal(first.approximation, again.approximation)
    assert torch.equal(first.amortisation, torch.zeros(3, dtype=torch.float64))
    assert math.isclose(first.amortisation_error.max().item(), 0.0)
