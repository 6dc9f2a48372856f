"""Sums over rows that read both sides by position: products with a sparse matrix, or row by row.

A row n reads elements a(n) and b(n) of two plates: a rating its user and its item. What the b's
say to the a's,

    y[a, …] = Σ_n w_n 1[a(n) = a] x[b(n), …],

gathers rows of x and adds them up at once: it is S x with the sparse matrix S_ab = Σ_n w_n 1[a(n) = a]
1[b(n) = b]. Neither needs room for x[b(n), …], which is as long as the rows and as wide as x.
What is wanted for each row, or reads more than two plates, is computed a few thousand rows at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.reduction.nodes import Fixed, Node, Step

ROWS_AT_ONCE = 1 << 12


class Pattern:
    """Where S is not zero: the rows sorted by a, compressed (CSR)."""

    def __init__(self, into: Tensor, size: int, read: Tensor, length: int):
        self.order = torch.argsort(into * length + read)
        self.into, self.read = into[self.order], read[self.order]
        self.shape = (size, length)
        counts = torch.bincount(into, minlength=size)
        self.start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(self, weights: Tensor) -> None:
        """Weights that do not change: their matrix is made once."""
        if id(weights) not in self._kept:
            self._kept[id(weights)] = weights, self.matrix(weights)

    def matrix(self, weights: Tensor) -> Tensor:
        """S for weights [N] of the rows."""
        if id(weights) in self._kept:
            return self._kept[id(weights)][1]
        with warnings.catch_warnings():  # "Sparse CSR tensor support is in beta state"
            warnings.simplefilter("ignore", UserWarning)
            return torch.sparse_csr_tensor(
                self.start, self.read, weights[self.order], self.shape, check_invariants=False
            )


class _Times(torch.autograd.Function):
    """S x for x [B, …], and for many runs at once (torch.vmap)."""

    @staticmethod
    def forward(pattern: Pattern, weights: Tensor, x: Tensor) -> Tensor:
        matrix = pattern.matrix(weights)
        if x.dim() == 3 and x.shape[1] == x.shape[2] and torch.equal(x, x.mT):
            i, j = torch.tril_indices(x.shape[1], x.shape[1])  # second moments: half of them
            half = matrix @ x[:, i, j]
            y = half.new_empty(len(half), *x.shape[1:])
            y[:, i, j] = half
            y[:, j, i] = half
            return y
        return (matrix @ x.flatten(1)).reshape(-1, *x.shape[1:])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        pattern, weights, x = inputs
        ctx.pattern = pattern
        ctx.save_for_backward(weights, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        weights, x = ctx.saved_tensors
        pattern, of_weights, of_x = ctx.pattern, None, None
        rows = gradient[pattern.into]
        if ctx.needs_input_grad[1]:
            of_weights = torch.empty_like(weights)
            of_weights[pattern.order] = (rows * x[pattern.read]).flatten(1).sum(-1)
        if ctx.needs_input_grad[2]:
            rows = rows * weights[pattern.order].reshape(-1, *[1] * (x.dim() - 1))
            of_x = torch.zeros_like(x).index_add(0, pattern.read, rows)
        return None, of_weights, of_x

    @staticmethod
    def vmap(info: Any, in_dims: Any, pattern: Pattern, weights: Tensor, x: Tensor) -> Any:
        _, of_weights, of_x = in_dims
        count = info.batch_size
        if of_weights is None:  # all runs by one product
            return _Times.apply(pattern, weights, x.movedim(of_x, 1)), 1
        found = [
            _Times.apply(
                pattern, weights.select(of_weights, i), x if of_x is None else x.select(of_x, i)
            )
            for i in range(count)
        ]
        return torch.stack(found), 0


class SparseProduct(Step):
    """S x: y[a, …] from x[b, …] and the weights w [N] of the rows."""

    def __init__(self, x: Node, weights: Node, pattern: Pattern):
        super().__init__([x, weights])
        self.pattern = pattern
        if isinstance(weights, Fixed):
            pattern.keep(weights.value())

    def compute(self, values: list[Tensor]) -> Tensor:
        x, weights = values
        return _Times.apply(self.pattern, weights, x)


class RowByRow(Step):
    """An einsum over tensors read at each row's positions, a few rows at a time.

    Args:
        reads: for each operand the index [N] at which its first axis is read; None: it has no axis
            of rows or of what they read.
        equation: the rows' letter is the first of every operand that is read, and of the output
            where something is wanted for each row or added up by position.
        into: positions [N] to add up at, and how many there are.
    """

    def __init__(
        self,
        parents: Sequence[Node],
        reads: Sequence[Tensor | None],
        equation: str,
        rows: int,
        into: tuple[Tensor, int] | None,
        is_summed: bool,
    ):
        super().__init__(parents)
        self.reads, self.equation, self.rows = tuple(reads), equation, rows
        self.into, self.is_summed = into, is_summed

    def compute(self, values: list[Tensor]) -> Tensor:
        found: list[Tensor] = []
        total: Tensor | None = None
        for first in range(0, self.rows, ROWS_AT_ONCE):
            part = slice(first, min(first + ROWS_AT_ONCE, self.rows))
            picked = [
                value if index is None else value.index_select(0, index[part])
                for value, index in zip(values, self.reads, strict=True)
            ]
            here = torch.einsum(self.equation, *picked)
            if self.into is not None:
                if total is None:
                    total = here.new_zeros(self.into[1], *here.shape[1:])
                total = total.index_add_(0, self.into[0][part], here)
            elif self.is_summed:
                total = here if total is None else total + here
            else:
                found.append(here)
        return torch.cat(found) if total is None else total


class Either(Step):
    """One value that can be had in two ways: by what is computed already, if it is current."""

    def __init__(self, ways: Sequence[Node], needs: Sequence[Step]):
        super().__init__(ways)
        self.needs = tuple(needs)

    def value(self) -> Tensor:
        stamp = self.stamp()
        if self._value is None or stamp > self._computed_at:
            ready = [i for i, step in enumerate(self.needs) if step.is_current]
            self._value = self.parents[ready[0] if ready else 0].value()
            self._computed_at = stamp
        return self._value
