"""Rank histograms of a calibration, with the band that exact fits would stay in."""

import math

from matplotlib.figure import Figure
from scipy import stats

from vitools.diagnostics.calibration.calibration import Calibration
from vitools.notebook.picture import Picture

BAND = 0.99
WIDTH, HEIGHT = 3.2, 2.2


def plot_calibration(calibration: Calibration, max_panels: int = 9) -> Figure:
    """A histogram of p_j = Pr(draw < truth) for each entry, the least uniform first.

    Flat is calibrated, ∪ too narrow, ∩ too wide, a slope biased. The band holds 99 % of the counts of
    a bin of exact fits.
    """
    uniformity, symmetry = calibration.uniformity(), calibration.symmetry()
    names = sorted(uniformity, key=lambda name: uniformity[name])[:max_panels]
    columns = min(3, max(1, len(names)))
    rows = max(1, math.ceil(len(names) / columns))
    figure = Picture(figsize=(WIDTH * columns, HEIGHT * rows), layout="constrained")
    for i, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, i + 1)
        counts, edges = calibration.histogram(name)
        total = int(counts.sum())
        axes.bar(edges[:-1], counts, edges[1] - edges[0], align="edge", color="C0")
        low, high = stats.binom.interval(BAND, total, 1 / len(counts))
        axes.axhspan(float(low), float(high), color="0.88", linewidth=0, zorder=0)
        axes.axhline(total / len(counts), color="0.3", linewidth=0.8)
        title = f"{name}: uniform p = {uniformity[name]:.2g}, symmetric p = {symmetry[name]:.2g}"
        axes.set_title(title, loc="left", fontsize=8)
        axes.set_xlim(0.0, 1.0)
        axes.set_xlabel("share of draws below the truth", fontsize=8)
        axes.set_ylabel("data sets", fontsize=8)
        axes.tick_params(labelsize=7)
    return figure
