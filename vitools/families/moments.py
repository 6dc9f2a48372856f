"""Means and standard deviations of a site: where a start names it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.families.family import NARROWEST


@dataclass(frozen=True)
class SiteMoments:
    """Of a continuous site: mean and sd ``[*shape]``, no sd for a value.

    Of a discrete one: the probabilities of its cases, ``[*batch_shape, K]``, as ``mean``.
    """

    mean: Tensor
    sd: Tensor | None = None

    def select(self, dim: int, rows: Tensor) -> SiteMoments:
        """Those of some entries along an axis."""
        sd = None if self.sd is None else self.sd.index_select(dim, rows)
        return SiteMoments(self.mean.index_select(dim, rows), sd)

    @property
    def variance(self) -> Tensor | None:
        """Above 0 everywhere."""
        if self.sd is None:
            return None
        size = self.mean.square().mean().sqrt()
        size = torch.where(size > 0, size, torch.ones_like(size))
        return self.sd.square().clamp(min=float(NARROWEST * size) ** 2)
