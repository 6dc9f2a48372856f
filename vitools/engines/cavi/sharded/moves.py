"""The moves of coordinate ascent where each process has some of the rows.

Factors of what all rows share are the same on every process, since their natural parameters come from sums
over all; the factors of single rows are where their rows are. What a run decides on (the bound, how far the
factors moved, how long a jump is) is a sum or a largest over all processes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitools.calculus.model import ConjugateModel, State
from vitools.engines.cavi.moves import Moves
from vitools.engines.sharding.shard import Shard


class SharedMoves(Moves):
    """Moves of the model of one process's rows."""

    def __init__(self, model: ConjugateModel, shard: Shard, *, settled: bool):
        super().__init__(model, settled=settled)
        self.ranks = shard.ranks
        self.local = {i for i, block in enumerate(model.blocks) if block in model.weights}

    def length(self, point: list[Tensor]) -> Tensor:
        """‖θ‖ of coordinates, those of single rows from all processes."""
        rest, shared, own = iter(point), [torch.zeros(()).double()], [torch.zeros(()).double()]
        for i in self.leaping:
            parts = own if i in self.local else shared
            parts += [next(rest).double().square().sum() for _ in self.model.blocks[i].natural]
        (everywhere,) = self.ranks.sum([torch.stack(own).sum()])
        return (torch.stack(shared).sum() + everywhere).sqrt()

    def largest_change(self, state: State, other: State) -> Tensor:
        """The largest over the factors of all processes."""
        return self.ranks.largest(super().largest_change(state, other))

    def inner_change(self, state: State, other: State) -> Tensor:
        """Root mean square over the members of the inner blocks of all processes."""
        own = [i for i in self.inner if i in self.local]
        shared = [i for i in self.inner if i not in self.local]
        total, count = self.ranks.sum(self._summed(own, state, other))
        more, many = self._summed(shared, state, other)
        return ((total + more) / (count + many).clamp(min=1)).sqrt()

    def _summed(self, blocks: list[int], state: State, other: State) -> tuple[Tensor, Tensor]:
        """The sum over the members of some blocks, and how many these are."""
        changes = self._changes(blocks, state, other)
        return changes.sum(), torch.tensor(float(len(changes) if blocks else 0)).double()
