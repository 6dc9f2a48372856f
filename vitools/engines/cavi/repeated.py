"""A categorical distribution over many elements of which few are distinct."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributions as td


class Categorical(td.Categorical):
    """Element ``n`` has the probabilities of row ``index[n]`` of a short table.

    It is a :class:`torch.distributions.Categorical` in every respect; only the long table of
    probabilities is formed when somebody asks for it rather than beforehand.

    Args:
        logits: [U, K].
        index: [N], values in 0 … U-1.
        batch_shape: of N elements.
    """

    def __init__(self, logits: Tensor, index: Tensor, batch_shape: Sequence[int]):
        self._rows = td.Categorical(logits=logits, validate_args=False)
        self._index = index
        self._num_events = logits.shape[-1]
        td.Distribution.__init__(self, torch.Size(batch_shape), validate_args=False)

    @property
    def logits(self) -> Tensor:
        return self._rows.logits[self._index].reshape(*self.batch_shape, -1)

    @property
    def probs(self) -> Tensor:
        return self._rows.probs[self._index].reshape(*self.batch_shape, -1)

    @property
    def _param(self) -> Tensor:  # type: ignore[override]
        return self.logits

    def entropy(self) -> Tensor:
        return self._rows.entropy()[self._index].reshape(self.batch_shape)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> td.Categorical:
        return td.Categorical(logits=self.logits, validate_args=False).expand(batch_shape)
