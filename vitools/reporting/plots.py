"""Pictures of a comparison: bounds against time, marginals, moments.

Each function returns a ``matplotlib.figure.Figure`` (``figure.savefig(path)``) and leaves pyplot
and its settings alone. A fit keeps its colour and marker in all of them.

Colours: Okabe, Ito, *Color universal design*, 2008, distinct under colour blindness.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import gaussian_filter1d

from vitools.diagnostics.accuracy import entry_name
from vitools.diagnostics.moments import Moments
from vitools.reporting.comparison import Comparison

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#6F4FA0")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
REFERENCE_COLOUR = "#444444"
BAND_COLOUR = "#D9D9D9"
GRID_POINTS = 256
MAX_PANELS = 12
MAX_ENTRIES = 24

Entry = tuple[str, tuple[int, ...]]
"""A quantity's name and the index of one of its entries."""


def plot_bound(comparison: Comparison) -> Figure:
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
            seconds, elbo = np.array(fit.history.seconds), _smoothed(np.array(fit.history.elbo))
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
        _cut_off_start(axes, finals, visible)
    axes.set_xscale("log")
    axes.set_xlabel("seconds")
    axes.set_ylabel("bound on log p(x), nats")
    axes.set_title("Bound against time", loc="left")
    if finals:
        axes.legend(frameon=False, loc="best")
    return figure


