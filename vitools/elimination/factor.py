"""The factorisation P = U Uᵀ of a precision matrix on a tree, and what follows from it.

A group c with precision block E, coupled with F (its parents and the root) by B [d, f], is
eliminated by E = L Lᵀ, Y = L⁻¹ B: what is left of the others is P_FF - YᵀY. All groups of a level go at
once. Backwards, with R = L⁻ᵀ Y,

    Cov(c, F) = -R Σ_FF,        Var(c) = E⁻¹ - Cov(c, F) Rᵀ

are the entries of P⁻¹ at the places where P has entries (Takahashi, Fagan and Chen 1973), each from
ones that are there already.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vitools.elimination.chain import cholesky, solve, solve_transposed
from vitools.elimination.tree import Tree, rows

Key = int | None


class Factor:
    """A factorised precision matrix.

    Args:
        entries: the precision matrix in the layout of the tree.

    ``is_proper`` tells whether it is positive definite; where not, nothing else here means anything.
    """

    def __init__(self, tree: Tree, entries: Tensor):
        self.tree = tree
        blocks = {key: block.clone() for key, block in tree.split(entries).items()}
        self._scale = entries[tree.diagonal]
        self._roots: list[Tensor] = []  # L of each level, then of the root
        self._beside: list[dict[Key, Tensor]] = []  # Y of each level, by what it is beside
        self._failed: list[Tensor] = []  # of each block the number of the pivot that is none, or 0
        for i, above in enumerate(tree.parents):
            root, failed = cholesky(blocks[i, i])
            self._failed.append(failed)
            beside: dict[Key, Tensor] = {j: solve(root, blocks[i, j]) for j in above}
            border = tree.borders[i]
            beside[None] = border.blockwise(_solve_beside, blocks[i, None], root)
            for j, group in above.items():
                blocks[j, j].index_add_(0, group, beside[j].mT @ beside[j], alpha=-1)
                for k in above:
                    if k > j:
                        blocks[j, k].index_add_(0, group, beside[j].mT @ beside[k], alpha=-1)
            for j, slot in tree.raised[i].items():
                both = border.blockwise(torch.matmul, beside[None], beside[j])
                blocks[j, None].index_add_(0, slot, both, alpha=-1)
            blocks[None, None] -= border.gram(beside[None])
            self._roots.append(root)
            self._beside.append(beside)
        root, failed = cholesky(blocks[None, None])
        self._roots.append(root)
        self._failed.append(failed)
        self.is_proper = torch.stack([(f == 0).all() for f in self._failed]).all()

    def log_determinant(self) -> Tensor:
        """log|P|; nan where P is not positive definite."""
        halves = [r.diagonal(dim1=-2, dim2=-1).log().sum() for r in self._roots]
        total = 2 * torch.stack(halves).sum()
        return torch.where(self.is_proper, total, torch.nan)

    def pivots(self) -> Tensor:
        """For each element the part of its precision that those eliminated before leave, [size].

        1 - R² in the language of regression: what is near rounding (or 0, where the factorisation
        stopped) is collinear with the others.
        """
        own = []
        for root, failed in zip(self._roots, self._failed, strict=True):
            pivot = root.diagonal(dim1=-2, dim2=-1).square()
            number = torch.arange(1, pivot.shape[-1] + 1)
            own.append(torch.where(failed.unsqueeze(-1) == number, 0.0, pivot))
        return self.tree.joined(own) / self._scale

    def solve(self, vector: Tensor) -> Tensor:
        """P⁻¹ h for h […, size]."""
        h = self.tree.parts(vector)
        done = []
        for i, above in enumerate(self.tree.parents):
            y = solve(self._roots[i], h[i].unsqueeze(-1)).squeeze(-1)
            beside = self._beside[i]
            for j, group in above.items():
                h[j] = h[j].index_add(-2, group, rows(beside[j].mT, y), alpha=-1)
            h[-1] = h[-1] - self.tree.borders[i].onto_root(beside[None], y)
            done.append(y)
        done.append(solve(self._roots[-1], h[-1].unsqueeze(-1)).squeeze(-1))
        return self.tree.joined(self._backward(done))

    def spread(self, noise: Tensor) -> Tensor:
        """U⁻ᵀ z for standard normal z […, size]: draws with covariance P⁻¹."""
        return self.tree.joined(self._backward(self.tree.parts(noise)))

    def _backward(self, y: list[Tensor]) -> list[Tensor]:
        x = list(y)
        x[-1] = solve_transposed(self._roots[-1], y[-1].unsqueeze(-1)).squeeze(-1)
        for i in reversed(range(len(self.tree.levels))):
            beside = self._beside[i]
            known = self.tree.borders[i].times(beside[None], x[-1])
            for j, group in self.tree.parents[i].items():
                known = known + rows(beside[j], x[j].index_select(-2, group))
            x[i] = solve_transposed(self._roots[i], (y[i] - known).unsqueeze(-1)).squeeze(-1)
        return x

    def inverse_entries(self) -> Tensor:
        """The entries of P⁻¹ where P has entries, in the layout of the tree."""
        tree = self.tree
        found: dict[tuple[Key, Key], Tensor] = {
            (None, None): torch.cholesky_inverse(self._roots[-1])
        }
        for i in reversed(range(len(tree.levels))):
            root, border, above = self._roots[i], tree.borders[i], tree.parents[i]
            to_root = border.blockwise(_solve_back_beside, self._beside[i][None], root)
            back = {j: solve_transposed(root, self._beside[i][j]) for j in above}
            raised = {j: found[j, None][slot] for j, slot in tree.raised[i].items()}
            total = border.times_root(to_root, found[None, None])
            for j, at_parent in raised.items():
                total = total + border.blockwise(torch.matmul, at_parent, back[j].mT)
            found[i, None] = border.cleared(-total)
            for j in above:
                total = self._to_parents(j, above, back, found)
                if j in raised:
                    total = total + border.between(to_root, raised[j])
                found[i, j] = -total
            one = torch.eye(root.shape[-1], dtype=root.dtype).expand(root.shape)
            inverse = solve(root, one)
            own = inverse.mT @ inverse - border.between(found[i, None], to_root)
            for j in above:
                own = own - found[i, j] @ back[j].mT
            found[i, i] = (own + own.mT) / 2
        return tree.join(found)

    @staticmethod
    def _to_parents(
        j: int,
        above: Mapping[int, Tensor],
        back: Mapping[int, Tensor],
        found: Mapping[tuple[Key, Key], Tensor],
    ) -> Tensor:
        """Σ_k R_k Cov(k, j) over the parents k of a level, for one of them."""
        parts = []
        for k, group in above.items():
            between = found[k, j][group] if k <= j else found[j, k][above[j]].mT
            parts.append(back[k] @ between)
        return torch.stack(parts).sum(0)


def _solve_beside(border: Tensor, root: Tensor) -> Tensor:
    """(L⁻¹ B)ᵀ for Bᵀ [G, m, d]."""
    if root.shape[-1] == 1:
        return border / root
    return torch.linalg.solve_triangular(root.mT, border, upper=True, left=False)


def _solve_back_beside(border: Tensor, root: Tensor) -> Tensor:
    """(L⁻ᵀ B)ᵀ for Bᵀ [G, m, d]."""
    if root.shape[-1] == 1:
        return border / root
    return torch.linalg.solve_triangular(root, border, upper=False, left=False)
