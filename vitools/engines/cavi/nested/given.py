"""The rest of a model at many values of a few latents: coordinate ascent at all of them at once.

Once a latent has a value it is data, and the other factors have rules. At M values of it, equally likely,
the terms are the same up to their constants (:mod:`vitools.calculus.values.reading`), so cells with values
of their own differ in constants alone, and are swept together like runs from different starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vitools.calculus import ConjugateModel
from vitools.calculus.model import State
from vitools.calculus.values.reading import Reader, Reading
from vitools.engines.cavi.batch import each, one, room, some, together
from vitools.engines.cavi.coordinate_ascent import CoordinateAscent, Schedule
from vitools.engines.cavi.moves import Moves
from vitools.errors import NotSupportedError
from vitools.posterior import Status
from vitools.problem.coordinates.boxes import NestedSpace
from vitools.problem.sites import listed

Constants = dict[str, Any]
ROUGH, FINE = 1e-3, 1e-5
"""Nats to which the rest is fitted on the way to the cells, and in them."""
PLAIN_SWEEPS = 30


@dataclass(frozen=True)
class Fitted:
    """The rest in one cell: its factors, with the cell's constants, and their bound."""

    state: State
    bound: float
    status: Status


class RestOfModel:
    """The factors of the latents that have no values.

    Args:
        make: the rest from a reading.
        initialise: sets its factors to their start.
        count: M, of values in each cell.
    """

    def __init__(
        self,
        reader: Reader,
        space: NestedSpace,
        make: Callable[[Reading], ConjugateModel],
        initialise: Callable[[ConjugateModel], object],
        schedule: Schedule,
        first: Tensor,
        count: int,
    ):
        self.reader, self.space, self.make, self.count = reader, space, make, count
        self._initialise, self.schedule = initialise, schedule
        self.began, self.nats = 0.0, ROUGH
        self.model = self._made(first.expand(count, -1))
        self.moves = Moves(self.model, settled=True)
        self.begun = self._start()

    def _made(self, nodes: Tensor) -> ConjugateModel:
        """The rest at the nodes ``[M, P]`` of one cell."""
        values = {n: x.detach().requires_grad_() for n, x in self.space.values(nodes).items()}
        model = self.make(self.reader(values))
        model.has_own_values = True
        return model

    def _start(self) -> State:
        self._initialise(self.model)
        return self.model.state()[:-1]

    def constants(self, nodes: Tensor) -> list[Constants]:
        """Of cells with nodes ``[C, M, P]``."""

        def of_cell(own: Tensor) -> Constants:
            found = self.model.constants_of(self.reader(self.space.values(own)))
            if found is None:
                raise _OtherTerms
            return found

        try:
            stacked = torch.vmap(of_cell)(nodes)
        except _OtherTerms:
            raise NotSupportedError(
                f"nested: {listed([repr(name) for name in self.space.names])} inside a function of another latent or "
                "of a predictor, or the terms of the model change with the values: cells, which share all but "
                "constants, cannot be swept together. Nest another site, or none."
            ) from None
        held = {k: v.detach() for k, v in stacked["constants"].items()}
        constant = stacked["constant"].detach()
        return [
            {"constants": {k: v[i] for k, v in held.items()}, "constant": constant[i]}
            for i in range(len(nodes))
        ]

    def fit(self, nodes: Tensor, starts: Sequence[State | None]) -> list[Fitted]:
        """Coordinate ascent at the nodes ``[C, M, P]``, each from factors of its own."""
        constants = self.constants(nodes)

        def initialise(number: int) -> None:
            start = starts[number]
            factors = self.begun if start is None else start
            self.model.load([*factors, constants[number]])
            if self.model.predictors:  # whose first sweep is held to the bound it begins with
                for node in self.model.predictors:
                    node.update(self.model.messages(node))

        found: list[Fitted] = []
        together_go = all(part.runs_together for part in self.model.parts)
        while len(found) < len(nodes):
            rest = range(len(found), len(nodes))
            if self._is_plain:
                found += self._settled(rest, initialise, together_go)
            else:
                found += self._climbed(list(rest), initialise)
        return found

    @property
    def _is_plain(self) -> bool:
        """Whether plain sweeps never lower the bound and nothing is iterated within them."""
        return not self.model.predictors and not self.model.inner

    def _settled(
        self, numbers: range, initialise: Callable[[int], None], together_go: bool
    ) -> list[Fitted]:
        """Plain sweeps from factors that are near, of as many cells as go well together.

        A cell is at rest when what its bound still gains, from the ratio of its last two gains, is below
        the tolerance; one that takes many sweeps goes on with extrapolation.
        """
        states = []
        for number in numbers:
            initialise(number)
            states.append(self.model.state())
            if not together_go or len(states) >= room(states[0]):
                break
        ends: dict[int, Fitted] = {}
        active, state = list(range(len(states))), together(states)
        bound = torch.full((len(active),), -math.inf, dtype=torch.float64)
        gain = torch.full_like(bound, math.inf)
        for _ in range(PLAIN_SWEEPS):
            state, after = each(len(active), self.moves.sweep, state)
            last, gain = gain, after - bound
            bound = after
            ratio = (gain / last).clamp(0.0, 1.0)
            rests = ~(gain.abs() * (ratio / (1 - ratio)).clamp(min=1.0) > self.nats)
            rests = rests & last.isfinite() | bound.isnan()
            for i in rests.nonzero().flatten().tolist():
                value = float(bound[i])
                value = value if math.isfinite(value) else -math.inf
                ends[active[i]] = Fitted(one(state, i, len(active)), value, Status.CONVERGED)
            if bool(rests.all()):
                active = []
                break
            state = some(state, ~rests, len(active))
            going = (~rests).nonzero().flatten()
            active = [active[i] for i in going.tolist()]
            bound, gain = bound[going], gain[going]
        for place, number in enumerate(active):
            left = one(state, place, len(active))
            (ends[number],) = self._climbed([0], partial(self._enter, left))
        return [ends[number] for number in range(len(states))]

    def _enter(self, state: State, number: int) -> None:
        self.model.load(state)

    def _climbed(self, numbers: list[int], initialise: Callable[[int], object]) -> list[Fitted]:
        """Coordinate ascent with all its means."""
        ascent = CoordinateAscent(self.model, numbers, self.schedule, initialise)
        status = ascent.run(None, self.began)
        if status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        return [
            Fitted(r.state, r.bound if math.isfinite(r.bound) else -math.inf, r.status)
            for r in ascent.runs(status)
        ]

    def bound_at(self, state: State, nodes: Tensor) -> float:
        """The bound of a cell's factors at other nodes ``[M', P]``."""
        model = self._made(nodes)
        for block, before in zip(model.blocks, self.model.blocks, strict=True):
            number = self.model.blocks.index(before)
            block.restore(state[number]["natural"])
        for node in model.between:
            node.start()
            node.update(model.messages(node))
        return model.elbo()

    def to(self, nats: float, size: float) -> None:
        """Fit to another tolerance from here on, of bounds of about this size."""
        self.nats = nats
        self.schedule = replace(self.schedule, tol=nats / max(1.0, abs(size)))


class _OtherTerms(Exception):
    """A reading whose terms are not those of the model."""
