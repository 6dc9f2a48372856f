"""The baselines for a Gaussian VAE: maximum-likelihood factor analysis and probabilistic PCA, exact.

    x = μ + W z + ε,   z ~ Normal(0, I),   ε ~ Normal(0, diag ψ)
    so x ~ Normal(μ, W Wᵀ + diag ψ)

It is the VAE whose decoder is linear; where the ELBO exceeds this likelihood on held-out images,
the non-linear decoder has earned its keep, since the ELBO is only a lower bound.

Given ψ the best W is closed-form, W = ψ^½ U (λ - 1)₊^½ from the leading eigenvectors U and
eigenvalues λ of ψ^-½ S ψ^-½ (S the sample covariance). What is left is a loss in ψ alone,
whose gradient is ½ diag(W Wᵀ + ψ - S) / ψ² per image, descended by L-BFGS. With one noise for all
pixels, ψ = σ² 1, the maximum is closed-form altogether: σ² is the mean of the eigenvalues of S that
are left over, W = U (Λ - σ²)^½. References: K. G. Jöreskog, "Some contributions to maximum likelihood
factor analysis", Psychometrika 32, 1967; M. E. Tipping, C. M. Bishop, "Probabilistic principal
component analysis", JRSS B 61, 1999; D. Barber, "Bayesian Reasoning and Machine Learning", Cambridge
2012, section 21.2.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from vitools.errors import DataError, NumericalError, OptionError
from vitools.models.vae.model import VAE

# Where a pixel's noise would shrink to nothing (a Heywood case) the likelihood has no interior
# maximum; each ψ_d is kept above this share of the pixel's variance, the default of R's factanal.
LEAST_NOISE_SHARE = 0.005
MAX_ITERATIONS = 10_000


class FactorAnalysis(NamedTuple):
    """μ [num_pixels], W [num_pixels, latent_dim] and ψ [num_pixels]."""

    mean: Tensor
    loadings: Tensor
    noise_variance: Tensor

    def log_likelihood(self, images: Tensor) -> Tensor:
        """Exact log Normal(x; μ, W Wᵀ + diag ψ) of images [n, num_pixels], per image [n]."""
        return torch.distributions.LowRankMultivariateNormal(
            self.mean, self.loadings, self.noise_variance
        ).log_prob(images)


def factor_analysis(images: Tensor, latent_dim: int) -> FactorAnalysis:
    """Fit factor analysis to images [num_images, num_pixels] by maximum likelihood, in float64."""
    device = images.device
    images = _checked(images, latent_dim)
    num_pixels = images.shape[1]
    mean = images.mean(0)
    variance = (images - mean).square().mean(0)
    if (variance == 0).any():
        pixel = int((variance == 0).nonzero()[0])
        raise DataError(
            f"images: pixel {pixel} does not vary, so its density is unbounded; "
            "dequantise the images or leave the pixel out"
        )
    # Pixels in units of their own standard deviation: S is their correlation, ψ a share of one.
    standardised = (images - mean) / variance.sqrt()
    correlation = standardised.mT @ standardised / len(images)

    def loss_and_gradient(log_noise: np.ndarray) -> tuple[float, np.ndarray]:
        noise = torch.from_numpy(log_noise).exp()
        loadings, eigenvalues = _best_loadings(correlation, noise, latent_dim)
        kept = eigenvalues[-latent_dim:].clamp(min=1)
        # ½ tr(S C⁻¹) + ½ log |C|, of which each kept direction has tr = 1.
        trace = eigenvalues.sum() - (kept - 1).sum()
        loss = 0.5 * (trace + kept.log().sum() + noise.log().sum())
        gradient = 0.5 * (loadings.square().sum(1) + noise - 1) / noise
        return loss.item(), gradient.numpy()

    result = minimize(
        loss_and_gradient,
        np.full(num_pixels, math.log(0.5)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(math.log(LEAST_NOISE_SHARE), 0.0)] * num_pixels,
        options={"maxiter": MAX_ITERATIONS, "ftol": 0.0, "gtol": 1e-6},
    )
    if not result.success:
        raise NumericalError(
            f"factor analysis: no maximum found in {result.nit} iterations ({result.message}); "
            f"lower latent_dim from {latent_dim}"
        )
    noise = torch.from_numpy(result.x).exp()
    loadings, _ = _best_loadings(correlation, noise, latent_dim)
    parts = (mean, variance.sqrt()[:, None] * loadings, variance * noise)
    return FactorAnalysis(*(part.to(device) for part in parts))


def probabilistic_pca(images: Tensor, latent_dim: int) -> FactorAnalysis:
    """Fit probabilistic PCA to images [num_images, num_pixels] by maximum likelihood, in float64.

    It is factor analysis with the same ψ for every pixel, which is returned repeated.

    >>> points = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> probabilistic_pca(points, latent_dim=1).noise_variance
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    device = images.device
    images = _checked(images, latent_dim)
    mean = images.mean(0)
    eigenvalues, vectors = torch.linalg.eigh(torch.cov(images.mT, correction=0))
    variance = eigenvalues[:-latent_dim].mean()
    if not variance > 0:
        raise DataError(
            f"images: {latent_dim} directions explain all that varies, so the density is unbounded; "
            "dequantise the images or lower latent_dim"
        )
    loadings = vectors[:, -latent_dim:] * (eigenvalues[-latent_dim:] - variance).sqrt()
    parts = (mean, loadings, variance.repeat(images.shape[1]))
    return FactorAnalysis(*(part.to(device) for part in parts))


