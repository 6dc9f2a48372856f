"""The log-probabilities of a categorical distribution, once for all elements of a plate.

A plate expands ``Categorical(probs)`` to its size without copying; torch then takes the logarithm
of the *expanded* probabilities, N times the same V numbers. Here it is taken before: a word
of a topic model costs one look-up in a table, not a row of V logarithms.
"""

from typing import Any

from torch.distributions import Categorical
from torch.distributions.utils import probs_to_logits

from vitools.distributions.layers import base_distribution


def share_logits(fn: Any) -> None:
    """Fill in the lazy ``logits`` of a categorical ``fn`` from one copy of its probabilities."""
    base = base_distribution(fn)
    categorical = base if isinstance(base, Categorical) else getattr(base, "_categorical", None)
    if categorical is None or "logits" in vars(categorical):
        return
    probs = categorical.probs
    one = probs
    for dim, (size, stride) in enumerate(zip(probs.shape[:-1], probs.stride()[:-1], strict=True)):
        if size > 1 and stride == 0:
            one = one.narrow(dim, 0, 1)
    if one is not probs:
        categorical.logits = probs_to_logits(one).expand(probs.shape)
