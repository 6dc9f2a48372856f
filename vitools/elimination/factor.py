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

from vitools.elimination.pivots import ChainPivots, Pivots
from vitools.elimination.tree import NEXT, Tree, rows

Beside = int | None


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
        self._pivots: list[Pivots | ChainPivots] = []  # of each level, then of the root
        self._beside: list[dict[Beside, Tensor]] = []  # Y of each level, by what it is beside
        for i, above in enumerate(tree.parents):
            own: Pivots | ChainPivots
            if tree.levels[i].length > 1:
                own = ChainPivots(blocks[i, i], blocks[i, NEXT], tree.levels[i].groups)
            else:
                own = Pivots(blocks[i, i])
            beside: dict[Beside, Tensor] = {j: own.solve(blocks[i, j]) for j in above}
            border = tree.borders[i]
            beside[None] = own.solve_border(border, blocks[i, None])
            for j, group in above.items():
                blocks[j, j].index_add_(0, group, beside[j].mT @ beside[j], alpha=-1)
                for k in above:
                    if k > j:
                        blocks[j, k].index_add_(0, group, beside[j].mT @ beside[k], alpha=-1)
            for j, slot in tree.raised[i].items():
                both = border.blockwise(torch.matmul, beside[None], beside[j])
                blocks[j, None].index_add_(0, slot, both, alpha=-1)
            blocks[None, None] -= border.gram(beside[None])
            self._pivots.append(own)
            self._beside.append(beside)
        self._pivots.append(Pivots(blocks[None, None].unsqueeze(0)))
        self.is_proper = torch.stack([(p.failed == 0).all() for p in self._pivots]).all()

    def log_determinant(self) -> Tensor:
        """log|P|; nan where P is not positive definite."""
        total = 2 * torch.stack([p.half_log_determinant() for p in self._pivots]).sum()
        return torch.where(self.is_proper, total, torch.nan)

    def pivots(self) -> Tensor:
        """For each element the part of its precision that those eliminated before leave, [size].

        1 - R² in the language of regression: what is near rounding (or 0, where the factorisation
        stopped) is collinear with the others.
        """
        *levels, root = (p.values() for p in self._pivots)
        return self.tree.joined([*levels, root[0]]) / self._scale

    def solve(self, vector: Tensor) -> Tensor:
        """P⁻¹ h for h […, size]."""
        h = self.tree.parts(vector)
        done = []
        for i, above in enumerate(self.tree.parents):
            y = self._pivots[i].solve(h[i].unsqueeze(-1)).squeeze(-1)
            beside = self._beside[i]
            for j, group in above.items():
                h[j] = h[j].index_add(-2, group, rows(beside[j].mT, y), alpha=-1)
            h[-1] = h[-1] - self.tree.borders[i].onto_root(beside[None], y)
            done.append(y)
        done.append(self._pivots[-1].solve(h[-1].unsqueeze(-2).unsqueeze(-1))[..., 0, :, 0])
        return self.tree.joined(self._backward(done))

    def spread(self, noise: Tensor) -> Tensor:
        """U⁻ᵀ z for standard normal z […, size]: draws with covariance P⁻¹."""
        return self.tree.joined(self._backward(self.tree.parts(noise)))

    def _backward(self, y: list[Tensor]) -> list[Tensor]:
        x = list(y)
        root = y[-1].unsqueeze(-2).unsqueeze(-1)
        x[-1] = self._pivots[-1].solve_transposed(root)[..., 0, :, 0]
        for i in reversed(range(len(self.tree.levels))):
            beside = self._beside[i]
            known = self.tree.borders[i].times(beside[None], x[-1])
            for j, group in self.tree.parents[i].items():
                known = known + rows(beside[j], x[j].index_select(-2, group))
            x[i] = self._pivots[i].solve_transposed((y[i] - known).unsqueeze(-1)).squeeze(-1)
        return x

    def inverse_entries(self) -> Tensor:
        """The entries of P⁻¹ where P has entries, in the layout of the tree."""
        tree, last = self.tree, self._pivots[-1]
        assert isinstance(last, Pivots)
        found: dict[tuple[Beside, Beside], Tensor] = {(None, None): last.inverse()[0]}
        for i in reversed(range(len(tree.levels))):
            pivots, border, above = self._pivots[i], tree.borders[i], tree.parents[i]
            to_root = pivots.solve_border_transposed(border, self._beside[i][None])
            back = {j: pivots.solve_transposed(self._beside[i][j]) for j in above}
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
            if isinstance(pivots, ChainPivots):
                own, found[i, NEXT] = pivots.inverse()
                found[i, NEXT] -= self._between_neighbours(i, found, to_root, back)
            else:
                own = pivots.inverse()
            own = own - border.between(found[i, None], to_root)
            for j in above:
                own = own - found[i, j] @ back[j].mT
            found[i, i] = (own + own.mT) / 2
        return tree.join(found)

    def _between_neighbours(
        self,
        i: int,
        found: Mapping[tuple[Beside, Beside], Tensor],
        to_root: Tensor,
        back: Mapping[int, Tensor],
    ) -> Tensor:
        """Σ_F Cov(c_t, F) R_t+1ᵀ for units and the next in their chain."""
        tree, (bucket,) = self.tree, self.tree.borders[i].buckets
        pairs = [(bucket.of(found[i, None]).mT, bucket.of(to_root).mT)]
        pairs += [(found[i, j], r) for j, r in back.items()]
        parts = []
        for covariance, r in pairs:
            shape = covariance.shape[-2:]
            own, _ = tree.neighbours(i, covariance.flatten(-2))
            _, after = tree.neighbours(i, r.flatten(-2))
            parts.append(own.unflatten(-1, shape) @ after.unflatten(-1, shape).mT)
        return torch.stack(parts).sum(0)

    @staticmethod
    def _to_parents(
        j: int,
        above: Mapping[int, Tensor],
        back: Mapping[int, Tensor],
        found: Mapping[tuple[Beside, Beside], Tensor],
    ) -> Tensor:
        """Σ_k R_k Cov(k, j) over the parents k of a level, for one of them."""
        parts = []
        for k, group in above.items():
            between = found[k, j][group] if k <= j else found[j, k][above[j]].mT
            parts.append(back[k] @ between)
        return torch.stack(parts).sum(0)
