"""Rank histograms of simulation-based calibration, as panels of the page.

Of N simulated data sets, each bin of B expects N / B true values; the band shown holds a bin's
Binomial(N, 1/B) count in 99 of 100 cases.

Reference: Talts, Betancourt, Simpson, Vehtari, Gelman, *Validating Bayesian inference algorithms
with simulation-based calibration*, 2018.
"""

from dataclasses import dataclass
from typing import Any

from scipy.stats import binom

from vitools.diagnostics.calibration.calibration import Calibration

COVERAGE = 0.99
MOST = 12
"""Panels of one fit."""


@dataclass(frozen=True)
class RankHistogram:
    """Where true values ranked among a fit's draws, over simulated data sets.

    Attributes:
        fit: whose.
        quantity: of what, e.g. ``"theta[0]"``.
        counts: true values in each of equally wide bins of the rank.
        p_value: of the test that ranks are uniform.
    """

    fit: str
    quantity: str
    counts: tuple[int, ...]
    p_value: float


def rank_histograms(fit: str, calibration: Calibration) -> list[RankHistogram]:
    """The panels of a calibration, the least uniform entry first, at most :data:`MOST` of them."""
    p_values = calibration.uniformity()
    names = sorted(p_values, key=lambda name: p_values[name])[:MOST]
    counts = {name: tuple(calibration.histogram(name)[0].astype(int).tolist()) for name in names}
    return [RankHistogram(fit, name, counts[name], p_values[name]) for name in names]


def panel(ranks: RankHistogram) -> dict[str, Any]:
    """What the page draws.

    >>> shown = panel(RankHistogram("CAVI", "mu", (30, 8, 4, 8, 30), 1e-8))
    >>> shown["low"], shown["high"]
    (7, 26)
    """
    low, high = binom.interval(COVERAGE, sum(ranks.counts), 1 / len(ranks.counts))
    return {
        "fit": ranks.fit,
        "quantity": ranks.quantity,
        "counts": list(ranks.counts),
        "low": int(low),
        "high": int(high),
        "p": float(f"{ranks.p_value:.3g}"),
    }
