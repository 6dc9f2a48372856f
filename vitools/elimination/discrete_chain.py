"""Chains of K states with a table of potentials between neighbours: sums over all trajectories.

log Σ_z exp Σ_t p_t[z_t, z_t+1] by cyclic reduction: the middle one of three neighbours is summed out,
every second at once, in log₂ T batched steps of T·K³ in all. From more than :data:`MOST_STATES` states on,
the recursions forwards and backwards (Rabiner 1989) of T·K² are quicker, step by step and batched over
chains.

Where no trajectory passes, a sum is -inf and its share is 0: it is masked before the exponential, so that
gradients are finite too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitools.elimination.chain import weave

MOST_STATES = 8


def log_sum_exp(x: Tensor, dim: int) -> Tensor:
    """log Σ exp along one dim; -inf where all are, with a gradient of zero."""
    top = x.detach().amax(dim, keepdim=True)
    top = torch.where(top.isfinite(), top, 0.0)
    total = (x - top).exp().sum(dim)
    some = total > 0
    return torch.where(some, torch.where(some, total, 1.0).log() + top.squeeze(dim), -torch.inf)


def log_normaliser(tables: Tensor) -> Tensor:
    """log Σ_z exp Σ_t p_t[z_t, z_t+1] of log tables […, T - 1, K, K], T > 1."""
    if tables.shape[-1] > MOST_STATES:
        total = log_sum_exp(tables[..., 0, :, :], -2)
        for t in range(1, tables.shape[-3]):
            total = log_sum_exp(total.unsqueeze(-1) + tables[..., t, :, :], -2)
        return log_sum_exp(total, -1)
    while tables.shape[-3] > 1:
        tables = _with_last(_joined(tables)[1], tables)
    return log_sum_exp(tables[..., 0, :, :].flatten(-2), -1)


def pair_marginals(tables: Tensor) -> tuple[Tensor, Tensor]:
    """log Σ exp, of the batch shape, and P(z_t = i, z_t+1 = j), […, T - 1, K, K].

    Args:
        tables: […, T - 1, K, K], log potentials; T > 1.
    """
    if tables.shape[-1] > MOST_STATES:
        return _by_recursions(tables)
    if tables.shape[-3] == 1:
        total = log_sum_exp(tables[..., 0, :, :].flatten(-2), -1)
        return total, _share(tables, total[..., None, None, None])
    joint, summed = _joined(tables)
    total, pairs = pair_marginals(_with_last(summed, tables))
    count = joint.shape[-4]
    weight = _share(joint, summed.unsqueeze(-2)) * pairs[..., :count, :, :].unsqueeze(-2)
    first, second = weight.sum(-1), weight.sum(-3)  # of [left, middle, right]
    if tables.shape[-3] % 2:
        first = torch.cat([first, pairs[..., count:, :, :]], -3)
    return total, weave(first, second, -3)


def _joined(tables: Tensor) -> tuple[Tensor, Tensor]:
    """Potentials of three neighbours [left, middle, right], and of the outer two."""
    count = tables.shape[-3] // 2
    left = tables[..., 0 : 2 * count : 2, :, :].unsqueeze(-1)
    joint = left + tables[..., 1::2, :, :].unsqueeze(-3)
    return joint, log_sum_exp(joint, -2)


def _with_last(summed: Tensor, tables: Tensor) -> Tensor:
    """A table that had no partner stays."""
    if tables.shape[-3] % 2:
        return torch.cat([summed, tables[..., -1:, :, :]], -3)
    return summed


def _share(x: Tensor, total: Tensor) -> Tensor:
    """exp(x - total), 0 where the total is -inf."""
    some = total.isfinite()
    return torch.where(some, (x - torch.where(some, total, 0.0)).exp(), 0.0)


def _by_recursions(tables: Tensor) -> tuple[Tensor, Tensor]:
    """Forwards and backwards, step by step."""
    before = [torch.zeros_like(tables[..., 0, :, 0])]
    after = [torch.zeros_like(before[0])]
    for table in tables.unbind(-3)[:-1]:
        before.append(log_sum_exp(before[-1].unsqueeze(-1) + table, -2))
    for table in tables.unbind(-3)[:0:-1]:
        after.append(log_sum_exp(table + after[-1].unsqueeze(-2), -1))
    ahead, behind = torch.stack(before, -2), torch.stack(after[::-1], -2)
    joint = ahead.unsqueeze(-1) + tables + behind.unsqueeze(-2)
    total = log_sum_exp(joint[..., 0, :, :].flatten(-2), -1)
    return total, _share(joint, total[..., None, None, None])
