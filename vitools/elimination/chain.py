"""Block-tridiagonal precision matrices by cyclic reduction: every second element is eliminated at once.

With P_tt = D_t and P_t,t+1 = E_t, an odd element t has two neighbours. From D_t = L Lᵀ, A = L⁻¹ E_t-1ᵀ
and B = L⁻¹ E_t, what is left of the even ones is again a chain,

    D_t-1 -= AᵀA,        D_t+1 -= BᵀB,        E_t-1,t+1 = -AᵀB,

so log₂ T batched steps factorise P = U Uᵀ in time linear in T, as stable as any Cholesky factorisation
(Buzbee, Golub and Nielson 1970, "On direct methods for solving Poisson's equations"). The entries of P⁻¹
where P has entries follow backwards, each from ones that are there already.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class _Step:
    """Of the elements eliminated together: L […, n, d, d], A beside the left, B beside the right.

    The last of them may have no right neighbour, so that B has n or n - 1 elements.
    """

    root: Tensor
    left: Tensor
    right: Tensor
    failed: Tensor


class ChainFactor:
    """A factorised block-tridiagonal matrix.

    Args:
        diagonal: […, T, d, d], the blocks D_t.
        beside: […, T - 1, d, d], the blocks E_t between t and t + 1.

    ``failed`` […, T]: of each block the number of the pivot that is none, 0 where it has all. Where one
    failed, nothing else here means anything.
    """

    def __init__(self, diagonal: Tensor, beside: Tensor):
        self.length, self.width = diagonal.shape[-3], diagonal.shape[-1]
        self._steps: list[_Step] = []
        while diagonal.shape[-3] > 1:
            root, failed = cholesky(diagonal[..., 1::2, :, :])
            n, r = root.shape[-3], beside.shape[-3] // 2
            left = solve(root, beside[..., 0::2, :, :].mT)
            right = solve(root[..., :r, :, :], beside[..., 1::2, :, :])
            diagonal = diagonal[..., 0::2, :, :].clone()
            diagonal[..., :n, :, :] -= left.mT @ left
            diagonal[..., 1 : r + 1, :, :] -= right.mT @ right
            beside = -(left[..., :r, :, :].mT @ right)
            self._steps.append(_Step(root, left, right, failed))
        root, failed = cholesky(diagonal)
        none = root[..., :0, :, :]
        self._steps.append(_Step(root, none, none, failed))
        self.failed = self._woven([step.failed for step in self._steps], -1)

    def _woven(self, parts: list[Tensor], axis: int) -> Tensor:
        """What stands at the elements of each step, in the order of the chain."""
        woven = parts[-1]
        for part in parts[-2::-1]:
            woven = weave(woven, part, axis)
        return woven

    def half_log_determinant(self) -> Tensor:
        """½ log|P|, of the batch shape."""
        halves = [s.root.diagonal(dim1=-2, dim2=-1).log().sum((-2, -1)) for s in self._steps]
        return torch.stack(halves).sum(0)

    def pivots(self) -> Tensor:
        """The squared diagonal of the Cholesky factors, […, T, d]."""
        own = []
        for step in self._steps:
            pivot = step.root.diagonal(dim1=-2, dim2=-1).square()
            number = torch.arange(1, self.width + 1)
            own.append(torch.where(step.failed.unsqueeze(-1) == number, 0.0, pivot))
        return self._woven(own, -2)

    def half_solve(self, right: Tensor) -> Tensor:
        """Y = U⁻¹ B of columns B […, T, d, f], with YᵀY = Bᵀ P⁻¹ B; its rows in the order of the chain."""
        done = []
        for step in self._steps[:-1]:
            y = solve(step.root, right[..., 1::2, :, :])
            n, r = step.left.shape[-3], step.right.shape[-3]
            right = right[..., 0::2, :, :].clone()
            right[..., :n, :, :] -= step.left.mT @ y
            right[..., 1 : r + 1, :, :] -= step.right.mT @ y[..., :r, :, :]
            done.append(y)
        done.append(solve(self._steps[-1].root, right))
        return self._woven(done, -3)

    def half_solve_transposed(self, right: Tensor) -> Tensor:
        """U⁻ᵀ y of columns […, T, d, f]."""
        parts = []
        for _ in self._steps[:-1]:
            parts.append(right[..., 1::2, :, :])
            right = right[..., 0::2, :, :]
        x = solve_transposed(self._steps[-1].root, right)
        for step, y in zip(self._steps[-2::-1], parts[::-1], strict=True):
            n, r = step.left.shape[-3], step.right.shape[-3]
            y = y - step.left @ x[..., :n, :, :]
            if r:
                y[..., :r, :, :] -= step.right @ x[..., 1 : r + 1, :, :]
            x = weave(x, solve_transposed(step.root, y), -3)
        return x

    def inverse_blocks(self) -> tuple[Tensor, Tensor]:
        """The blocks of P⁻¹ on the diagonal […, T, d, d] and beside it […, T - 1, d, d]."""
        root = self._steps[-1].root
        one = torch.eye(self.width, dtype=root.dtype)
        half = solve(root, one.expand(root.shape))
        own, next_ = half.mT @ half, root.new_zeros((*root.shape[:-3], 0, self.width, self.width))
        for step in self._steps[-2::-1]:
            n, r = step.left.shape[-3], step.right.shape[-3]
            half = solve(step.root, one.expand(step.root.shape))
            to_left, to_right = half.mT @ step.left, half[..., :r, :, :].mT @ step.right
            left = -(to_left @ own[..., :n, :, :])  # Cov(odd, left)
            left[..., :r, :, :] -= to_right @ next_[..., :r, :, :].mT
            right = -(to_right @ own[..., 1 : r + 1, :, :])
            right -= to_left[..., :r, :, :] @ next_[..., :r, :, :]
            odd = half.mT @ half - left @ to_left.mT
            odd[..., :r, :, :] -= right @ to_right.mT
            own = weave(own, (odd + odd.mT) / 2, -3)
            next_ = weave(left.mT, right, -3)
        return own, next_


def weave(even: Tensor, odd: Tensor, axis: int) -> Tensor:
    """even[0], odd[0], even[1], odd[1], …"""
    axis %= even.dim()
    count = even.shape[axis] + odd.shape[axis]
    lead = torch.broadcast_shapes(even.shape[:axis], odd.shape[:axis])
    woven = even.new_empty((*lead, count, *even.shape[axis + 1 :]))
    here = (slice(None),) * axis
    woven[(*here, slice(0, None, 2))] = even
    woven[(*here, slice(1, None, 2))] = odd
    return woven


def cholesky(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """L of each block […, d, d], 1 where it has none, and there the number of the failing pivot, else 0."""
    if blocks.shape[-1] == 1:
        fine = blocks > 0
        return torch.where(fine, blocks, 1.0).sqrt(), (~fine[..., 0, 0]).long()
    root, info = torch.linalg.cholesky_ex(blocks)
    one = torch.eye(blocks.shape[-1], dtype=blocks.dtype)
    return torch.where((info == 0)[..., None, None], root, one), info


def solve(root: Tensor, right: Tensor) -> Tensor:
    """L⁻¹ x."""
    if root.shape[-1] == 1:
        return right / root
    return torch.linalg.solve_triangular(root, right, upper=False)


def solve_transposed(root: Tensor, right: Tensor) -> Tensor:
    """L⁻ᵀ x."""
    if root.shape[-1] == 1:
        return right / root
    return torch.linalg.solve_triangular(root.mT, right, upper=True)
