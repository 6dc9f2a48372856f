"""Pictures of fields, posteriors on grids and their contraction; each returns a matplotlib ``Figure``."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from vitools.models.pictures import BLUE, COLOURS, GREY, NEARLY_ALL, ORANGE


def plot_lattice(mean: Tensor, sd: Tensor, at: Tensor, shape: tuple[int, int]) -> Figure:
    """Mean and standard deviation of a field [N] on its lattice; rings where it was measured."""
    rows, columns = np.unravel_index(at.numpy(), shape)
    figure = Figure(figsize=(8.4, 3.9), layout="constrained")
    panels = zip(
        figure.subplots(1, 2),
        (("mean", mean, "RdBu_r"), ("standard deviation", sd, "viridis")),
        strict=True,
    )
    for axes, (title, values, colours) in panels:
        table = values.detach().numpy().reshape(shape)
        limit = abs(table).max()
        ends = {"vmin": -limit, "vmax": limit} if title == "mean" else {"vmin": 0.0}
        image = axes.imshow(table, cmap=colours, **ends)
        axes.scatter(columns, rows, s=28, facecolors="none", edgecolors="black", linewidths=0.8)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set(xticks=[], yticks=[])
        figure.colorbar(image, ax=axes, shrink=0.9)
    return figure


def plot_line(
    x: Tensor,
    mean: Tensor,
    sd: Tensor,
    y: Tensor,
    mask: Tensor,
    *,
    truth: Tensor | None = None,
    title: str = "",
) -> Figure:
    """A field [T] along x with the band that holds 95 %, over what was read where ``mask`` says."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.subplots()
    places, middle, width = (a.detach().numpy() for a in (x, mean, NEARLY_ALL * sd))
    axes.fill_between(
        places, middle - width, middle + width, color=BLUE, alpha=0.25, linewidth=0, label="95 %"
    )
    axes.plot(places, middle, color=BLUE, linewidth=1.5, label="field, mean")
    if truth is not None:
        axes.plot(places, truth.numpy(), color=ORANGE, linewidth=1, linestyle="--", label="truth")
    axes.plot(places[mask], y.numpy()[mask], "o", color=GREY, markersize=4, label="read", zorder=1)
    axes.set(xlabel="x", title=title)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_densities(
    grid: Tensor, densities: Mapping[str, Tensor], *, truth: float | None = None, name: str = ""
) -> Figure:
    """Densities [len(grid)] of one number by their labels, such as posteriors after more and more data."""
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    for i, (label, density) in enumerate(densities.items()):
        axes.plot(grid.numpy(), density.numpy(), color=COLOURS[i % len(COLOURS)], label=label)
    if truth is not None:
        axes.axvline(truth, color="black", linewidth=1, linestyle="--", label="truth")
    axes.set(xlabel=name, ylabel="density", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_plane(
    first: Tensor,
    second: Tensor,
    density: Tensor,
    *,
    names: Sequence[str] = ("", ""),
    truth: Sequence[float] | None = None,
    draws: tuple[Tensor, Tensor] | None = None,
) -> Figure:
    """A density [len(first), len(second)] over a plane; draws as points, a cross at the truth."""
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.subplots()
    held = density.sum(0) > 1e-6 * density.sum(0).max()
    image = axes.pcolormesh(
        first.numpy(), second.numpy(), density.numpy().T, cmap="Blues", shading="nearest"
    )
    figure.colorbar(image, ax=axes, label="density")
    if draws is not None:
        axes.plot(draws[0].numpy(), draws[1].numpy(), ".", color=ORANGE, markersize=2, alpha=0.4)
    if truth is not None:
        axes.plot(*truth, "x", color="black", markersize=9, label="truth")
        # a place of its own: "best" looks at every cell of the grid, and warns that this is slow
        axes.legend(frameon=False, fontsize=8, loc="upper right")
    axes.set(
        xlabel=names[0],
        ylabel=names[1],
        xlim=(float(first[0]), float(first[-1])),
        ylim=(float(second[held][0]), float(second[held][-1])),
    )
    return figure


def plot_readout(signal: Tensor, grid: Tensor, probability: Tensor) -> Figure:
    """Shots [N] as a histogram, and over a grid [G] of signals the probability to be excited."""
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.hist(signal.numpy(), bins=40, color=GREY)
    axes.set(xlabel="signal", ylabel="shots")
    right = axes.twinx()
    right.plot(grid.numpy(), probability.numpy(), color=BLUE, linewidth=2)
    right.set_ylabel("P(excited | signal)", color=BLUE)
    right.set_ylim(0, 1)
    return figure


def plot_numbers(rows: Mapping[str, tuple[Tensor, Tensor]], after: str) -> Figure:
    """Distributions of a count, by their labels: before (grey) and after (blue), with their means."""
    figure = Figure(figsize=(3.8 * len(rows), 3.2), layout="constrained")
    for axes, (name, (before, now)) in zip(
        figure.subplots(1, len(rows), squeeze=False)[0], rows.items(), strict=True
    ):
        n = np.arange(len(before))
        means = [float(p.numpy() @ n) for p in (before, now)]
        axes.bar(n - 0.2, before.numpy(), 0.4, color=GREY, label=f"before, mean {means[0]:.2f}")
        axes.bar(n + 0.2, now.numpy(), 0.4, color=BLUE, label=f"{after}, mean {means[1]:.2f}")
        likely = n[(before + now).numpy() > 1e-3]
        axes.set(title=name, xlabel="photons", xlim=(-0.7, likely.max() + 0.7))
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
