"""The exact evidence and moments against dense Gaussian algebra and scipy's adaptive quadrature."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from vitools.errors import DataError, OptionError
from vitools.models import bayesian_regression as regression

PRIOR = {"prior_scale": 0.7, "intercept_scale": 4.0, "noise_shape": 2.0, "noise_rate": 3.0}


def small_data(num_rows=8, num_features=3, seed=0):
    data = regression.simulate(num_rows, num_features, seed, correlation=0.6, noise_scale=0.8)
    return data.features, data.target


def dense(features):
    """X̃ and the prior covariance P₀⁻¹ of β."""
    design = np.column_stack([features.numpy(), np.ones(len(features))])
    scales = np.full(design.shape[1], PRIOR["prior_scale"])
    scales[-1] = PRIOR["intercept_scale"]
    return design, np.diag(scales**2)


def dense_given_precision(features, target, tau):
    """log p(y|τ), E[β|y,τ], Cov[β|y,τ] from the N × N covariance of y: no shared algebra."""
    design, prior = dense(features)
    covariance = design @ prior @ design.T + np.eye(len(design)) / tau
    gain = prior @ design.T @ np.linalg.inv(covariance)
    evidence = stats.multivariate_normal(np.zeros(len(design)), covariance).logpdf(target.numpy())
    return evidence, gain @ target.numpy(), prior - gain @ design @ prior


@pytest.mark.parametrize("shape", [(8, 3), (1, 1), (3, 6)])
@pytest.mark.parametrize("tau", [0.01, 1.3, 200.0])
def test_known_noise_equals_dense_gaussian_conditioning(shape, tau):
    features, target = small_data(*shape)
    evidence, mean, covariance = dense_given_precision(features, target, tau)
    exact = regression.exact_posterior(features, target, **PRIOR, noise_precision=tau)
    assert exact.log_evidence == pytest.approx(evidence, rel=1e-11)
    np.testing.assert_allclose(exact.mean, mean, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(exact.covariance, covariance, rtol=1e-9, atol=1e-11)
    assert exact.precision_mean == pytest.approx(tau, rel=1e-15)
    assert exact.precision_sd == 0.0


@pytest.mark.parametrize("shape", [(8, 3), (1, 1), (3, 6)])
def test_unknown_noise_equals_adaptive_quadrature(shape):
    features, target = small_data(*shape)
    noise = stats.gamma(PRIOR["noise_shape"], scale=1 / PRIOR["noise_rate"])
    exact = regression.exact_posterior(features, target, **PRIOR)

    def integral(statistic):
        def integrand(log_tau):
            tau = math.exp(log_tau)
            evidence, mean, covariance = dense_given_precision(features, target, tau)
            density = math.exp(evidence - exact.log_evidence + noise.logpdf(tau)) * tau
            return density * statistic(tau, mean, covariance)

        return integrate.quad(integrand, -12, 5, epsabs=1e-11, epsrel=1e-11, limit=200)[0]

    assert integral(lambda tau, mean, covariance: 1.0) == pytest.approx(1.0, abs=1e-9)
    tau_mean = integral(lambda tau, mean, covariance: tau)
    tau_square = integral(lambda tau, mean, covariance: tau**2)
    assert exact.precision_mean == pytest.approx(tau_mean, rel=1e-8)
    assert exact.precision_sd == pytest.approx(math.sqrt(tau_square - tau_mean**2), rel=1e-7)
    for d in range(features.shape[1] + 1):
        first = integral(lambda tau, mean, covariance, d=d: mean[d])
        second = integral(lambda tau, mean, covariance, d=d: covariance[d, d] + mean[d] ** 2)
        assert exact.mean[d].item() == pytest.approx(first, rel=1e-7, abs=1e-9)
        assert exact.sd[d].item() == pytest.approx(math.sqrt(second - first**2), rel=1e-7)
    cross = integral(lambda tau, mean, covariance: covariance[0, -1] + mean[0] * mean[-1])
    expected = cross - (exact.mean[0] * exact.mean[-1]).item()
    assert exact.covariance[0, -1].item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("noise_scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(
    ("noise_shape", "noise_rate"), [(1.0, 1.0), (1e-3, 1e-3), (1e-6, 1e-9), (50.0, 0.1)]
)
def test_flat_coefficients_have_a_closed_form(noise_scale, noise_shape, noise_rate):
    """As s → ∞ the integral over τ is a Gamma function; 2000 rows make its peak narrow."""
    num_rows, num_features, scale = 2000, 4, 1e7
    data = regression.simulate(num_rows, num_features, seed=3, noise_scale=noise_scale)
    exact = regression.exact_posterior(
        data.features, data.target, scale, scale, noise_shape, noise_rate
    )
    design = np.column_stack([data.features.numpy(), np.ones(num_rows)])
    target = data.target.numpy()
    least_squares, residual, *_ = np.linalg.lstsq(design, target)
    shape = noise_shape + 0.5 * (num_rows - num_features - 1)
    rate = noise_rate + 0.5 * residual.item()
    log_evidence = (
        -0.5 * num_rows * math.log(2 * math.pi)
        - (num_features + 1) * math.log(scale)
        - 0.5 * np.linalg.slogdet(design.T @ design).logabsdet
        + noise_shape * math.log(noise_rate)
        - special.gammaln(noise_shape)
        + special.gammaln(shape)
        - shape * math.log(rate)
    )
    # yᵀy minus what is explained cancels to N·1e-6 when the noise is 1e-3: six digits go.
    loss = max(1.0, noise_scale**-2)
    assert exact.log_evidence == pytest.approx(log_evidence, abs=1e-9 * loss)
    assert exact.precision_mean == pytest.approx(shape / rate, rel=1e-12 * loss)
    assert exact.precision_sd == pytest.approx(shape**0.5 / rate, rel=1e-11 * loss)
    np.testing.assert_allclose(exact.mean, least_squares, rtol=1e-8)


def test_target_of_zeros_and_constant_columns():
    features = torch.ones(6, 2, dtype=torch.float64)
    exact = regression.exact_posterior(features, torch.zeros(6, dtype=torch.float64), **PRIOR)
    assert exact.mean.abs().max() == 0.0
    assert math.isfinite(exact.log_evidence)
    assert bool((exact.covariance.diagonal() > 0).all())


def test_float32_data_are_computed_in_float64():
    features, target = small_data()
    rounded = regression.exact_log_evidence(features.float().double(), target.float().double())
    assert regression.exact_log_evidence(features.float(), target.float()) == rounded


def test_refusals():
    features, target = small_data()
    with pytest.raises(OptionError, match="noise_precision: expected a positive finite number"):
        regression.exact_log_evidence(features, target, noise_precision=0.0)
    with pytest.raises(DataError, match="features has 8 rows and target has 7"):
        regression.exact_log_evidence(features, target[:7])
    broken = features.clone()
    broken[2, 1] = math.nan
    with pytest.raises(DataError, match="features: nan in row 2, column 1"):
        regression.exact_log_evidence(broken, target)
    broken = target.clone()
    broken[4] = math.inf
    with pytest.raises(DataError, match="target: inf in row 4"):
        regression.exact_log_evidence(features, broken)
