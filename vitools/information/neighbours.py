"""Entropy and mutual information from draws of an unknown distribution, by nearest neighbours, in nats.

With ε_i twice the distance of point i to its k-th neighbour in the largest of the coordinates'
distances (Kozachenko and Leonenko 1987; Kraskov et al. 2004, equation 20),

    H(x) ≈ ψ(N) - ψ(k) + D mean_i log ε_i.

For two continuous vectors, with ε_i the distance of point i = (x_i, y_i) to its k-th neighbour and n_x,
n_y the numbers of points closer than ε_i in x alone and in y alone (Kraskov, Stögbauer & Grassberger,
"Estimating mutual information", Phys. Rev. E 69, 2004, equation 8),

    I(x; y) ≈ ψ(k) + ψ(N) - mean_i [ψ(n_x(i) + 1) + ψ(n_y(i) + 1)]

and for a vector and a label, with ε_i the distance to the k-th neighbour of the same label c_i and
m_i the points within it, whatever their label (Ross, PLoS ONE 9, 2014),

    I(x; c) ≈ ψ(k) + ψ(N) - mean_i [ψ(N_{c_i}) + ψ(m_i)].

The variance of each falls as 1/N, so it is read off the spread between disjoint parts of the
data (Holmes & Nemenman, Phys. Rev. E 100, 2019). Columns are standardised; information does not
change under that, and neighbours then mean the same in each. The estimates are good to some per cent
for up to about five dimensions and two or three nats; beyond, information is too low. Their bias is
not in the standard error.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import digamma
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.posterior import Estimate
from vitools.whole_numbers import check_whole

NUM_PARTS = 10


def mutual_information(x: Tensor, y: Tensor, neighbours: int = 3) -> Estimate:
    """I(x; y) of N paired draws, without a distribution assumed. Independence gives 0 ± its error.

    Args:
        x, y: continuous vectors [N] or [N, D]; either may be labels [N] of an integer type or bool.
        neighbours: k.

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> x, noise = torch.randn(2, 5000, generator=generator)
        >>> estimate = mutual_information(x, 0.8 * x + 0.6 * noise)
        >>> round(estimate.value, 1), estimate.standard_error < 0.05  # -½ log(1 - 0.8²) = 0.51
        (0.5, True)
        >>> labels = torch.arange(1000) % 2
        >>> apart = torch.randn(1000, generator=generator) + 100 * labels
        >>> round(mutual_information(apart, labels).value, 2)  # log 2, told apart for certain
        0.69
    """
    columns = [_labels_or_columns(name, value) for name, value in (("x", x), ("y", y))]
    if len(columns[0]) != len(columns[1]):
        raise DataError(
            f"x, y: expected as many of one as of the other, got {len(columns[0])} and "
            f"{len(columns[1])}."
        )
    labels = [column.ndim == 1 for column in columns]
    if all(labels):
        raise OptionError(
            "x, y: both are labels; expected one of a floating type at least. Of labels give the table "
            "of their frequencies to mutual_information_of_table."
        )
    if any(labels):
        of_labels, continuous = columns if labels[0] else columns[::-1]
        return _with_error(
            lambda at: _ross(continuous[at], of_labels[at], neighbours), of_labels, neighbours
        )
    a, b = columns
    return _with_error(lambda at: _kraskov(a[at], b[at], neighbours), a, neighbours)


def entropy_of_samples(x: Tensor, neighbours: int = 3) -> Estimate:
    """H of the density that N draws [N] or [N, D] came from, in the units of x.

    Args:
        neighbours: which nearest neighbour of a draw is measured to.

    Example:
        >>> import torch
        >>> x = torch.randn(5000, generator=torch.Generator().manual_seed(0))
        >>> round(entropy_of_samples(x).value, 1)  # ½ log 2πe = 1.42
        1.4
    """
    given = _finite("x", x)
    scale = _spread("x", given)
    found = _with_error(lambda at: _kozachenko((given / scale)[at], neighbours), given, neighbours)
    return Estimate(found.value + float(np.log(scale).sum()), found.standard_error)


def _kozachenko(x: np.ndarray, neighbours: int) -> float:
    radius = cKDTree(x).query(x, neighbours + 1, p=np.inf)[0][:, -1]
    if (radius == 0).any():
        raise DataError(
            f"x: expected draws of a density, got more than {neighbours} that are equal. Of values "
            "that repeat use entropy_of_table of their frequencies."
        )
    return float(digamma(len(x)) - digamma(neighbours) + x.shape[1] * np.log(2 * radius).mean())


def _kraskov(x: np.ndarray, y: np.ndarray, neighbours: int) -> float:
    # Distances strictly below ε_i count, so the search radius is the float just below it.
    both = cKDTree(np.hstack([x, y]))
    radius = both.query(both.data, neighbours + 1, p=np.inf)[0][:, -1]
    _refuse_equal("x, y", "pairs", radius, neighbours)
    below = np.nextafter(radius, 0)
    # The counts include the point itself: they are n + 1 already.
    counts = [_within(cKDTree(part), part, below) for part in (x, y)]
    local = digamma(counts[0]) + digamma(counts[1])
    return float(digamma(neighbours) + digamma(len(x)) - local.mean())


def _ross(x: np.ndarray, labels: np.ndarray, neighbours: int) -> float:
    radius, size = np.empty(len(x)), np.empty(len(x))
    for label in np.unique(labels):
        own = labels == label
        if own.sum() <= neighbours:
            raise DataError(
                f"labels: expected more than {neighbours} points of each (ten times as many, for "
                f"the standard error), got {own.sum()} of label {label} in one part."
            )
        tree = cKDTree(x[own])
        radius[own] = tree.query(tree.data, neighbours + 1, p=np.inf)[0][:, -1]
        size[own] = own.sum()
    _refuse_equal("x, y", "draws of one label", radius, neighbours)
    within = _within(cKDTree(x), x, np.nextafter(radius, 0))
    local = digamma(size) + digamma(within)
    return float(digamma(neighbours) + digamma(len(x)) - local.mean())


def _refuse_equal(name: str, what: str, radius: np.ndarray, neighbours: int) -> None:
    """Raise where no distance is left to count within."""
    if (radius == 0).any():
        raise DataError(
            f"{name}: expected draws of a density, got more than {neighbours} {what} that are equal. Give values "
            "that repeat in an integer type, as labels; where both repeat, the table of their frequencies "
            "to mutual_information_of_table."
        )


def _within(tree: cKDTree, points: np.ndarray, radius: np.ndarray) -> np.ndarray:
    return tree.query_ball_point(points, radius, p=np.inf, return_length=True)


def _with_error(
    estimate: Callable[[np.ndarray], float], first: np.ndarray, neighbours: int
) -> Estimate:
    """Of all rows, with the spread between :data:`NUM_PARTS` parts of them.

    Vectors whose parts all give the same number show nothing of the error, which is infinite then.

    Args:
        first: the labels where there are some, of which each part gets its share.
    """
    check_whole("neighbours", neighbours, 1)
    if len(first) < NUM_PARTS * (neighbours + 2):
        raise DataError(
            f"expected at least {NUM_PARTS * (neighbours + 2)} points, for a standard error from "
            f"{NUM_PARTS} parts of the data; got {len(first)}."
        )
    order = np.random.default_rng(0).permutation(len(first))
    if first.ndim == 1:
        order = order[np.argsort(first[order], kind="stable")]
    parts = [order[start::NUM_PARTS] for start in range(NUM_PARTS)]
    spread = np.std([estimate(part) for part in parts], ddof=1)
    error = float(spread) / math.sqrt(NUM_PARTS)
    if error == 0.0 and first.ndim == 2:  # a vector that is a copy of the other: N alone counts
        error = math.inf
    return Estimate(estimate(np.arange(len(first))), error)


def _labels_or_columns(name: str, values: object) -> np.ndarray:
    """Labels [N], or standardised columns [N, D]."""
    if isinstance(values, Tensor) and not values.is_floating_point() and not values.is_complex():
        if values.dim() != 1:
            raise OptionError(
                f"{name}: expected labels of shape [N], got shape {list(values.shape)}. "
                "Number the combinations, or turn them into a floating type."
            )
        return values.detach().cpu().numpy()
    array = _finite(name, values)
    return (array - array.mean(0)) / _spread(name, array)


def _finite(name: str, values: object) -> np.ndarray:
    if not isinstance(values, Tensor) or not values.is_floating_point() or values.dim() < 1:
        got = f"{values.dtype}" if isinstance(values, Tensor) else type(values).__name__
        raise OptionError(
            f"{name}: expected a tensor of a floating type of shape [N] or [N, D], got {got}."
        )
    array = values.detach().cpu().double().numpy()
    if not array.size:
        raise DataError(f"{name}: expected draws, got none (shape {list(array.shape)}).")
    array = array.reshape(len(array), -1)
    if not np.isfinite(array).all():
        raise DataError(f"{name}: expected finite values, got NaN or infinity.")
    return array


def _spread(name: str, array: np.ndarray) -> np.ndarray:
    spread = array.std(0)
    if (spread == 0).any():
        raise DataError(f"{name}: column {int((spread == 0).argmax())} is constant.")
    return spread
