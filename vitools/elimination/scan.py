"""Recursions z_t = f_t(z_t-1) in log₂ T batched steps, by composing neighbours (Blelloch 1990).

Every second map is composed with the one before it, the scan of these half as many is taken, and the
others follow from it: (f₁, f₂, f₃, …) → (f₂∘f₁, f₄∘f₃, …). The values are differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitools.elimination.chain import weave


def affine_states(first: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """x_0, …, x_T-1 of x_t = F_t x_t-1 + c_t.

    Args:
        first: […, d], x_0.
        matrix: […, T - 1, d, d].
        offset: […, T - 1, d].

    Returns:
        […, T, d].
    """
    batch = torch.broadcast_shapes(first.shape[:-1], matrix.shape[:-3], offset.shape[:-2])
    matrix = matrix.expand(*batch, *matrix.shape[-3:])
    offset = offset.expand(*batch, *offset.shape[-2:])
    first = first.expand(*batch, *first.shape[-1:])
    if not matrix.shape[-3]:
        return first.unsqueeze(-2)
    later = _affine(first, matrix, offset)
    return torch.cat([first.unsqueeze(-2), later], -2)


def _affine(first: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """x_1, …, x_n."""
    if matrix.shape[-3] == 1:
        return _applied(matrix, first.unsqueeze(-2)) + offset
    count = matrix.shape[-3] // 2
    one, two = matrix[..., 0 : 2 * count : 2, :, :], matrix[..., 1::2, :, :]
    shift = _applied(two, offset[..., 0 : 2 * count : 2, :]) + offset[..., 1::2, :]
    second = _affine(first, two @ one, shift)  # x_2, x_4, …
    before = torch.cat([first.unsqueeze(-2), second], -2)[..., : (matrix.shape[-3] + 1) // 2, :]
    odd = _applied(matrix[..., 0::2, :, :], before) + offset[..., 0::2, :]  # x_1, x_3, …
    return weave(odd, second, -2)


def _applied(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x.unsqueeze(-1)).squeeze(-1)


def mapped_states(first: Tensor, maps: Tensor) -> Tensor:
    """z_0, …, z_T-1 of z_t = maps[t - 1][z_t-1].

    Args:
        first: [*B], whole numbers below K.
        maps: [*B, T - 1, K], whole numbers below K.

    Returns:
        [*B, T].
    """
    first = first.unsqueeze(-1)
    if not maps.shape[-2]:
        return first
    return torch.cat([first, _mapped(first, maps)], -1)


def _mapped(first: Tensor, maps: Tensor) -> Tensor:
    if maps.shape[-2] == 1:
        return maps.gather(-1, first.unsqueeze(-1)).squeeze(-1)
    count = maps.shape[-2] // 2
    both = maps[..., 1::2, :].gather(-1, maps[..., 0 : 2 * count : 2, :])
    second = _mapped(first, both)
    before = torch.cat([first, second], -1)[..., : (maps.shape[-2] + 1) // 2]
    odd = maps[..., 0::2, :].gather(-1, before.unsqueeze(-1)).squeeze(-1)
    return weave(odd, second, -1)
