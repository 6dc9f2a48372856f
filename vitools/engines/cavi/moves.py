"""The moves of coordinate ascent as pure functions of the state of one run.

None of them looks at a number to decide what to do, so ``torch.vmap`` of each moves many runs at
once; what a run does next is decided outside, from what they return.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitools.calculus.model import ConjugateModel, State
from vitools.calculus.start.initialise import restart_inner
from vitools.calculus.streams.streamed import StreamedBlock
from vitools.engines.cavi.squarem import length_of
from vitools.families.family import Natural


class Moves:
    """Maps between states of a model's factors.

    Args:
        settled: the inner blocks are iterated to convergence, so that they follow from the others
            and need no extrapolation of their own.
    """

    def __init__(self, model: ConjugateModel, *, settled: bool):
        self.model = model
        numbered = list(enumerate(model.blocks))
        # discrete factors follow from the others within a sweep: they are not extrapolated
        self.moving = [
            i
            for i, block in numbered
            if not isinstance(block, StreamedBlock) and not block.family.is_discrete
        ]
        self.inner = [i for i in self.moving if model.blocks[i] in model.inner]
        free = [i for i in self.moving if not (settled and i in self.inner)]
        self.leaping = free or self.moving
        stored = [i for i, block in numbered if not isinstance(block, StreamedBlock)]
        self.watched = self.moving or stored  # whose change tells whether the run is at rest

    def sweep(self, state: State, step: float = 1.0) -> tuple[State, Tensor]:
        """Every block updated once, and the bound (nan where a factor is no density)."""
        self.model.load(state)
        self.model.sweep(step)
        return self.model.state(), self.model.bound()

    def bound(self, state: State) -> Tensor:
        """The bound at a state."""
        self.model.load(state)
        return self.model.bound()

    def restored(self, naturals: list[Natural]) -> State:
        """The state that follows from the natural parameters of the blocks."""
        for block, natural in zip(self.model.blocks, naturals, strict=True):
            block.restore(natural)
        for node in self.model.between:
            node.update(self.model.messages(node))
        return self.model.state()

    def size(self, state: State) -> Tensor:
        """What the bound adds up, in absolute values."""
        self.model.load(state)
        return self.model.size()

    def inner_sweep(self, state: State) -> State:
        """The inner blocks updated once."""
        self.model.load(state)
        self.model.inner_sweep()
        return self.model.state()

    def restart_inner(self, state: State) -> State:
        """The inner blocks at a start without noise."""
        self.model.load(state)
        restart_inner(self.model)
        return self.model.state()

    def coordinates(self, state: State) -> list[Tensor]:
        """What is extrapolated."""
        return [
            x
            for i in self.leaping
            for x in self.model.blocks[i].member_family.coordinates(state[i]["natural"])
        ]

    def length(self, point: list[Tensor]) -> Tensor:
        """‖θ‖ of coordinates."""
        return length_of(point)

    def moved_to(self, state: State, point: list[Tensor]) -> State:
        """The state with its extrapolated blocks at the given coordinates."""
        self.model.load(state)
        rest = iter(point)
        for i in self.leaping:
            block = self.model.blocks[i]
            parts = tuple(next(rest) for _ in block.natural)
            block.restore(block.member_family.from_coordinates(parts))
        return self.model.state()

    def largest_change(self, state: State, other: State) -> Tensor:
        """√((η-η')·(μ-μ')), the largest over all members of the continuous factors if there are any."""
        return self._changes(self.watched, state, other).amax().sqrt()

    def inner_change(self, state: State, other: State) -> Tensor:
        """The same for the inner blocks, as a root mean square over their members."""
        return self._changes(self.inner, state, other).mean().sqrt()

    def _changes(self, blocks: list[int], state: State, other: State) -> Tensor:
        def natural(at: State, i: int) -> Natural:
            return at[i]["natural"]

        if not blocks:
            return torch.zeros(1, dtype=torch.float64)
        return torch.cat(
            [
                family.symmetrised_kl(natural(state, i), natural(other, i)).reshape(-1)
                for i in blocks
                for family in [self.model.blocks[i].member_family]
            ]
        )
