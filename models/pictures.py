"""Pictures of one fit that suit a kind of model; each returns a matplotlib ``Figure``.

They take any posterior and the name of a site, so that they serve models of a user's own as well:
``plot_effects(cavi(problem), "u").savefig("effects.png")``. Labels are those of ``Problem.with_coords``.

Colours: Okabe, Ito, *Color universal design*, 2008.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitools.errors import OptionError

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#A6A6A6"
NAMED_ROWS = 60
"""Effects up to which each has its name beside it."""
HALF, NEARLY_ALL = 0.6745, 1.96
"""Standard deviations of a normal within which a half and 95 % of it lie."""


def plot_effects(posterior: Any, site: str, *, titles: Sequence[str] = ()) -> Figure:
    """A caterpillar: the effects of a plate, in the order of their means.

    Thick lines hold half of each normal, thin ones 95 %. A site [groups, D] has D panels, each in
    its own order.
    """
    mean, sd = (
        moments[site].cpu().double().numpy() for moments in (posterior.mean(), posterior.sd())
    )
    if mean.ndim not in (1, 2):
        raise OptionError(
            f"site '{site}': expected effects [groups] or [groups, terms], got {list(mean.shape)}."
        )
    mean, sd = mean.reshape(len(mean), -1), sd.reshape(len(sd), -1)
    num_groups, num_terms = mean.shape
    names = labels_of(posterior, site, 0)
    height = 1.2 + 0.17 * min(num_groups, NAMED_ROWS)
    figure = Figure(figsize=(max(4.5, 3.4 * num_terms), height), layout="constrained")
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
    plates = [*described.plates, *[None] * described.event_dim]
    labels = posterior.problem.coords.get(plates[axis])
    return [str(label) for label in labels or range(described.shape[axis])]
