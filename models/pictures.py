"""Pictures of one fit that suit a kind of model; each returns a matplotlib ``Figure``.

They take any posterior and the name of a site, so that they serve models of a user's own as well:
``plot_effects(cavi(problem), "u").savefig("effects.png")``. Labels are those of ``Problem.with_coords``.

Colours: Okabe, Ito, *Color universal design*, 2008.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch
from torch import Tensor

from vitools.errors import OptionError
from vitools.notebook.picture import Picture

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#A6A6A6"
NAMED_ROWS = 60
"""Effects up to which each has its name beside it."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#6F4FA0")
HALF, NEARLY_ALL = 0.6745, 1.96
"""Standard deviations of a normal within which a half and 95 % of it lie."""


def plot_effects(posterior: Any, site: str, *, titles: Sequence[str] = ()) -> Figure:
    """A caterpillar: the effects of a plate, in the order of their means.

    Thick lines hold half of each normal, thin ones 95 %. A site [groups, D] has D panels, each in
    its own order.
    """
    mean, sd = (_array(moments[site]) for moments in (posterior.mean(), posterior.sd()))
    if mean.ndim not in (1, 2):
        raise OptionError(
            f"site '{site}': expected effects [groups] or [groups, terms], got {list(mean.shape)}."
        )
    mean, sd = mean.reshape(len(mean), -1), sd.reshape(len(sd), -1)
    num_groups, num_terms = mean.shape
    names = labels_of(posterior, site, 0)
    height = 1.2 + 0.17 * min(num_groups, NAMED_ROWS)
    figure = Picture(figsize=(max(4.5, 3.4 * num_terms), height), layout="constrained")
    for d, axes in enumerate(figure.subplots(1, num_terms, squeeze=False)[0]):
        order = mean[:, d].argsort()
        _bars(axes, mean[order, d], sd[order, d])
        axes.set_title(titles[d] if d < len(titles) else f"{site}[{d}]", fontsize=10, loc="left")
        if num_groups <= NAMED_ROWS:
            axes.set_yticks(range(num_groups), [names[i] for i in order], fontsize=8)
        else:
            axes.set_yticks([])
            axes.set_ylabel(f"{num_groups} groups in order")
    figure.supxlabel(f"{site}: mean, half of its probability, 95 %", fontsize=9)
    return figure


def _bars(axes: Axes, mean: np.ndarray, sd: np.ndarray) -> None:
    rows = np.arange(len(mean))
    axes.axvline(0, color=GREY, linewidth=1)
    axes.hlines(rows, mean - NEARLY_ALL * sd, mean + NEARLY_ALL * sd, color=BLUE, linewidth=0.8)
    axes.hlines(rows, mean - HALF * sd, mean + HALF * sd, color=BLUE, linewidth=2.4)
    axes.plot(mean, rows, "o", color=BLUE, markersize=3.5)
    axes.set_ylim(-0.8, len(mean) - 0.2)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def labels_of(posterior: Any, site: str, axis: int) -> list[str]:
    """What the elements of one axis of a site are called; numbers from 0 where nothing says."""
    described = posterior.problem.latents[site]
    # dims without a plate go by the site's name, as Problem.dims has them
    names = [*described.plates, *[f"{site}_dim_{i}" for i in range(described.event_dim)]]
    labels = posterior.problem.coords.get(names[axis])
    return [str(label) for label in labels or range(described.shape[axis])]


def plot_states(
    posterior: Any, site: str, *, observed: str | None = None, titles: Sequence[str] = ()
) -> Figure:
    """States over time ``[T, d]`` (or ``[T]``) with the band that holds 95 %, a panel each.

    What an observed site ``[T]`` holds is drawn as points behind the first.
    """
    mean, sd = (_array(moments[site]) for moments in (posterior.mean(), posterior.sd()))
    mean, sd = mean.reshape(len(mean), -1), sd.reshape(len(sd), -1)
    times, name = _times(posterior, observed, len(mean))
    figure = Picture(figsize=(7.2, 1 + 2.4 * mean.shape[1]), layout="constrained")
    panels = figure.subplots(mean.shape[1], 1, squeeze=False, sharex=True)[:, 0]
    for d, axes in enumerate(panels):
        if d == 0 and observed is not None:
            seen = _array(posterior.problem.observed[observed].value)
            axes.plot(times, seen, ".", color=GREY, markersize=4, label=observed)
        low, high = mean[:, d] - NEARLY_ALL * sd[:, d], mean[:, d] + NEARLY_ALL * sd[:, d]
        title = titles[d] if d < len(titles) else f"{site}[{d}]"
        axes.fill_between(times, low, high, color=BLUE, alpha=0.25, linewidth=0, label="95 %")
        axes.plot(times, mean[:, d], color=BLUE, linewidth=1.5, label=f"{title}, mean")
        axes.legend(frameon=False, fontsize=8, loc="best")
        axes.set_ylabel(title)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel(name)
    return figure


