"""A large lattice by elimination along its rows: the dense answer on a small one, cosines on the large."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from vitools.errors import DataError, OptionError
from vitools.models.physics.gaussian_field import GaussianField, roughness, simulate
from vitools.models.physics.lattice_field import LatticeField

NOISE = 0.3


@pytest.mark.parametrize(
    ("shape", "order"), [((5, 4), 1), ((5, 4), 2), ((6, 3), 2), ((2, 3), 2), ((2, 2), 1)]
)
def test_a_small_one_is_the_dense_field(shape, order):
    precision = roughness(shape, 1.7, order=order, mass=0.6, spacing=0.8)
    seen = simulate(precision, 4, NOISE, seed=1)
    dense = GaussianField.from_precision(precision)
    field = LatticeField.rough(shape, 1.7, order=order, mass=0.6, spacing=0.8)
    np.testing.assert_allclose(field.sd, dense.sd, rtol=1e-11)
    evidence = 0.0
    for at, value in zip(seen.at.tolist(), seen.value.tolist(), strict=True):
        evidence += dense.log_prob(at, value, NOISE)
        dense = dense.measure(at, value, NOISE)
    assert field.log_prob(seen.at, seen.value, NOISE) == pytest.approx(evidence, abs=1e-9)
    first = field.measure(seen.at[:2], seen.value[:2], NOISE)  # in parts or at once
    later = first.log_prob(seen.at[2:], seen.value[2:], NOISE)
    assert field.log_prob(seen.at[:2], seen.value[:2], NOISE) + later == pytest.approx(evidence)
    for after in (
        first.measure(seen.at[2:], seen.value[2:], NOISE),
        field.measure(seen.at, seen.value, NOISE),
    ):
        np.testing.assert_allclose(after.mean, dense.mean, atol=1e-11)
        np.testing.assert_allclose(after.sd, dense.sd, rtol=1e-11)


def cosines(count):
    """Eigenvectors ``[N, N]`` and eigenvalues of -∂² with free ends: those of the cosine transform."""
    k, x = np.arange(count), np.arange(count)
    vectors = np.cos(np.pi * (x[:, None] + 0.5) * k / count)
    return vectors / np.linalg.norm(vectors, axis=0), 4 * np.sin(np.pi * k / (2 * count)) ** 2


def exact_covariance(count, order, mass, sites):
    """Rows of C = Σ_k v_k v_kᵀ / (μ² + λ_k)^order at some sites, ``[M, N]``: no factorisation in it."""
    vectors, values = cosines(count)
    spectrum = (mass**2 + values[:, None] + values) ** -float(order)
    r, c = np.unravel_index(sites, (count, count))
    rows = np.einsum("mk,ml,kl,ik,jl->mij", vectors[r], vectors[c], spectrum, vectors, vectors, optimize=True)  # fmt: skip
    return rows.reshape(len(sites), -1)


@pytest.mark.parametrize("order", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ten_thousand_sites_are_those_of_the_cosine_transform(order):
    count, mass = 100, 1 / 6
    random = np.random.default_rng(0)
    sites = random.choice(count**2, 40, replace=False)
    values = random.normal(size=40)
    field = LatticeField.rough((count, count), 1.0, order=order, mass=mass)
    towards = exact_covariance(count, order, mass, sites)
    K = towards[:, sites] + NOISE**2 * np.eye(40)
    np.testing.assert_allclose(field.sd[sites], np.sqrt(np.diag(towards[:, sites])), rtol=1e-8)
    at, y = torch.from_numpy(sites), torch.from_numpy(values)
    after = field.measure(at, y, NOISE)
    np.testing.assert_allclose(after.mean, np.linalg.solve(K, values) @ towards, atol=1e-8)
    left = np.sqrt(np.diag(towards[:, sites] - towards[:, sites] @ np.linalg.solve(K, towards[:, sites])))  # fmt: skip
    np.testing.assert_allclose(after.sd[sites], left, rtol=1e-7)
    exact = scipy.stats.multivariate_normal(np.zeros(40), K).logpdf(values)
    assert field.log_prob(at, y, NOISE) == pytest.approx(exact, abs=1e-7)


def test_draws_are_of_the_field():
    field = LatticeField.rough((4, 3), 1.0, mass=0.5).measure(
        torch.tensor([5]), torch.tensor([2.0]), 0.5
    )
    draws = field.sample(4000, seed=0)
    off = (draws.mean(0) - field.mean) / field.sd * math.sqrt(4000)
    assert float(off.square().sum()) < scipy.stats.chi2(12).ppf(0.9999)
    assert float((draws.std(0) / field.sd - 1).abs().max()) < 5 / math.sqrt(2 * 4000)


FIELD = LatticeField.rough((3, 3), 1.0, mass=0.5)
ONE = torch.tensor([1.0])


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        (lambda: LatticeField.rough((9,), 1.0, mass=1.0), OptionError, "shape: expected rows and columns"),
        (lambda: LatticeField.rough((1, 9), 1.0, mass=1.0), OptionError, "whole numbers from 2"),
        (lambda: LatticeField.rough((9, 1), 1.0, mass=1.0), OptionError, "whole numbers from 2"),
        (lambda: LatticeField.rough((3, 3), 0.0, mass=1.0), OptionError, "positive stiffness"),
        (lambda: LatticeField.rough((3, 3), 1.0, mass=0.0), OptionError, "mass: expected a positive number"),
        (lambda: LatticeField.rough((3, 3), 1.0, mass=1.0, order=3), OptionError, "order: expected 1"),
        (lambda: LatticeField.rough((3, 3), 1.0, mass=1.0, spacing=0.0), OptionError, "spacing: expected a positive"),
        (lambda: FIELD.measure(torch.tensor([9]), ONE, 1.0), DataError, "sites from 0 to 8"),
        (lambda: FIELD.measure(torch.tensor([0.0]), ONE, 1.0), DataError, "sites from 0 to 8, got torch.float"),
        (lambda: FIELD.measure(torch.tensor([0, 1]), ONE, 1.0), DataError, r"value: .* \[2\] sites, got \[1\]"),
        (lambda: FIELD.measure(torch.tensor([0]), ONE, 0.0), OptionError, "noise: expected a positive"),
    ],
)  # fmt: skip
def test_wrong_use_is_refused(wrong, kind, message):
    with pytest.raises(kind, match=message):
        wrong()
