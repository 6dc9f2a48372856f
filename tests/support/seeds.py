"""Whether estimates over many seeds lie about the truth as their standard errors say."""

import numpy as np
from scipy import stats

ERROR_RATE = 1e-4


def assert_within_errors(estimates, truth, *, degrees=None, slack=0.0):
    """The squares of (estimate - truth) / error sum as they should, neither too large nor too small.

    ``degrees``: of freedom of each standard error, where it comes from few parts.
    ``slack``: what an estimate may be off by beyond its error (a known bias).
    """
    assert len(estimates) >= 20
    value = np.array([e.value for e in estimates])
    error = np.array([e.standard_error for e in estimates])
    assert (error > 0).all()
    off = np.maximum(np.abs(value - truth) - slack, 0.0)
    total = ((off / error) ** 2).sum()
    low, high = _limits(len(estimates), degrees)
    assert total < high, f"{total:.1f} over {len(estimates)} seeds, at most {high:.1f} expected"
    if not slack:
        assert total > low, f"{total:.1f} over {len(estimates)} seeds, at least {low:.1f} expected"


def assert_bound(estimates, truth, side):
    """The mean over seeds lies on the right side, up to four of its own standard errors."""
    assert len(estimates) >= 20
    assert {e.side for e in estimates} == {side}
    value = np.array([e.value for e in estimates])
    error = value.std(ddof=1) / len(value) ** 0.5
    if side == "lower":
        assert value.mean() < truth + 4 * error
    else:
        assert value.mean() > truth - 4 * error


def _limits(count, degrees):
    if degrees is None:
        return stats.chi2.ppf([ERROR_RATE, 1 - ERROR_RATE], count)
    draws = np.random.default_rng(0).standard_t(degrees, (200_000, count))
    return np.quantile((draws**2).sum(1), [ERROR_RATE, 1 - ERROR_RATE])