def plot_regimes(posterior: Any, observed: str, probability: Tensor, level: Tensor) -> Figure:
    """What was seen ``[T]``, coloured by the likeliest of K regimes, over their probabilities [T, K]."""
    seen, shares = _array(posterior.problem.observed[observed].value), _array(probability)
    times, name = _times(posterior, observed, len(seen))
    figure = Picture(figsize=(7.2, 4.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    likeliest = shares.argmax(1)
    for k, value in enumerate(level.tolist()):
        colour, own = COLOURS[k % len(COLOURS)], likeliest == k
        above.plot(times[own], seen[own], ".", color=colour, markersize=5)
        above.axhline(value, color=colour, linewidth=1, label=f"level {value:.3g}")
    below.stackplot(times, shares.T, colors=[COLOURS[k % len(COLOURS)] for k in range(len(level))])
    above.set_ylabel(observed)
    above.legend(frameon=False, fontsize=8, loc="upper right")
    below.set(ylabel="probability", xlabel=name, ylim=(0, 1), xlim=(times[0], times[-1]))
    above.spines[["top", "right"]].set_visible(False)
    return figure


def state_probabilities(posterior: Any, site: str, num_samples: int = 200) -> Tensor:
    """P(z = k | data) of a discrete latent, [*shape, K], averaged over draws of the other latents."""
    draws = posterior.sample(num_samples) if posterior.problem.drawn else {}
    probability: Tensor = posterior.problem.discrete_marginals(draws)[site]
    return probability.mean(0) if draws else probability


def plot_transitions(table: Tensor, names: Sequence[str]) -> Figure:
    """States in a ring, and between them arrows as wide as the transition [K, K] is probable."""
    shares, count = _array(table), len(table)
    angles = np.pi - 2 * np.pi * np.arange(count) / count
    places = np.stack([np.cos(angles), np.sin(angles)], 1)
    figure = Picture(figsize=(5.4, 5.4 if count > 2 else 3.2), layout="constrained")
    axes = figure.subplots()
    for i, place in enumerate(places):
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(*place, "o", markersize=44, color=colour, zorder=3)
        axes.text(place[0], place[1], names[i], color="white", ha="center", va="center", zorder=4)
        axes.text(
            1.62 * place[0], 1.62 * place[1], f"stays {shares[i, i]:.2f}", ha="center", va="center"
        )
        for j, other in enumerate(places):
            if i == j or shares[i, j] < 0.005:
                continue
            axes.add_patch(
                FancyArrowPatch(
                    tuple(place),
                    tuple(other),
                    connectionstyle="arc3,rad=0.25",
                    arrowstyle="-|>",
                    mutation_scale=14,
                    shrinkA=24,
                    shrinkB=24,
                    linewidth=0.8 + 6 * shares[i, j],
                    color=colour,
                )
            )
            along = other - place
            middle = (place + other) / 2 + 0.19 * np.array([along[1], -along[0]])
            axes.text(
                middle[0], middle[1], f"{shares[i, j]:.2f}", ha="center", va="center", fontsize=9
            )
    reach = 1.95
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach) if count > 2 else (-0.9, 0.9))
    axes.set_aspect("equal")
    axes.set_axis_off()
    return figure


