"""Draws and histories as curves, for whatever draws them."""

import numpy as np
from scipy.ndimage import gaussian_filter1d


def smoothed(values: np.ndarray) -> np.ndarray:
    """Local averages over a fiftieth of the run; a run without noise is left as it is."""
    steps = np.diff(values)
    is_noisy = (steps < 0).mean() > 0.1
    finite = np.where(
        np.isfinite(values), values, np.nanmin(values[np.isfinite(values)], initial=0)
    )
    return gaussian_filter1d(finite, max(1.0, len(values) / 50)) if is_noisy else values


def density(draws: np.ndarray, points: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """A smoothed histogram over the range of the draws, reflected at its ends.

    Reflection keeps a density that does not vanish at a boundary (a probability near 0) from
    leaking over it. The bandwidth is Silverman's, 0.9 min(sd, IQR / 1.34) n^(-1/5).

    Args:
        draws: finite, not all equal, ``[n]``.

    Returns:
        Where, and the density there, each ``[points]``.
    """
    low, high = draws.min(), draws.max()
    counts, edges = np.histogram(draws, bins=points, range=(low, high), density=True)
    spread = min(draws.std(), np.subtract(*np.quantile(draws, [0.75, 0.25])) / 1.34) or draws.std()
    bandwidth = 0.9 * spread * len(draws) ** -0.2
    smooth = gaussian_filter1d(counts, bandwidth / (edges[1] - edges[0]), mode="reflect")
    return (edges[1:] + edges[:-1]) / 2, smooth


def bound_limits(finals: list[float], visible: list[float]) -> tuple[float, float]:
    """Limits that show the final bounds well; what climbs towards them enters from below.

    Args:
        finals: the judged bounds, and the log evidence where known.
        visible: of each record, a value above which it should be seen if there is room.
    """
    top, bottom = max(finals), min(finals)
    room = max(top - bottom, 1.0)
    low = max(min([bottom, *visible]), bottom - 2 * room)
    return low - 0.15 * room, top + 0.15 * room
