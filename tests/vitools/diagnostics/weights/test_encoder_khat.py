"""k̂ of each datum: a tail whose index is known, and the judge of one datum applied to each."""

import pytest
import torch

from vitools.diagnostics.weights.encoder_khat import encoder_khats
from vitools.diagnostics.weights.khat import khat_estimate
from vitools.errors import DataError


def gaussian_weights(sds, num_samples=20_000):
    """log w of p = Normal(0, 1) against q = Normal(0, s²), whose tail index is 1 - s²."""
    noise = torch.randn(
        num_samples, len(sds), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    draws = noise * sds
    return -0.5 * draws.square() + 0.5 * noise.square() + sds.log()


def test_each_datum_has_the_tail_of_its_own_weights():
    sds = torch.tensor([0.3, 0.6, 0.9, 1.0], dtype=torch.float64)
    log_weights = gaussian_weights(sds)
    found = encoder_khats(log_weights)
    # In the tail of a Gaussian ratio the index is approached slowly, from below.
    off = 1 - sds[:2].square() - found.values[:2]
    assert (off > -3 * found.standard_errors[:2]).all()
    assert (off < 0.15).all()
    assert found.values[3] == 0.0
    for i, column in enumerate(log_weights.T):
        khat = khat_estimate(column)
        assert found.values[i] == khat.value
        assert found.standard_errors[i] == khat.standard_error


def test_the_share_above_the_threshold_counts_data():
    found = encoder_khats(gaussian_weights(torch.tensor([0.2, 0.3, 0.95, 1.0]).double()))
    assert found.num_samples == 20_000
    assert found.threshold == 0.7
    assert found.share_above == 0.5


def test_one_row_of_weights_is_refused():
    with pytest.raises(DataError, match=r"\[num_samples, num_data\], got shape \[100\]"):
        encoder_khats(torch.zeros(100))
