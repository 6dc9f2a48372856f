"""The shipped sets equal what scikit-learn distributes, and reading them does not load torch."""

import subprocess
import sys

import numpy as np
import pytest

from vitools.data import load_diabetes, load_digits


def test_digits_equal_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    expected = datasets.load_digits()
    digits = load_digits()
    assert digits.images.dtype == digits.labels.dtype == np.uint8
    np.testing.assert_array_equal(digits.images, expected.images)
    np.testing.assert_array_equal(digits.labels, expected.target)


def test_diabetes_equals_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    expected = datasets.load_diabetes(scaled=False)
    diabetes = load_diabetes()
    assert diabetes.feature_names == tuple(expected.feature_names)
    np.testing.assert_array_equal(diabetes.features, expected.data)
    np.testing.assert_array_equal(diabetes.progression, expected.target)


def test_published_facts():
    digits, diabetes = load_digits(), load_diabetes()
    assert digits.images.shape == (1797, 8, 8)
    # The UCI description's class counts of the test set.
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(digits.labels).tolist() == counts
    assert diabetes.features.shape == (442, 10)
    # The first and the last patient of Least Angle Regression's table 1, rounded as printed there.
    rows = np.column_stack([diabetes.features, diabetes.progression])[[0, -1]]
    first = [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.9, 87, 151]
    last = [36, 1, 19.6, 71, 250, 133.2, 97, 3, 4.6, 92, 57]
    np.testing.assert_allclose(rows, [first, last], atol=0.05)


def test_reading_needs_no_torch():
    code = (
        "import sys, vitools.data as d; d.load_digits(); d.load_diabetes(); "
        "sys.exit('torch' in sys.modules or 'pyro' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
