"""How much learnt latents know of a truth: mutual information by nearest neighbours, in nats.

For two continuous vectors, with ε_i the distance of point i = (x_i, y_i) to its k-th neighbour in
the largest of the coordinates' distances, and n_x, n_y the numbers of points closer than ε_i in x
alone and in y alone (Kraskov, Stögbauer & Grassberger, "Estimating mutual information", Phys.
Rev. E 69, 2004, equation 8),

    I(x; y) ≈ ψ(k) + ψ(N) - mean_i [ψ(n_x(i) + 1) + ψ(n_y(i) + 1)]

and for a vector and a label, with ε_i the distance to the k-th neighbour of the same label c_i and
m_i the points within it, whatever their label (Ross, PLoS ONE 9, 2014),

    I(x; c) ≈ ψ(k) + ψ(N) - mean_i [ψ(N_{c_i}) + ψ(m_i)].

The variance of either falls as 1/N, so it is read off the spread between disjoint parts of the
data (Holmes & Nemenman, Phys. Rev. E 100, 2019). Columns are standardised; information does not
change under that, and neighbours then mean the same in each. The estimate is good to some per cent
for up to about five dimensions and two or three nats; beyond, it is too low.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.special import digamma
from torch import Tensor

from vitools.errors import DataError, OptionError

NUM_PARTS = 10


class MutualInformation(NamedTuple):
    """An estimate in nats, with its standard error. Independence gives 0 ± it, also from below."""

    value: float
    standard_error: float


def mutual_information(x: Tensor, y: Tensor, neighbours: int = 3) -> MutualInformation:
    """I(x; y) of N paired continuous vectors [N] or [N, D], without a distribution assumed.

    >>> generator = torch.Generator().manual_seed(0)
    >>> x, noise = torch.randn(2, 5000, generator=generator)
    >>> estimate = mutual_information(x, 0.8 * x + 0.6 * noise)
    >>> round(estimate.value, 1), estimate.standard_error < 0.05  # exactly -½ log(1 - 0.8²) = 0.51
    (0.5, True)
    """
    columns = [_columns(name, value) for name, value in (("x", x), ("y", y))]
    return _with_error(_kraskov, columns[0], columns[1], neighbours)


def mutual_information_with_labels(
    x: Tensor, labels: Tensor, neighbours: int = 3
) -> MutualInformation:
    """I(x; c) of N continuous vectors [N] or [N, D] and a label [N] for each; at most log #labels.

    >>> labels = torch.arange(1000) % 2
    >>> x = torch.randn(1000, generator=torch.Generator().manual_seed(0)) + 100 * labels
    >>> round(mutual_information_with_labels(x, labels).value, 2)  # log 2, told apart for certain
    0.69
    """
    return _with_error(_ross, _columns("x", x), labels.cpu().numpy(), neighbours)


def information_table(latents: Tensor, truth: Tensor, neighbours: int = 3) -> Tensor:
    """I(z_k; t_j) of every pair of a latent and a truth, [latent_dim, num_truths].

    :param latents: [N, latent_dim], one vector of an encoder's means or draws for each datum.
    :param truth: [N, num_truths].
    """
    return torch.tensor(
        [[mutual_information(z, t, neighbours).value for t in truth.mT] for z in latents.mT]
    )


def _kraskov(x: np.ndarray, y: np.ndarray, neighbours: int) -> float:
    # Distances strictly below ε_i count, so the search radius is the float just below it.
    both = cKDTree(np.hstack([x, y]))
    radius = both.query(both.data, neighbours + 1, p=np.inf)[0][:, -1]
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
                f"the standard error), got {own.sum()} of label {label} in one part"
            )
        tree = cKDTree(x[own])
        radius[own] = tree.query(tree.data, neighbours + 1, p=np.inf)[0][:, -1]
        size[own] = own.sum()
    within = _within(cKDTree(x), x, np.nextafter(radius, 0))
    local = digamma(size) + digamma(within)
    return float(digamma(neighbours) + digamma(len(x)) - local.mean())


def _within(tree: cKDTree, points: np.ndarray, radius: np.ndarray) -> np.ndarray:
    return tree.query_ball_point(points, radius, p=np.inf, return_length=True)


def _with_error(
    estimate: Callable[[np.ndarray, np.ndarray, int], float],
    x: np.ndarray,
    y: np.ndarray,
    neighbours: int,
) -> MutualInformation:
    if neighbours < 1:
        raise OptionError(f"neighbours: expected at least 1, got {neighbours}")
    if len(x) != len(y):
        raise DataError(f"expected as many of one as of the other, got {len(x)} and {len(y)}")
    if len(x) < NUM_PARTS * (neighbours + 2):
        raise DataError(
            f"expected at least {NUM_PARTS * (neighbours + 2)} points, for a standard error from "
            f"{NUM_PARTS} parts of the data; got {len(x)}"
        )
    order = np.random.default_rng(0).permutation(len(x))
    if y.ndim == 1:  # labels: of each the same share in every part
        order = order[np.argsort(y[order], kind="stable")]
    parts = [order[start::NUM_PARTS] for start in range(NUM_PARTS)]
    spread = np.std([estimate(x[part], y[part], neighbours) for part in parts], ddof=1)
    return MutualInformation(estimate(x, y, neighbours), float(spread) / math.sqrt(NUM_PARTS))


def _columns(name: str, values: Tensor) -> np.ndarray:
    """Standardised columns [N, D]."""
    array = values.detach().cpu().double().numpy()
    array = array.reshape(len(array), -1)
    if not np.isfinite(array).all():
        raise DataError(f"{name}: expected finite values, got NaN or infinity")
    spread = array.std(0)
    if (spread == 0).any():
        raise DataError(f"{name}: column {int((spread == 0).argmax())} is constant")
    return (array - array.mean(0)) / spread