def plot_marginals(comparison: Comparison, max_panels: int = MAX_PANELS) -> Figure:
    """Marginal densities of all fits, one panel per entry; the reference is the grey area.

    Where there are more entries than panels, those on which the fits disagree most are shown.
    """
    entries = _chosen_entries(comparison, max_panels)
    columns = min(4, max(1, len(entries)))
    rows = max(1, math.ceil(len(entries) / columns))
    figure = Figure(figsize=(2.7 * columns + 0.6, 2.1 * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (name, index) in zip(grid, entries, strict=False):
        for fit, judgement in comparison.judgements.items():
            place: tuple[Any, ...] = (slice(None), *index)
            draws = judgement.draws[name][place].double().numpy()
            draws = draws[np.isfinite(draws)]
            if len(draws) < 2 or draws.min() == draws.max():
                continue
            points, density = _density(draws)
            if fit == comparison.reference:
                axes.fill_between(points, density, color=BAND_COLOUR, label=_label(comparison, fit))
                axes.plot(points, density, color="#A6A6A6", linewidth=0.8)
            else:
                colour = _style(comparison, fit)["color"]
                axes.plot(points, density, color=colour, linewidth=1.5, label=fit)
        axes.set_title(entry_name(name, index), fontsize=10)
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


def plot_moments(comparison: Comparison, max_entries: int = MAX_ENTRIES) -> Figure:
    """Mean ± sd of each fit, entry by entry, in units of the reference.

    The reference is the grey band from -1 to 1. Without a reference the fit of best verdict lends
    its scale, and the legend says so.
    """
    entries = _chosen_entries(comparison, max_entries)
    figure, axes = _figure(7.2, 1.4 + 0.36 * max(len(entries), 4))
    yardstick = comparison.reference or comparison.best
    scales = [_at(comparison.judgements[yardstick].moments[name], i) for name, i in entries]
    shown = [name for name in comparison.fits if name != yardstick]
    offsets = np.linspace(0.28, -0.28, len(shown)) if len(shown) > 1 else np.zeros(1)
    heights = np.arange(len(entries))[::-1]
    for fit, offset in zip(shown, offsets, strict=False):
        found = [_at(comparison.judgements[fit].moments[name], i) for name, i in entries]
        pairs = zip(found, scales, strict=True)
        rows = [((mean - m) / s, sd / s) if s > 0 else (0, 0) for (mean, sd), (m, s) in pairs]
        means, sds = zip(*rows, strict=True) if rows else ((), ())
        style = _style(comparison, fit)
        axes.errorbar(means, heights + offset, xerr=sds, **style, elinewidth=1.3, label=fit)
    axes.axvspan(-1, 1, color=BAND_COLOUR, zorder=0, label=_label(comparison, yardstick))
    axes.axvline(0, color="#A6A6A6", linewidth=0.8, zorder=0)
    kind = "the reference" if comparison.reference else yardstick
    axes.set_xlabel(f"(mean ± sd - mean of {kind}) / sd of {kind}")
    axes.set_yticks(heights, [entry_name(*entry) for entry in entries])
    axes.set_ylim(-0.7, max(len(entries), 1) - 0.3)
    axes.tick_params(axis="y", length=0)
    _shared_legend(figure, [axes])
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["right", "top"]].set_visible(False)
    return figure, axes


def _style(comparison: Comparison, fit: str) -> dict[str, Any]:
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


def _label(comparison: Comparison, fit: str) -> str:
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


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Local averages over a fiftieth of the run; a run without noise is left as it is."""
    steps = np.diff(values)
    is_noisy = (steps < 0).mean() > 0.1
    finite = np.where(
        np.isfinite(values), values, np.nanmin(values[np.isfinite(values)], initial=0)
    )
    return gaussian_filter1d(finite, max(1.0, len(values) / 50)) if is_noisy else values


def _cut_off_start(axes: Axes, finals: list[float], visible: list[float]) -> None:
    """Limits that show the final bounds well; what climbs towards them enters from below."""
    top, bottom = max(finals), min(finals)
    room = max(top - bottom, 1.0)
    low = max(min([bottom, *visible]), bottom - 2 * room)
    axes.set_ylim(low - 0.15 * room, top + 0.15 * room)


def _cap_spikes(axes: Axes) -> None:
    """A limit that lets a needle of a density leave at the top rather than flatten the others."""
    peaks = sorted(float(np.max(line.get_ydata())) for line in axes.lines)
    axes.set_ylim(0, min(peaks[-1], 4 * peaks[(len(peaks) - 1) // 2]) * 1.05 if peaks else 1)


def _density(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A smoothed histogram over the range of the draws, reflected at its ends.

    Reflection keeps a density that does not vanish at a boundary (a probability near 0) from
    leaking over it. The bandwidth is Silverman's, 0.9 min(sd, IQR / 1.34) n^(-1/5).
    """
    low, high = draws.min(), draws.max()
    counts, edges = np.histogram(draws, bins=GRID_POINTS, range=(low, high), density=True)
    spread = min(draws.std(), np.subtract(*np.quantile(draws, [0.75, 0.25])) / 1.34) or draws.std()
    bandwidth = 0.9 * spread * len(draws) ** -0.2
    smooth = gaussian_filter1d(counts, bandwidth / (edges[1] - edges[0]), mode="reflect")
    return (edges[1:] + edges[:-1]) / 2, smooth


def _chosen_entries(comparison: Comparison, limit: int) -> list[Entry]:
    """All entries in order, or the ``limit`` on which the fits' means lie furthest apart.

    Furthest in units of the largest sd. Entries that no fit finds variable are left out, and so
    are copies of other entries (a symmetric matrix has each twice).
    """
    scored: list[tuple[float, Entry]] = []
    seen: set[tuple[str, ...]] = set()
    for entry in _all_entries(comparison):
        name, index = entry
        found = [
            _at(judgement.moments[name], index) for judgement in comparison.judgements.values()
        ]
        means, sds = zip(*found, strict=True)
        largest = max(sds)
        fingerprint = tuple(f"{number:.8g}" for pair in found for number in pair)
        if not largest > 1e-10 * (1 + max(map(abs, means))) or fingerprint in seen:
            continue
        seen.add(fingerprint)
        scored.append(((max(means) - min(means)) / largest, entry))
    kept = sorted(range(len(scored)), key=lambda i: -scored[i][0])[:limit]
    return [scored[i][1] for i in sorted(kept)]


def _all_entries(comparison: Comparison) -> Iterator[Entry]:
    judgement = next(iter(comparison.judgements.values()))
    for name, found in judgement.moments.items():
        for index in np.ndindex(*found.mean.shape):
            yield name, index


def _at(found: Moments, index: tuple[int, ...]) -> tuple[float, float]:
    return float(found.mean[index]), float(found.sd[index])
