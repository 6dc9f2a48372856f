"""A field measured at points: dense conditioning in NumPy, in any order, and by coordinate ascent."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from vitools import Problem, cavi, exact
from vitools.errors import DataError, OptionError
from vitools.models.physics import gaussian_field
from vitools.models.physics.gaussian_field import GaussianField, laplacian, roughness

SHAPE, NOISE = (5, 4), 0.3


@pytest.fixture(scope="module")
def data():
    precision = roughness(SHAPE, 2.0, order=2, mass=0.7)
    return precision, gaussian_field.simulate(precision, 9, NOISE, seed=3)


def conditioned(precision, data):
    """Mean, covariance and log p(values) by the formulas of joint normals."""
    C = np.linalg.inv(precision.numpy())
    at, y = data.at.numpy(), data.value.numpy()
    K = C[np.ix_(at, at)] + NOISE**2 * np.eye(len(at))
    gain = np.linalg.solve(K, C[at]).T
    evidence = scipy.stats.multivariate_normal(np.zeros(len(at)), K).logpdf(y)
    return gain @ y, C - gain @ C[at], evidence


def test_one_after_the_other_is_all_at_once(data):
    precision, seen = data
    mean, covariance, evidence = conditioned(precision, seen)
    start = GaussianField.from_precision(precision)
    field = start.measure_all(seen.at, seen.value, NOISE)
    np.testing.assert_allclose(field.mean, mean, atol=1e-12)
    np.testing.assert_allclose(field.covariance, covariance, atol=1e-12)
    backwards = start.measure_all(seen.at.flip(0), seen.value.flip(0), NOISE)
    np.testing.assert_allclose(backwards.mean, mean, atol=1e-12)
    # the chain rule: what each adds to the evidence, given those before
    total, now = 0.0, start
    for at, value in zip(seen.at.tolist(), seen.value.tolist(), strict=True):
        total += now.log_prob(at, value, NOISE)
        now = now.measure(at, value, NOISE)
    assert total == pytest.approx(evidence, abs=1e-10)


def test_the_precision_grows_by_one_square(data):
    precision, _ = data
    weights = torch.linspace(-1, 2, precision.shape[0], dtype=torch.float64)
    field = GaussianField.from_precision(precision).measure(weights, 0.4, NOISE)
    grown = precision + torch.outer(weights, weights) / NOISE**2
    np.testing.assert_allclose(np.linalg.inv(field.covariance), grown, rtol=1e-8, atol=1e-9)


def test_coordinate_ascent_finds_the_same(data):
    precision, seen = data
    mean, covariance, evidence = conditioned(precision, seen)
    fit = cavi(Problem(gaussian_field.model, precision, seen.at, seen.value, NOISE))
    np.testing.assert_allclose(fit.mean()["field"], mean, atol=1e-8)
    np.testing.assert_allclose(fit.sd()["field"] ** 2, np.diag(covariance), atol=1e-8)
    assert fit.elbo().value == pytest.approx(evidence, abs=1e-8)


def test_what_a_measurement_tells_does_not_depend_on_what_it_is(data):
    precision, seen = data
    fields = [
        GaussianField.from_precision(precision).measure_all(seen.at, values, NOISE)
        for values in (seen.value, 100 - seen.value)
    ]
    told = [[field.information(at, NOISE) for at in range(20)] for field in fields]
    assert told[0] == told[1]
    # and it is the fall of the entropy, ½ log det
    field = fields[0]
    after = field.measure(7, 123.0, NOISE)
    fall = 0.5 * (torch.logdet(field.covariance) - torch.logdet(after.covariance))
    assert told[0][7] == pytest.approx(fall.item(), abs=1e-9)


def test_the_laplacian_is_the_integral_of_squared_slopes():
    x = torch.linspace(0, 1, 7, dtype=torch.float64)
    plane = 3 * x[:5, None] - 2 * x  # slopes 3 and -2 on a square lattice of spacing 1/6
    energy = plane.flatten() @ laplacian((5, 7), 1 / 6) @ plane.flatten() / 36
    slopes = 4 * 7 * 9 + 5 * 6 * 4  # of each bond, (slope · spacing)² / spacing² · spacing²
    assert energy.item() == pytest.approx(slopes / 36, rel=1e-12)


@pytest.mark.slow
def test_unknown_scales_come_out_as_a_grid_has_them():
    precision = roughness((6,), 1.0, mass=0.5)
    seen = gaussian_field.simulate(precision / 2, 6, 0.4, seed=1)
    problem = Problem(gaussian_field.strength_model, precision, seen.at, seen.value)
    fit = cavi(problem, nested=["stiffness", "noise"])
    C, at, y = np.linalg.inv(precision.numpy()), seen.at.numpy(), seen.value.numpy()
    stiffness, noise = np.exp(np.linspace(-9, 6, 241)), np.exp(np.linspace(-8, 8, 321))
    # one basis for every pair of scales: C / k + s² 1
    values, basis = np.linalg.eigh(C[np.ix_(at, at)])
    variance = values / stiffness[:, None, None] + noise[:, None] ** 2
    table = (
        scipy.stats.norm(0, np.sqrt(variance)).logpdf(basis.T @ y).sum(-1)
        + (scipy.stats.gamma(0.5, scale=2).logpdf(stiffness) + np.log(stiffness))[:, None]
        + scipy.stats.halfcauchy(0, y.std(ddof=1)).logpdf(noise)
        + np.log(noise)
    )
    shares = np.exp(table - table.max())
    evidence = table.max() + math.log(shares.sum() * (15 / 240) * (16 / 320))
    shares /= shares.sum()
    mean = {"stiffness": shares.sum(1) @ stiffness, "noise": shares.sum(0) @ noise}
    assert fit.elbo().value == pytest.approx(evidence, abs=5e-3)
    assert fit.mean()["stiffness"].item() == pytest.approx(mean["stiffness"], rel=0.02)
    assert fit.mean()["noise"].item() == pytest.approx(mean["noise"], rel=0.05)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: roughness((4,), 1.0, order=3), "order: expected 1"),
        (lambda: roughness((4,), -1.0), "positive stiffness"),
        (lambda: laplacian((4, 1)), "whole numbers from 2"),
        (lambda: GaussianField.from_precision(laplacian((4,))), "Add a mass"),
        (lambda: GaussianField(torch.zeros(2), torch.eye(3)), "mean \\[N\\]"),
        (lambda: GaussianField(torch.zeros(2), torch.eye(2)).measure(2, 0.0, 1.0), "0 to 1"),
        (lambda: GaussianField(torch.zeros(2), torch.eye(2)).measure(0, 0.0, 0.0), "noise"),
        (
            lambda: GaussianField(torch.zeros(2), torch.eye(2)).information(torch.ones(3), 1.0),
            "2 weights",
        ),
        (lambda: gaussian_field.simulate(torch.eye(3), 4), "expected 1 to 3"),
    ],
)
def test_wrong_use_is_refused(wrong, message):
    with pytest.raises(OptionError, match=message):
        wrong()


def test_sites_that_are_not_there_are_refused():
    with pytest.raises(DataError, match="0 to 2"):
        gaussian_field.model(torch.eye(3), torch.tensor([0, 3]), torch.zeros(2))


def test_exact_integration_agrees_on_two_sites():
    precision = roughness((2,), 1.0, mass=1.0)
    seen = gaussian_field.simulate(precision, 2, NOISE, seed=0)
    problem = Problem(gaussian_field.model, precision, seen.at, seen.value, NOISE)
    assert exact(problem).elbo().value == pytest.approx(cavi(problem).elbo().value, abs=1e-6)