def factor_analysis_log_likelihood(train: Tensor, held_out: Tensor, latent_dim: int) -> Tensor:
    """Fit on ``train`` and return the exact log-likelihood of each ``held_out`` image, in nats.

    >>> train = torch.tensor([[0.0, 0.1, 1.0], [1.0, 0.9, 0.2], [0.0, 0.3, 0.1], [1.0, 1.1, 0.8]])
    >>> factor_analysis_log_likelihood(train, train[:2], latent_dim=1).shape
    torch.Size([2])
    """
    return factor_analysis(train, latent_dim).log_likelihood(held_out.double())


def linear_vae(fit: FactorAnalysis) -> VAE:
    """The VAE that is this model: a linear decoder, and an encoder that is the exact posterior,

        p(z | x) = Normal(V⁻¹ Wᵀ ψ⁻¹ (x - μ), V⁻¹),   V = I + Wᵀ ψ⁻¹ W

    the loadings turned so that V is diagonal, which changes no likelihood. Its ELBO is therefore the
    exact log-likelihood, and what is said of a VAE can be said of factor analysis.
    """
    num_pixels, latent_dim = fit.loadings.shape
    weighted = fit.loadings.mT / fit.noise_variance
    eigenvalues, turn = torch.linalg.eigh(weighted @ fit.loadings)
    precision = 1 + eigenvalues.clamp(min=0)
    gain = (weighted.mT @ turn / precision).mT
    vae = VAE(num_pixels, latent_dim, hidden=(), likelihood="gaussian").to(fit.mean)
    values = {
        "decoder.network.0.weight": fit.loadings @ turn,
        "decoder.network.0.bias": fit.mean,
        "decoder.log_noise_sd": fit.noise_variance.log() / 2,
        "encoder.network.0.weight": torch.cat([gain, torch.zeros_like(gain)]),
        "encoder.network.0.bias": torch.cat([-gain @ fit.mean, -precision.log() / 2]),
    }
    vae.load_state_dict(values)
    return vae


def _checked(images: Tensor, latent_dim: int) -> Tensor:
    """The images in float64 on the CPU."""
    if not 1 <= latent_dim < images.shape[1]:
        raise OptionError(f"latent_dim: expected 1 to {images.shape[1] - 1}, got {latent_dim}")
    if not images.isfinite().all():
        raise DataError("images: expected finite pixels, got NaN or infinity")
    return images.double().cpu()


def _best_loadings(covariance: Tensor, noise: Tensor, latent_dim: int) -> tuple[Tensor, Tensor]:
    """W [num_pixels, latent_dim] given ψ, and all eigenvalues of ψ^-½ S ψ^-½, ascending."""
    noise_sd = noise.sqrt()
    eigenvalues, vectors = torch.linalg.eigh(covariance / noise_sd.outer(noise_sd))
    scale = (eigenvalues[-latent_dim:] - 1).clamp(min=0).sqrt()
    return noise_sd[:, None] * vectors[:, -latent_dim:] * scale, eigenvalues
