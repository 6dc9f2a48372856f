"""The pivots of a level of units: U with P = U Uᵀ, unit by unit, or by cyclic reduction along chains.

Both say the same: U⁻¹ B and U⁻ᵀ y of columns […, U, d, f], and what the inverse has on the diagonal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitools.elimination.border import Border
from vitools.elimination.chain import ChainFactor, cholesky, solve, solve_transposed


class Pivots:
    """Units that are coupled with each other nowhere: a Cholesky factor of each.

    Args:
        blocks: [U, d, d].

    ``failed`` [U]: of each block the number of the pivot that is none, 0 where it has all.
    """

    def __init__(self, blocks: Tensor):
        self._root, self.failed = cholesky(blocks)

    def solve(self, right: Tensor) -> Tensor:
        return solve(self._root, right)

    def solve_transposed(self, right: Tensor) -> Tensor:
        return solve_transposed(self._root, right)

    def solve_border(self, border: Border, block: Tensor) -> Tensor:
        """(L⁻¹ B)ᵀ [slots, d], B a border of the units."""
        return border.blockwise(_solve_beside, block, self._root)

    def solve_border_transposed(self, border: Border, block: Tensor) -> Tensor:
        """(L⁻ᵀ B)ᵀ [slots, d]."""
        return border.blockwise(_solve_back_beside, block, self._root)

    def half_log_determinant(self) -> Tensor:
        return self._root.diagonal(dim1=-2, dim2=-1).log().sum()

    def values(self) -> Tensor:
        """The squares on the diagonal, [U, d]."""
        pivot = self._root.diagonal(dim1=-2, dim2=-1).square()
        number = torch.arange(1, pivot.shape[-1] + 1)
        return torch.where(self.failed.unsqueeze(-1) == number, 0.0, pivot)

    def inverse(self) -> Tensor:
        """The blocks of the inverse, [U, d, d]."""
        one = torch.eye(self._root.shape[-1], dtype=self._root.dtype)
        half = solve(self._root, one.expand(self._root.shape))
        return half.mT @ half


class ChainPivots:
    """Units that are coupled with the next in their chain.

    Args:
        blocks: [U, d, d].
        between: [U - G, d, d], between a unit and the next.
        groups: G, how many chains.
    """

    def __init__(self, blocks: Tensor, between: Tensor, groups: int):
        self._groups = groups
        width = blocks.shape[-1]
        steps = len(blocks) // groups
        self._factor = ChainFactor(
            blocks.reshape(groups, steps, width, width),
            between.reshape(groups, steps - 1, width, width),
        )
        self.failed = self._factor.failed.flatten()

    def _by_chain(self, x: Tensor) -> Tensor:
        return x.unflatten(-3, (self._groups, -1))

    def solve(self, right: Tensor) -> Tensor:
        return self._factor.half_solve(self._by_chain(right)).flatten(-4, -3)

    def solve_transposed(self, right: Tensor) -> Tensor:
        return self._factor.half_solve_transposed(self._by_chain(right)).flatten(-4, -3)

    def solve_border(self, border: Border, block: Tensor) -> Tensor:
        """(U⁻¹ B)ᵀ [slots, d], B a border that has all columns."""
        (bucket,) = border.buckets
        return self.solve(bucket.of(block).mT).mT.flatten(0, 1)

    def solve_border_transposed(self, border: Border, block: Tensor) -> Tensor:
        """(U⁻ᵀ B)ᵀ [slots, d]."""
        (bucket,) = border.buckets
        return self.solve_transposed(bucket.of(block).mT).mT.flatten(0, 1)

    def half_log_determinant(self) -> Tensor:
        return self._factor.half_log_determinant().sum()

    def values(self) -> Tensor:
        """The squares on the diagonal, [U, d]."""
        return self._factor.pivots().flatten(0, 1)

    def inverse(self) -> tuple[Tensor, Tensor]:
        """The blocks of the inverse [U, d, d], and those between a unit and the next [U - G, d, d]."""
        own, beside = self._factor.inverse_blocks()
        return own.flatten(0, 1), beside.flatten(0, 1)


def _solve_beside(border: Tensor, root: Tensor) -> Tensor:
    """(L⁻¹ B)ᵀ for Bᵀ [U, m, d]."""
    if root.shape[-1] == 1:
        return border / root
    return torch.linalg.solve_triangular(root.mT, border, upper=True, left=False)


def _solve_back_beside(border: Tensor, root: Tensor) -> Tensor:
    """(L⁻ᵀ B)ᵀ for Bᵀ [U, m, d]."""
    if root.shape[-1] == 1:
        return border / root
    return torch.linalg.solve_triangular(root, border, upper=False, left=False)
