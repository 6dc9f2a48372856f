"""Factor analysis and probabilistic PCA against scikit-learn, scipy, coordinate ascent and a VAE."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from sklearn.decomposition import FactorAnalysis as SklearnFactorAnalysis

from vitools import Problem, cavi, svi
from vitools.errors import DataError, NumericalError, OptionError
from vitools.models.vae import (
    VAE,
    average,
    elbo_terms,
    factor_analysis,
    factor_analysis_log_likelihood,
    importance_weighted_log_likelihood,
    linear_vae,
    probabilistic_pca,
)
from vitools.models.vae.evaluation import baseline
from vitools.models.vae.evaluation.baseline import LEAST_NOISE_SHARE, FactorAnalysis
from vitools.posterior import Status


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(11)
    loadings = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    noise_sd = 0.3 + torch.rand(9, generator=generator, dtype=torch.float64)
    latents = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(400, 9, generator=generator, dtype=torch.float64)
    return latents @ loadings.T + noise_sd * noise + 2


def test_held_out_likelihood_agrees_with_scikit_learn(images):
    train, held_out = images[:300], images[300:]
    theirs = SklearnFactorAnalysis(3, tol=1e-10, max_iter=20_000, svd_method="lapack").fit(train)
    assert (theirs.noise_variance_ > 0.01 * train.var(0).numpy()).all()  # no floor is met
    ours = factor_analysis_log_likelihood(train, held_out, latent_dim=3)
    torch.testing.assert_close(
        ours, torch.as_tensor(theirs.score_samples(held_out)), rtol=0, atol=1e-3
    )


def test_log_likelihood_is_the_normal_density(images):
    fit = factor_analysis(images, 2)
    covariance = (fit.loadings @ fit.loadings.T + fit.noise_variance.diag()).numpy()
    exact = multivariate_normal(fit.mean.numpy(), covariance).logpdf(images.numpy())
    torch.testing.assert_close(fit.log_likelihood(images), torch.as_tensor(exact))


def test_fit_is_a_stationary_point(images):
    fit = factor_analysis(images, 3)
    parameters = [part.clone().requires_grad_() for part in fit]
    type(fit)(*parameters).log_likelihood(images).mean().backward()
    for part in parameters:
        assert part.grad.abs().max() < 1e-5


def test_noise_stays_above_its_floor_where_the_likelihood_is_unbounded():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(200, 4, generator=generator, dtype=torch.float64)
    copies = torch.cat([pixels, pixels[:, :1]], dim=1)  # with ψ → 0 there, the density is infinite
    fit = factor_analysis(copies, 2)
    share = fit.noise_variance / copies.var(0, correction=0)
    torch.testing.assert_close(share[[0, 4]], torch.full((2,), LEAST_NOISE_SHARE).double())
    assert fit.log_likelihood(copies).isfinite().all()


def test_probabilistic_pca_agrees_with_scikit_learn(images):
    train, held_out = images[:300], images[300:]
    # Theirs divides by N - 1: on data spread by √((N - 1)/N) that is the covariance of ours.
    shrunk = train.mean(0) + (train - train.mean(0)) * (299 / 300) ** 0.5
    theirs = PCA(3).fit(shrunk).score_samples(held_out)
    ours = probabilistic_pca(train, 3).log_likelihood(held_out)
    torch.testing.assert_close(ours, torch.as_tensor(theirs), rtol=0, atol=1e-9)


def test_probabilistic_pca_is_a_stationary_point_below_factor_analysis(images):
    fit = probabilistic_pca(images, 3)
    mean, loadings = (part.clone().requires_grad_() for part in fit[:2])
    variance = fit.noise_variance[0].clone().requires_grad_()
    loss = FactorAnalysis(mean, loadings, variance.expand(9)).log_likelihood(images).mean()
    for gradient in torch.autograd.grad(loss, (mean, loadings, variance)):
        assert gradient.abs().max() < 1e-10
    assert loss < factor_analysis(images, 3).log_likelihood(images).mean() - 0.01


def bayesian_pca(images, latent_dim=3):
    """Probabilistic PCA with priors so wide that they weigh nothing."""
    num_pixels = images.shape[1]
    zero, wide = images.new_zeros(num_pixels, latent_dim), 100.0
    mean = pyro.sample("mean", dist.Normal(zero[:, 0], wide).to_event(1))
    loadings = pyro.sample("loadings", dist.Normal(zero, wide).to_event(2))
    rate = images.new_tensor(1e-3)
    precision = pyro.sample("precision", dist.Gamma(rate, rate))
    with pyro.plate("images", len(images)):
        latents = pyro.sample("z", dist.Normal(zero[0], 1.0).to_event(1))
        noise = dist.Normal(latents @ loadings.T + mean, precision.rsqrt())
        pyro.sample("x", noise.to_event(1), obs=images)


def test_automatic_coordinate_ascent_reaches_probabilistic_pca(images):
    exact = probabilistic_pca(images, 3)
    fit = cavi(Problem(bayesian_pca, images))
    assert fit.status.is_good
    found = fit.mean()
    noise = (1 / found["precision"]).expand(9)
    by_cavi = FactorAnalysis(found["mean"], found["loadings"], noise)
    # At the maximum the likelihood is flat: a posterior mean some share of a posterior sd away
    # loses that share's square, half a nat for each of the 9 + 27 + 1 parameters at a whole sd.
    loss = (exact.log_likelihood(images) - by_cavi.log_likelihood(images)).sum()
    assert 0 < loss < 0.1 * 0.5 * 37
    # Against what they explain, the directions are the same.
    first, second = (torch.linalg.qr(part.loadings).Q for part in (exact, by_cavi))
    assert torch.linalg.svdvals(first.T @ second).min() > 0.9999


@pytest.mark.parametrize("estimate", [factor_analysis, probabilistic_pca])
def test_linear_vae_has_the_exact_likelihood_in_every_weight(images, estimate):
    fit = estimate(images, 3)
    vae = linear_vae(fit)
    exact = fit.log_likelihood(images)
    bound = importance_weighted_log_likelihood(vae, images, num_samples=2)
    torch.testing.assert_close(bound.value, exact, rtol=0, atol=1e-8)
    assert bound.standard_error.max() < 1e-8


def test_linear_vae_turns_loadings_that_are_not_orthogonal(images):
    fit = factor_analysis(images, 3)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double()).Q
    turned = FactorAnalysis(fit.mean, fit.loadings @ turn, fit.noise_variance)
    bound = importance_weighted_log_likelihood(linear_vae(turned), images, num_samples=2)
    torch.testing.assert_close(bound.value, fit.log_likelihood(images), rtol=0, atol=1e-8)


def test_a_trained_linear_vae_with_one_noise_reaches_probabilistic_pca(images):
    vae = VAE(9, latent_dim=3, hidden=(), likelihood="gaussian").double()
    vae.decoder.log_noise_sd = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
    pixels = (images - 2) / 4  # of the size for which the starting weights are made
    fit = svi(Problem(vae.model, pixels), vae.guide, learning_rate=0.05, compile=False)
    assert fit.status is Status.CONVERGED
    exact = probabilistic_pca(pixels, 3)
    terms = elbo_terms(vae, pixels, num_samples=500)
    # Below the maximum by what the ascent leaves (a twentieth of a nat a parameter in all), and off
    # by the draws.
    short = average(exact.log_likelihood(pixels) - terms.elbo).value
    draws = terms.standard_error.square().mean().sqrt().item() / len(images) ** 0.5
    assert -4 * draws < short < 0.05 * 37 / len(images) + 4 * draws
    assert draws < 0.005
    assert vae.decoder.log_noise_sd.exp().item() ** 2 == pytest.approx(
        exact.noise_variance[0].item(), rel=0.02
    )


def test_points_on_a_plane_have_no_probabilistic_pca():
    points = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).double()
    flat = torch.cat([points, points.new_zeros(20, 1)], dim=1)
    with pytest.raises(DataError, match="2 directions explain all"):
        probabilistic_pca(flat, 2)


def test_refusals_name_the_pixel_or_the_option(images, monkeypatch):
    with pytest.raises(OptionError, match="latent_dim: expected 1 to 8, got 9"):
        factor_analysis(images, 9)
    constant = images.clone()
    constant[:, 4] = 1.0
    with pytest.raises(DataError, match=r"pixel 4 does not vary.*dequantise"):
        factor_analysis(constant, 2)
    constant[3, 4] = float("nan")
    with pytest.raises(DataError, match="finite pixels"):
        factor_analysis(constant, 2)
    monkeypatch.setattr(baseline, "MAX_ITERATIONS", 2)
    with pytest.raises(NumericalError, match=r"in 2 iterations.*lower latent_dim from 3"):
        factor_analysis(images, 3)
