"""Pictures of a comparison: bounds against time, marginals, moments.

Each function returns a ``matplotlib.figure.Figure`` (``figure.savefig(path)``) and leaves pyplot
and its settings alone. A fit keeps its colour and marker in all of them.

Colours: Okabe, Ito, *Color universal design*, 2008, distinct under colour blindness.
"""

import math
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from vitools.notebook.picture import Picture
from vitools.reporting.comparison.entries import chosen_entries, draws_at, entry_words, moments_at
from vitools.reporting.comparison.record import JudgedFits
from vitools.reporting.plots.curves import bound_limits, density, smoothed

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#6F4FA0")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
REFERENCE_COLOUR = "#444444"
BAND_COLOUR = "#D9D9D9"
BOUND_CAPTION = (
    "Lines: the engines' own records, smoothed where noisy; the start of the ascent is cut off.\n"
    "Markers: the judged bounds on one scale, ± two standard errors, discrete latents summed out.\n"
    "Dotted: from an engine's own last value to the judged one."
)
MAX_PANELS = 12
MAX_ENTRIES = 24


def plot_bound(comparison: JudgedFits) -> Figure:
    """The bound of each fit against seconds, and its final value on the common scale.

    Lines are the engines' own records, smoothed where they are noisy; markers are the judged
    bounds with two standard errors, discrete latents summed out. Where an engine's own bound is a
    lower one, a dotted line leads from it to the marker. The lower end of the ascent is cut off.
    """
    figure, axes = _figure(7.2, 4.4)
    finals, visible = [], []
    for name, fit in comparison.fits.items():
        style = _style(comparison, name)
        lower = comparison.judgements[name].bound
        if lower is not None and not math.isfinite(lower.value):
            lower = None
        when = max(fit.seconds, 1e-3)
        if len(fit.history) > 1:
            seconds, elbo = np.array(fit.history.seconds), smoothed(np.array(fit.history.elbo))
            axes.plot(seconds, elbo, color=style["color"], linewidth=1.6)
            visible.append(float(np.nanquantile(elbo, 0.3)))
            if lower is not None:
                ends = [seconds[-1], when], [elbo[-1], lower.value]
                axes.plot(*ends, color=style["color"], linewidth=1.2, linestyle=":")
        if lower is not None:
            error = 2 * lower.standard_error
            axes.errorbar(when, lower.value, error, **style, capsize=3, label=name)
            finals.append(lower.value)
    if comparison.log_evidence is not None:
        value = comparison.log_evidence.value
        axes.axhline(value, color=REFERENCE_COLOUR, linestyle="--", linewidth=1)
        axes.annotate(
            "log evidence", (0.01, value), xycoords=("axes fraction", "data"), va="bottom"
        )
        finals.append(value)
    if finals:
        axes.set_ylim(*bound_limits(finals, visible))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
    axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))  # within a decade
    axes.set_xlabel("seconds of fitting (logarithmic)")
    axes.set_ylabel("bound on log p(x), nats; higher is better")
    axes.set_title("Bound against time", loc="left")
    figure.supxlabel(BOUND_CAPTION, fontsize=8, x=0.01, ha="left")
    if finals:
        axes.legend(frameon=False, loc="best")
    return figure


