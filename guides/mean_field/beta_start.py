"""Where the families on the simplex and the unit interval start: a Dirichlet or Beta with the
prior's mean, and a concentration from its variance."""

import torch
from torch import Tensor

from vitools.guides.family import LatentSite

_LEAST_SHARE = 1e-3  # of the mean: a start with an entry at 0 could never grow it


def dirichlet_start(site: LatentSite, init_scale: float | None) -> Tensor:
    """α of shape ``batch + event`` with Σ_k var π_k = Σ_k m_k (1 - m_k) / (α₀ + 1).

    Without ``init_scale`` q starts at the prior, but no sparser than α₀ = K: draws on the faces of
    the simplex would start the optimiser with enormous gradients.
    """
    mean = site.mean.clamp(min=_LEAST_SHARE)
    mean = mean / mean.sum(-1, keepdim=True)
    spread = (mean * (1 - mean)).sum(-1, keepdim=True) / site.variance.sum(-1, keepdim=True)
    return _total(spread, init_scale, least=float(mean.shape[-1])) * mean


def beta_start(site: LatentSite, init_scale: float | None) -> tuple[Tensor, Tensor]:
    """(α, β) likewise, elementwise, with α + β ≥ 2."""
    mean = site.mean.clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)
    total = _total(mean * (1 - mean) / site.variance, init_scale, least=2.0)
    return total * mean, total * (1 - mean)


def _total(inverse_spread: Tensor, init_scale: float | None, least: float) -> Tensor:
    """α₀ from α₀ + 1 = m(1-m) / variance; a multiple c of the sd divides α₀ + 1 by c²."""
    if init_scale is not None:
        inverse_spread = inverse_spread / init_scale**2
        least = 1e-2
    return torch.clamp(inverse_spread - 1, least, 1e6)
