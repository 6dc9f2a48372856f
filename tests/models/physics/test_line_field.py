"""Fields along a line: SciPy's smoothing splines, dense kernels, and what a picture shows."""

import mpmath
import numpy as np
import pytest
import scipy.interpolate
import scipy.stats
import torch

from vitools import Problem, cavi
from vitools.errors import DataError, OptionError
from vitools.models.physics import line_field

DATA = line_field.simulate(60, 25, seed=1)
S, NOISE, LENGTH = 20.0, 0.2, 0.3


def fitted(prior, **given):
    settings = {"scale": S, "noise": NOISE, "prior": prior, **given}
    return cavi(Problem(line_field.model, DATA.x, DATA.y, DATA.mask, **settings))


def test_the_mean_between_data_is_straight_and_has_its_kinks_at_them():
    mean = fitted("straight", scale=4.0).mean()["state"][:, 0].numpy()
    bend = np.abs(np.diff(mean, 2))
    seen = DATA.mask.numpy()[1:-1]
    assert bend[~seen].max() < 1e-9
    assert bend[seen].min() > 1e-5


def test_the_mean_is_the_cubic_smoothing_spline():
    # a flat prior of level and slope in SciPy's, one of ten sds here
    mean = fitted("spline").mean()["state"][:, 0].numpy()
    x, y, seen = DATA.x.numpy(), DATA.y.numpy(), DATA.mask.numpy()
    spline = scipy.interpolate.make_smoothing_spline(x[seen], y[seen], lam=NOISE**2 / S**2)
    inside = (x >= x[seen][0]) & (x <= x[seen][-1])
    np.testing.assert_allclose(mean[inside], spline(x[inside]), atol=2e-4)
    third = np.diff(mean, 3)  # cubic pieces: jumps of the third difference only near data
    jump = np.abs(np.diff(third))
    near = np.convolve(seen, np.ones(3), "same")[2:-2] > 0
    assert jump[~near].max() < 1e-9


def kernel(order, x, length):
    r = np.abs(x[:, None] - x) * np.sqrt(2 * order - 1) / length
    return np.exp(-r) * {1: 1.0, 2: 1 + r, 3: 1 + r + r**2 / 3}[order]


@pytest.mark.parametrize(("order", "prior"), [(1, "matern12"), (2, "matern32"), (3, "matern52")])
def test_a_matern_chain_is_the_dense_gaussian_process(order, prior):
    data = line_field.simulate(200, 80, seed=2)
    problem = Problem(
        line_field.model, data.x, data.y, data.mask, prior, LENGTH, scale=0.8, noise=NOISE
    )
    fit = cavi(problem)
    x, y, seen = data.x.numpy(), data.y.numpy(), data.mask.numpy()
    K = 0.64 * kernel(order, x, LENGTH)
    noisy = K[np.ix_(seen, seen)] + NOISE**2 * np.eye(seen.sum())
    gain = np.linalg.solve(noisy, K[seen]).T
    evidence = scipy.stats.multivariate_normal(np.zeros(seen.sum()), noisy).logpdf(y[seen])
    assert fit.elbo().value == pytest.approx(evidence, abs=1e-6 if order == 3 else 1e-8)
    tolerance = {1: 1e-8, 2: 1e-8, 3: 1e-6}[order]
    np.testing.assert_allclose(fit.mean()["state"][:, 0], gain @ y[seen], atol=tolerance)
    variance = np.diag(K - gain @ K[seen])
    np.testing.assert_allclose(fit.sd()["state"][:, 0] ** 2, variance, atol=tolerance)


@pytest.mark.parametrize("order", [2, 3])
def test_steps_of_any_length_keep_their_digits(order):
    """Against P - F P Fᵀ and its factor in sixty digits."""
    gaps = [1e-6, 1e-4, 1e-2, 0.3, 0.8, 0.9, 5.0, 50.0]
    x = torch.tensor([0.0, *gaps], dtype=torch.float64).cumsum(0)
    found = line_field.steps(x, f"matern{2 * order - 1}2", LENGTH * 3).scale_tril
    with mpmath.workdps(60):
        rate = mpmath.sqrt(2 * order - 1) / mpmath.mpf(LENGTH * 3)
        drift = mpmath.zeros(order)
        for k in range(order):
            drift[order - 1, k] = -mpmath.binomial(order, k) * rate ** (order - k)
            if k:
                drift[k - 1, k] = 1
        third = rate**2 / 3
        rest = (
            mpmath.diag([1, rate**2])
            if order == 2
            else mpmath.matrix([[1, 0, -third], [0, third, 0], [-third, 0, rate**4]])
        )
        for i, h in enumerate(x.diff().tolist()):
            step = mpmath.expm(drift * mpmath.mpf(h), method="taylor")
            exact = mpmath.cholesky(rest - step * rest * step.T)
            exact = np.array(exact.tolist(), dtype=float)
            np.testing.assert_allclose(found[i].numpy(), exact, rtol=1e-9, atol=1e-14)


@pytest.mark.slow
def test_a_hundred_thousand_places():
    x = torch.arange(100_000).double()
    y = (
        torch.sin(x / 500)
        + 0.3 * torch.randn(100_000, generator=torch.Generator().manual_seed(0)).double()
    )
    problem = Problem(line_field.model, x, y, True, "matern32", 300.0, scale=1.0, noise=0.3)
    fit = cavi(problem)
    # a window of the middle by dense algebra: what is 3000 away (ten lengths) does not matter
    window = slice(47_000, 53_000, 1)
    K = kernel(2, x[window].numpy(), 300.0)
    gain = np.linalg.solve(K + 0.09 * np.eye(6000), K[3000])
    at = fit.mean()["state"][50_000, 0].item()
    assert at == pytest.approx(gain @ y[window].numpy(), abs=1e-6)


@pytest.mark.slow
def test_the_truth_is_found_with_scales_that_nobody_told():
    example = line_field.example(0)
    data = line_field.simulate(seed=0)
    fit = cavi(Problem(example.model, *example.args), nested=example.nested)
    mean, sd = fit.mean()["state"][:, 0], fit.sd()["state"][:, 0]
    inside = ((mean - data.field).abs() < 2 * sd).double().mean()
    assert inside > 0.8  # 95 % on average; places are correlated
    assert fit.mean()["noise"].item() == pytest.approx(0.2, abs=3 * fit.sd()["noise"].item())


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"prior": "smooth"}, OptionError, "prior: expected one of straight"),
        ({"length": 0.0}, OptionError, "length: expected a positive"),
        ({"scale": -1.0}, OptionError, "scale: expected a positive"),
        ({"x": torch.zeros(60)}, DataError, "Sort the rows by x"),
        ({"x": torch.arange(3.0)}, DataError, "expected 60 different places"),
    ],
)
def test_wrong_values_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        line_field.model(**{"x": DATA.x, "y": DATA.y, "mask": DATA.mask} | given)
