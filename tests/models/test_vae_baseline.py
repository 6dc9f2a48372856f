"""Factor analysis against scikit-learn, scipy's normal density, and its own stationarity."""

import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.decomposition import FactorAnalysis as SklearnFactorAnalysis

from vitools.errors import DataError, NumericalError, OptionError
from vitools.models.vae import baseline, factor_analysis, factor_analysis_log_likelihood
from vitools.models.vae.baseline import LEAST_NOISE_SHARE


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
