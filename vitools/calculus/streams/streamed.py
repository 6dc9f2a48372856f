"""Latents of one long plate, swept in chunks and never stored.

Where everything else in the plate is data, the rows of a block are independent given the globals,
and other blocks need only sums over the plate. For a family with statistics t, log-normaliser A
and multiplicities m,

    η_n = Σ_f F_nf η_f        μ_n = ∇A(η_n)        T_f = Σ_n m_n F_nf μ_n        Σ_n m_n A(η_n)

with features F made of data alone (1, y, y⊗y, counts). The first and the third are matrix products
per chunk of rows; memory does not grow with the plate beyond the data. The sums T are this block's
statistics: to the other blocks it looks like one of a handful of numbers, and its entropy is
Σ_n m_n A(η_n) - Σ_f η_f·T_f.

A component of η without data in it is the same for all rows (the precision of a factor model): it
is formed once. An axis that is too long to write out as one-hot columns (a vocabulary) is read and
added to by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vitools.calculus.algebra.atoms import Atom, Constant
from vitools.calculus.blocks.block import Block, DenseBlock, Resolved, stand_in
from vitools.calculus.blocks.links import separated
from vitools.calculus.blocks.single import DiscreteBlock
from vitools.calculus.densities.closed_terms import ClosedTerm, Selection
from vitools.calculus.streams.components import Component, StreamedStatistic
from vitools.calculus.streams.features import Feature, read_feature
from vitools.calculus.tracing.trace import TracedSite
from vitools.errors import NumericalError

CHUNK_BYTES = 2 << 20  # features and statistics of one chunk stay in the cache


class StreamedBlock(Block):
    """A factor over one plate of which only sums over the plate are kept.

    ``dense`` is the block whose rows are streamed, ``row`` one row of it.
    """

    def __init__(self, dense: DenseBlock, plate: str, multiplicity: Tensor | None):
        super().__init__(dense.sites)
        self.dense = dense
        self.family = dense.family
        self.axis = dense.batch_plates.index(plate)
        self.count = dense.batch_shape[self.axis]
        self.row = dense.made_of([_one_row(site, plate) for site in dense.sites])
        self.batch_plates = ()
        self.batch_shape = ()
        self.multiplicity = multiplicity
        self.rows_mask = None if dense.mask is None else dense.mask.movedim(self.axis, 0)
        self.statistics: dict[int, StreamedStatistic] = {}
        self._numbers: dict[Any, int] = {}
        self._components: list[Component] = []
        self._entropy = torch.zeros((), dtype=torch.float64)

    @property
    def is_discrete(self) -> bool:
        return isinstance(self.dense, DiscreteBlock)

    @property
    def features(self) -> dict[int, Feature]:
        return {number: s.feature for number, s in self.statistics.items()}

    # ---- statistics ------------------------------------------------------------------------

    def resolve(self, atoms: Sequence[Atom]) -> Resolved:
        raise NotImplementedError("a streamed block resolves whole terms")

    def resolve_term(
        self, term: ClosedTerm, atoms: Sequence[Atom]
    ) -> tuple[Resolved, list[Constant], list[Selection]]:
        """The statistic of a term, and the constants and selections that are not part of it."""
        mine = replace(term, atoms=tuple(atoms))
        mine = separated(mine, dict.fromkeys(self.names, self.dense))
        plain = self.dense.resolve(mine.atoms)
        shape = self.dense.statistic_shape(plain.key)
        label = plain.labels[self.axis]
        own = tuple(x for x in plain.labels if x != label)
        single = {x for x, size in zip(plain.labels, shape, strict=True) if size == 1}
        local: list[Constant] = []
        rest: list[Constant] = []
        for constant in mine.constants:
            kept = [i for i, x in enumerate(constant.labels) if x not in single]
            squeezed = Constant(
                constant.tensor.reshape([constant.tensor.shape[i] for i in kept]),
                tuple(constant.labels[i] for i in kept),
            )
            (local if label in squeezed.labels else rest).append(squeezed)
        selected = [s for s in term.selections if label in s.labels]
        others = [s for s in term.selections if label not in s.labels]
        reading = read_feature(label, self.count, local, selected, own)
        name = (plain.key, reading.name, reading.along)
        number = self._numbers.setdefault(name, len(self._numbers))
        component = self.dense.component(plain.key)
        found = StreamedStatistic(
            plain.key, component, reading.feature, reading.along, reading.name
        )
        self.statistics.setdefault(number, found)
        return Resolved(number, (*reading.outer, *own)), rest, others

    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        statistic = self.statistics[key]
        own = list(self.dense.statistic_shape(statistic.key))
        del own[self.axis]
        return (*statistic.outer_shape, *own)

    def write_features(self) -> None:
        """Lay out the components of η, with features written out where they fit beside the data."""
        self._components = [
            Component(i, self.row, self.axis, self.count, self.statistics)
            for i in range(len(self.family.statistics))
        ]
        for component in self._components:
            component.write_once()

    # ---- the pass over the plate --------------------------------------------------------------

    def update(self, messages: dict[Any, Tensor], idle: frozenset[Any] = frozenset()) -> None:
        natural = (
            messages[key].expand(self.statistic_shape(key))
            if key in messages
            else torch.zeros(self.statistic_shape(key), dtype=torch.float64)
            for key in self.statistics
        )
        self.restore(tuple(natural), idle)

    def restore(self, natural: tuple[Tensor, ...], idle: frozenset[Any] = frozenset()) -> None:
        """One pass: mean parameters from the natural parameters, chunk by chunk, and their sums.

        Sums over the long axes in ``idle`` are left out; a full pass must follow before the bound
        or a block that needs them is asked for.
        """
        self.natural = natural
        passes = [component.loaded(natural, idle) for component in self._components]
        shared = [p.shared if self.rows_mask is None else None for p in passes]
        normalised = self.family.normalised_with(shared)
        total = torch.zeros((), dtype=torch.float64)
        for start, stop in self._chunks():
            eta = tuple(p.natural(start, stop) for p in passes)
            mask = None if self.rows_mask is None else self.rows_mask[start:stop]
            log_normaliser, mean = normalised(stand_in(eta, mask, self.family))
            if mask is not None:  # no entropy; terms that do not tell cases apart still count
                log_normaliser = torch.where(mask, log_normaliser, self.family.inner(eta, mean))
            weight = None if self.multiplicity is None else self.multiplicity[start:stop]
            if weight is None:
                repeats = (stop - start) // len(log_normaliser)
                total = total + log_normaliser.sum() * repeats
            else:
                while weight.dim() < log_normaliser.dim():
                    weight = weight.unsqueeze(-1)
                total = total + (log_normaliser * weight).sum()
            for p, part in zip(passes, mean, strict=True):
                p.add(start, stop, part, weight)
        self.moments = {}
        for p in passes:
            moments, energy = p.finished()
            self.moments.update(moments)
            total = total - energy
        self._entropy = total
        self.changed()

    def _chunks(self) -> list[tuple[int, int]]:
        width = sum(component.cells for component in self._components)
        step = min(max(CHUNK_BYTES // (8 * width), 512), 1 << 16)
        return [(start, min(start + step, self.count)) for start in range(0, self.count, step)]

    # ---- the factor -----------------------------------------------------------------------------

    def entropies(self) -> Tensor:
        return self._entropy

    def check(self) -> None:
        if not bool(self._entropy.isfinite()):
            raise NumericalError(
                f"site {self.title!r}: an update is not a proper {self.family.name}; the prior may "
                "be improper or the data too badly scaled for float64"
            )

    def materialised(self) -> DenseBlock:
        """The factor of every row, stored: for the posterior, after the fit."""
        passes = [component.loaded(self.natural, frozenset()) for component in self._components]
        parts = [[p.natural(*chunk) for p in passes] for chunk in self._chunks()]
        natural = []
        dims = self.family.event_dims
        for p, rows, event in zip(passes, zip(*parts, strict=True), dims, strict=True):
            whole = rows[0] if p.component.is_shared else torch.cat(rows)
            if event < 2:  # matrices that all rows share stay one
                whole = whole.expand(self.count, *whole.shape[1:])
            natural.append(whole.movedim(0, self.axis))
        block = self.dense.made_of(self.sites)
        block.set_factor(tuple(natural))
        return block

    def distribution(self, name: str) -> Distribution:
        return self.materialised().distribution(name)


def _one_row(site: TracedSite, plate: str) -> TracedSite:
    (axis,) = (dim for dim, p in site.plates.items() if p.name == plate)

    def short(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:axis], 1, *shape[axis + 1 :])

    return replace(
        site,
        shape=short(site.shape),
        batch_shape=short(site.batch_shape),
        mask=None,
        reference=None,
    )