def plot_marginals(comparison: JudgedFits, max_panels: int = MAX_PANELS) -> Figure:
    """Marginal densities of all fits, one panel per entry; the reference is the grey area.

    Where there are more entries than panels, those on which the fits disagree most are shown.

    Args:
        max_panels: how many entries are shown.
    """
    entries = chosen_entries(comparison.judgements, max_panels)
    columns = min(4, max(1, len(entries)))
    rows = max(1, math.ceil(len(entries) / columns))
    figure = Picture(figsize=(2.7 * columns + 0.6, 2.1 * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (name, index) in zip(grid, entries, strict=False):
        for fit, judgement in comparison.judgements.items():
            draws = draws_at(judgement, (name, index))
            draws = draws[np.isfinite(draws)]
            if len(draws) < 2 or draws.min() == draws.max():
                continue
            points, heights = density(draws)
            if fit == comparison.reference:
                axes.fill_between(points, heights, color=BAND_COLOUR, label=_label(comparison, fit))
                axes.plot(points, heights, color="#A6A6A6", linewidth=0.8)
            else:
                colour = _style(comparison, fit)["color"]
                axes.plot(points, heights, color=colour, linewidth=1.5, label=fit)
        axes.set_title(entry_words(comparison.problem, (name, index)), fontsize=10)
        _cap_spikes(axes)
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(labelsize=8)
        axes.spines[["left", "right", "top"]].set_visible(False)
    for axes in grid[len(entries) :]:
        axes.remove()
    if entries:
        _shared_legend(figure, grid[: len(entries)])
    return figure


def plot_moments(comparison: JudgedFits, max_entries: int = MAX_ENTRIES) -> Figure:
    """Mean ± sd of each fit, entry by entry, in units of the reference.

    The reference is the grey band from -1 to 1. Without a reference the fit of best verdict lends
    its scale, and the legend says so.

    Args:
        max_entries: how many entries are shown.
    """
    entries = chosen_entries(comparison.judgements, max_entries)
    figure, axes = _figure(7.2, 1.4 + 0.36 * max(len(entries), 4))
    yardstick = comparison.reference or comparison.best
    scales = [moments_at(comparison.judgements[yardstick], entry) for entry in entries]
    shown = [name for name in comparison.fits if name != yardstick]
    offsets = np.linspace(0.28, -0.28, len(shown)) if len(shown) > 1 else np.zeros(1)
    heights = np.arange(len(entries))[::-1]
    for fit, offset in zip(shown, offsets, strict=False):
        found = [moments_at(comparison.judgements[fit], entry) for entry in entries]
        pairs = zip(found, scales, strict=True)
        rows = [((mean - m) / s, sd / s) if s > 0 else (0, 0) for (mean, sd), (m, s) in pairs]
        means, sds = zip(*rows, strict=True) if rows else ((), ())
        style = _style(comparison, fit)
        axes.errorbar(means, heights + offset, xerr=sds, **style, elinewidth=1.3, label=fit)
    axes.axvspan(-1, 1, color=BAND_COLOUR, zorder=0, label=_label(comparison, yardstick))
    axes.axvline(0, color="#A6A6A6", linewidth=0.8, zorder=0)
    kind = "the reference" if comparison.reference else yardstick
    axes.set_xlabel(f"(mean ± sd - mean of {kind}) / sd of {kind}")
    axes.set_yticks(heights, [entry_words(comparison.problem, entry) for entry in entries])
    axes.set_ylim(-0.7, max(len(entries), 1) - 0.3)
    axes.tick_params(axis="y", length=0)
    _shared_legend(figure, [axes])
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Picture(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["right", "top"]].set_visible(False)
    return figure, axes


def _style(comparison: JudgedFits, fit: str) -> dict[str, Any]:
    if fit == comparison.reference:
        return {"color": REFERENCE_COLOUR, "marker": "o", "markersize": 5, "linestyle": "none"}
    others = [name for name in comparison.fits if name != comparison.reference]
    place = others.index(fit)
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "markersize": 5,
        "linestyle": "none",
    }


def _label(comparison: JudgedFits, fit: str) -> str:
    return f"{fit} (reference)" if fit == comparison.reference else f"{fit} (no reference)"


def _shared_legend(figure: Figure, all_axes: list[Axes] | np.ndarray) -> None:
    handles: dict[str, Artist] = {}
    for axes in all_axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    columns = max(2, int(figure.get_figwidth() / 2.2))
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper left", ncols=columns, frameon=False
    )


def _cap_spikes(axes: Axes) -> None:
    """A limit that lets a needle of a density leave at the top rather than flatten the others."""
    peaks = sorted(float(np.max(line.get_ydata())) for line in axes.lines)
    axes.set_ylim(0, min(peaks[-1], 4 * peaks[(len(peaks) - 1) // 2]) * 1.05 if peaks else 1)
