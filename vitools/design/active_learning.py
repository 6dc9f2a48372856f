"""Which label to ask for next: scores of a pool of inputs from a Bayesian classifier.

With p_i(c | x), i = 1 … n, the class probabilities of n draws of the weights, p̄ their mean:

    entropy        H(p̄)                          how unsure the classifier is, noise of the labels included
    disagreement   H(votes of the draws)         how the committee votes (Seung, Opper & Sompolinsky 1992)
    bald           H(p̄) - mean_i H(p_i)          what the label tells of the weights (Houlsby et al. 2011)

The last is the expected information gain of the label: where all draws agree on a fair coin, the first is
largest and the last is 0.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.problem.sites import nearest

SUM_TOLERANCE = 1e-4


def predictive_entropy(probabilities: Tensor) -> Tensor:
    """H(p̄) of each input, ``[N]``, from ``[n, N, K]``.

    Args:
        probabilities: of each class at each input under each draw of the weights, ``[n, N, K]``.
    """
    return _entropy(_checked(probabilities).mean(0))


def committee_disagreement(probabilities: Tensor) -> Tensor:
    """The entropy of the votes, each draw's for its likeliest class, ``[N]``.

    Args:
        probabilities: of each class at each input under each draw of the weights, ``[n, N, K]``.
    """
    found = _checked(probabilities)
    votes = torch.nn.functional.one_hot(found.argmax(-1), found.shape[-1])
    return _entropy(votes.to(found.dtype).mean(0))


def bald(probabilities: Tensor) -> Tensor:
    """H(p̄) - mean_i H(p_i), ``[N]``: the information of the label on the weights.

    Args:
        probabilities: of each class at each input under each draw of the weights, ``[n, N, K]``.

    Example:
        >>> sure_but_split = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> agreed_on_a_coin = torch.tensor([[[0.5, 0.5]], [[0.5, 0.5]]])
        >>> both = torch.cat([sure_but_split, agreed_on_a_coin], 1)
        >>> predictive_entropy(both), bald(both)
        (tensor([0.6931, 0.6931]), tensor([0.6931, 0.0000]))
    """
    found = _checked(probabilities)
    return _entropy(found.mean(0)) - _entropy(found).mean(0)


SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "entropy": predictive_entropy,
    "disagreement": committee_disagreement,
    "bald": bald,
}


def next_label(probabilities: Tensor, score: str = "bald", labelled: Tensor | None = None) -> int:
    """Number of the input with the highest score among those that have no label yet.

    Args:
        probabilities: ``[n, N, K]``.
        score: ``"bald"``, ``"entropy"`` or ``"disagreement"``.
        labelled: ``[N]`` bool, inputs to pass over.
    """
    if not isinstance(score, str) or score not in SCORES:
        raise OptionError(
            f"score: expected one of {', '.join(SCORES)}, got {score!r}.{nearest(str(score), SCORES)}"
        )
    found = SCORES[score](probabilities)
    if labelled is not None:
        if (
            not isinstance(labelled, Tensor)
            or labelled.shape != found.shape
            or labelled.dtype != torch.bool
        ):
            raise OptionError(f"labelled: expected a bool tensor of shape [{len(found)}].")
        if bool(labelled.all()):
            raise OptionError(
                "labelled: every input has a label; expected one at least that has none."
            )
        found = found.masked_fill(labelled, -math.inf)
    return int(found.argmax())


def _entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(-1)


def _checked(probabilities: object) -> Tensor:
    if not isinstance(probabilities, Tensor) or probabilities.dim() != 3:
        got = (
            list(probabilities.shape)
            if isinstance(probabilities, Tensor)
            else type(probabilities).__name__
        )
        raise OptionError(
            f"probabilities: expected a tensor [draws, inputs, classes], got {got}. Of one probability p "
            "make torch.stack([1 - p, p], -1)."
        )
    found = probabilities.detach()
    if not bool((found >= 0).all()) or not bool(((found.sum(-1) - 1).abs() < SUM_TOLERANCE).all()):
        raise DataError(
            "probabilities: expected numbers that sum to 1 over the last dim, got others."
        )
    return found
