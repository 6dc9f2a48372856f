"""Anomalies: images to which a trained model gives little probability, and how well that tells.

An image's score is -log p(x), by the importance-weighted bound. With scores s_i of m ordinary and
t_j of n anomalous images, the area under the curve of true against false alarms is the probability
that an anomaly scores above an ordinary image, and its variance needs no distribution (DeLong):

    A = (1/mn) Σ_ij ψ(t_j - s_i),   ψ = 1, ½, 0 above, at and below zero
    var A ≈ var_i(mean_j ψ) / m + var_j(mean_i ψ) / n

A score of ½ is a coin's. Beware: a model can give images from elsewhere *more* probability than its
own, the simpler they are (Nalisnick et al.), and then A < ½.

References: E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas under two or more
correlated receiver operating characteristic curves", Biometrics 44, 1988; E. Nalisnick et al., "Do
deep generative models know what they don't know?", ICLR 2019.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vitools.errors import DataError
from vitools.models.vae.base import DeepModel
from vitools.models.vae.evaluation.evaluation import importance_weighted_log_likelihood


class Roc(NamedTuple):
    """A curve of alarms from (0, 0) to (1, 1), a corner for each level of the score, and its area.

    :param false_alarms: share of ordinary images at or above a level, rising, [num_levels + 1].
    :param true_alarms: share of anomalies at or above the same level.
    :param area: with its standard error.
    """

    false_alarms: Tensor
    true_alarms: Tensor
    area: float
    standard_error: float


def anomaly_scores(
    model: DeepModel, *data: Tensor, num_samples: int = 500, seed: int = 0
) -> Tensor:
    """-log p(x) of each image by the importance-weighted bound, in nats: high where it is strange.

    The data as in :func:`~vitools.models.vae.evaluation.evaluation.elbo_terms`.
    """
    return -importance_weighted_log_likelihood(
        model, *data, num_samples=num_samples, seed=seed
    ).value


def roc(ordinary: Tensor, anomalous: Tensor) -> Roc:
    """The curve of scores [m] of ordinary and [n] of anomalous images, m and n at least 2.

    >>> curve = roc(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.5, 4.0]))
    >>> round(curve.area, 3), round(curve.standard_error, 3)
    (0.833, 0.236)
    """
    for name, scores in (("ordinary", ordinary), ("anomalous", anomalous)):
        if scores.ndim != 1 or len(scores) < 2 or scores.isnan().any():
            raise DataError(
                f"{name}: expected at least 2 scores [n] without NaN, got shape "
                f"{list(scores.shape)}{' with NaN' if scores.isnan().any() else ''}"
            )
    ordinary, anomalous = ordinary.double(), anomalous.double()
    # Shares by sorting: of the anomalies above each ordinary image, of those it falls below.
    above = 1 - _share_below(anomalous, ordinary)
    below = _share_below(ordinary, anomalous)
    levels = torch.cat([ordinary, anomalous]).unique().flip(0)
    return Roc(
        _alarms(ordinary, levels),
        _alarms(anomalous, levels),
        below.mean().item(),
        (above.var() / len(above) + below.var() / len(below)).sqrt().item(),
    )


def _share_below(scores: Tensor, points: Tensor) -> Tensor:
    """The share of the scores below each point, those equal to it counted half."""
    ordered = scores.sort().values
    counts = torch.searchsorted(ordered, points) + torch.searchsorted(ordered, points, right=True)
    return counts / (2 * len(scores))


def _alarms(scores: Tensor, levels: Tensor) -> Tensor:
    """The share of the scores at or above each falling level, from none on."""
    ordered = scores.sort().values
    at_least = 1 - torch.searchsorted(ordered, levels) / len(scores)
    return torch.cat([at_least.new_zeros(1), at_least])
