"""The factor of a discrete trajectory: z_0, …, z_T-1 of one site, exact by elimination.

Its statistics are the indicators of each state and of pairs of neighbours, which terms read at z[t] and
z[t + 1]; terms that hold states further apart are refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vitools.calculus.algebra.atoms import Atom, Constant, Unsupported
from vitools.calculus.blocks.block import DenseBlock, Resolved, batch_mask, describe, plate_names
from vitools.calculus.blocks.cells import cells_of
from vitools.calculus.densities.closed_terms import ClosedTerm, Selection
from vitools.calculus.tracing.trace import TracedSite
from vitools.families.markov_chain import TrajectoryFamily
from vitools.families.moments import SiteMoments

STATE = "state"


@dataclass(frozen=True)
class _Pairs:
    """Indicators of pairs of neighbours: where each stands among the mean parameters of all chains."""

    shape: tuple[int, ...]
    where: Tensor


class TrajectoryBlock(DenseBlock):
    """One site of shape [batch, T]."""

    def __init__(self, site: TracedSite):
        super().__init__([site])
        self.steps, self.states = site.shape[-1], site.support_size
        self.batch_shape = tuple(site.shape[:-1])
        self.batch_plates = plate_names(site)[:-1]
        self.family: TrajectoryFamily = TrajectoryFamily(self.steps, self.states)
        self.mask = batch_mask(site, self.batch_shape)
        self._pairs: list[_Pairs] = []

    # ---- statistics ----------------------------------------------------------------------

    def resolve(self, atoms: Sequence[Atom]) -> Resolved:
        raise NotImplementedError("a trajectory resolves whole terms")

    def resolve_term(
        self, term: ClosedTerm, atoms: Sequence[Atom]
    ) -> tuple[Resolved, list[Constant], list[Selection]]:
        if any(atom.function != "indicator" for atom in atoms) or len(atoms) > 2:
            product = " · ".join(describe(atom) for atom in atoms)
            raise Unsupported(f"{product} of a Markov chain, which has those of neighbours alone")
        if len(atoms) == 1:
            return Resolved(STATE, atoms[0].labels), list(term.constants), list(term.selections)
        name = self.names[0]
        cells = cells_of(term, atoms, {name: (*self.batch_shape, self.steps, self.states)})
        chains = [cells.flat(a.labels[:-2], self.batch_shape) for a in atoms]
        (one, first), (other, second) = (
            (cells.position(a.labels[-2]), cells.position(a.labels[-1])) for a in atoms
        )
        ahead = other - one
        if bool((chains[0] != chains[1]).any()) or bool((ahead.abs() != 1).any()):
            raise Unsupported(f"states of {name!r} that are no neighbours in their chain")
        before = torch.where(ahead > 0, first, second)
        after = torch.where(ahead > 0, second, first)
        pair = (torch.minimum(one, other) * self.states + before) * self.states + after
        where = chains[0] * self.family.width + self.family.single + pair
        made = _Pairs(cells.shape, where.expand(cells.shape).reshape(-1))
        return Resolved(self._number(made), tuple(cells.labels)), cells.constants, cells.selections

    def _number(self, made: _Pairs) -> int:
        for number, known in enumerate(self._pairs):
            if known.shape == made.shape and torch.equal(known.where, made.where):
                return number
        self._pairs.append(made)
        return len(self._pairs) - 1

    def statistics(self) -> Iterable[Any]:
        return (STATE, *range(len(self._pairs)))

    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        if key == STATE:
            return (*self.batch_shape, self.steps, self.states)
        return self._pairs[key].shape

    def component(self, key: Any) -> int:
        return 0

    def component_shape(self, component: int) -> tuple[int, ...]:
        return (*self.batch_shape, self.family.width)

    def embed(self, key: Any, message: Tensor) -> Tensor:
        own, width = self.family.single, self.family.width
        if key == STATE:
            return torch.nn.functional.pad(message.flatten(-2), (0, width - own))
        pairs = self._pairs[key]
        lead = message.shape[: message.dim() - len(pairs.shape)]
        total = message.new_zeros(*lead, math.prod(self.batch_shape) * width)
        total = total.index_add(-1, pairs.where, message.reshape(*lead, -1))
        return total.reshape(*lead, *self.component_shape(0))

    def extract(self, key: Any, mean: Tensor) -> Tensor:
        if key == STATE:
            return self.family.parts(mean)[0]
        pairs = self._pairs[key]
        lead = mean.shape[: mean.dim() - len(self.component_shape(0))]
        return mean.reshape(*lead, -1)[..., pairs.where].reshape(*lead, *pairs.shape)

    # ---- where it begins, and what it is -------------------------------------------------

    def made_of(self, sites: Sequence[TracedSite]) -> DenseBlock:
        return TrajectoryBlock(sites[0])

    def place(self, given: Mapping[str, SiteMoments]) -> None:
        self.restore(self.family.with_moments(given[self.names[0]].mean, None))

    def distribution(self, name: str) -> Distribution:
        made = self.family.to_distribution(self.natural)
        return made.expand(self.batch_shape)