def plot_clusters(
    data: Tensor, shares: Tensor, location: Tensor, covariance: Tensor, weights: Tensor
) -> Figure:
    """Components over rows [N, D], coloured by the likeliest of [N, K]; in ellipses lies 95 % of each.

    One column is drawn as a histogram; of more than two, the plane of their principal axes.
    """
    figure = Picture(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    names = ["data[0]", "data[1]"]
    if data.shape[1] == 1:
        _densities(axes, data[:, 0], location[:, 0], covariance[:, 0, 0], weights)
    else:
        if data.shape[1] > 2:
            standard = data.std(0)
            _, _, axis = torch.linalg.svd((data - data.mean(0)) / standard, full_matrices=False)
            plane = axis[:2].mT / standard[:, None]
            data, location = (data - data.mean(0)) @ plane, (location - data.mean(0)) @ plane
            covariance = plane.mT @ covariance @ plane
            names = ["first principal axis", "second principal axis"]
        likeliest = _array(shares.argmax(1))
        points = _array(data)
        for k, weight in enumerate(weights.tolist()):
            colour, own = COLOURS[k % len(COLOURS)], likeliest == k
            axes.plot(*points[own].T, ".", color=colour, markersize=4, label=f"{k}: {weight:.2f}")
            variances, vectors = np.linalg.eigh(_array(covariance[k]))
            width, height = 2 * np.sqrt(5.991 * variances)  # 95 % of χ² with two degrees of freedom
            angle = float(np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0])))
            centre = tuple(_array(location[k]))
            axes.add_patch(
                Ellipse(centre, width, height, angle=angle, fill=False, color=colour, linewidth=1.5)
            )
        axes.set(xlabel=names[0], ylabel=names[1])
    axes.legend(frameon=False, fontsize=8, title="component: share")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_loadings(loadings: Tensor, variances: Tensor, names: Sequence[str]) -> Figure:
    """What each of K factors explains (a scree), beside the loadings [V, K] of columns on them."""
    order = variances.argsort(descending=True)
    table, explained = _array(loadings[:, order]), _array(variances[order])
    columns, factors = table.shape
    size = (3.6 + 0.5 * factors + 2.2, max(3.0, 1.2 + 0.22 * columns))
    figure = Picture(figsize=size, layout="constrained")
    scree, axes = figure.subplots(1, 2, width_ratios=[1, 1.3])
    numbers = [str(k) for k in order.tolist()]
    scree.plot(range(factors), explained, "o-", color=BLUE)
    scree.set_xticks(range(factors), numbers)
    scree.set(xlabel="factor", ylabel="variance explained", ylim=(0, None))
    scree.spines[["top", "right"]].set_visible(False)
    reach = np.abs(table).max()
    image = axes.imshow(table, cmap="RdBu", vmin=-reach, vmax=reach, aspect="auto")
    axes.set_xticks(range(factors), numbers)
    axes.set_yticks(range(columns), names, fontsize=8)
    axes.set(xlabel="factor")
    figure.colorbar(image, ax=axes, label="loading")
    return figure


def plot_leaders(
    table: Tensor, names: Sequence[str], kind: str, quantity: str, *, shown: int = 8
) -> Figure:
    """For each row of ``table`` [K, V] its largest entries by name, a panel each."""
    values = _array(table)
    count, shown = len(values), min(shown, values.shape[1])
    across = min(count, 4)
    down = -(-count // across)
    figure = Picture(
        figsize=(2.1 * across + 0.4, 0.6 + (0.5 + 0.2 * shown) * down), layout="constrained"
    )
    panels = figure.subplots(down, across, squeeze=False, sharex=True).flatten()
    for k, axes in enumerate(panels[:count]):
        order = values[k].argsort()[::-1][:shown]
        axes.barh(range(shown), values[k][order], color=COLOURS[k % len(COLOURS)])
        axes.set_yticks(range(shown), [names[v] for v in order], fontsize=8)
        axes.invert_yaxis()
        axes.set_title(f"{kind} {k}", fontsize=10, loc="left")
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    for axes in panels[count:]:
        axes.remove()
    figure.supxlabel(quantity, fontsize=9)
    return figure


def _densities(
    axes: Axes, data: Tensor, location: Tensor, variance: Tensor, weights: Tensor
) -> None:
    axes.hist(_array(data), bins=30, density=True, color="#D9D9D9")
    margin = 0.1 * float(data.max() - data.min())
    points = torch.linspace(float(data.min()) - margin, float(data.max()) + margin, 400).to(data)
    parts = weights * torch.distributions.Normal(location, variance.sqrt()).log_prob(
        points[:, None]
    ).exp()  # fmt: skip
    for k, weight in enumerate(weights.tolist()):
        colour = COLOURS[k % len(COLOURS)]
        axes.plot(_array(points), _array(parts[:, k]), color=colour, label=f"{k}: {weight:.2f}")
    axes.plot(_array(points), _array(parts.sum(1)), color="#444444", linewidth=1, label="all")
    axes.set(xlabel="data", ylabel="density")


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def _times(posterior: Any, observed: str | None, count: int) -> tuple[np.ndarray, str]:
    """Where the times stand: by their labels, where those are numbers, else counted; and what of."""
    sites = posterior.problem.observed
    plates = list(sites[observed].plates) if observed in sites else []
    name = plates[-1] if plates and plates[-1] else "time"
    try:
        return np.array([float(label) for label in posterior.problem.coords[name]]), name
    except (KeyError, ValueError):
        return np.arange(count, dtype=float), name
