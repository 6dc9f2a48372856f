"""Discrete latents of one plate, swept in chunks and never stored.

Where everything else in the plate is data, the elements of a discrete block are independent given
the globals, and other blocks need only sums over the plate:

    logits_nk = Σ_f F_nf η_fk          statistics_fk = Σ_n m_n softmax(logits_n)_k F_nf

with features F made of data alone (1, y, y⊗y, one-hot counts) and multiplicities m. These are two
matrix products per chunk of rows; memory does not grow with the plate beyond the data. The sums
are this block's statistics: to the other blocks it looks like one of a handful of numbers.

An axis that is too long to write out as one-hot columns (a vocabulary) is read and added to by
position instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vitools.conjugacy.blocks import Block, DiscreteBlock, Resolved
from vitools.conjugacy.features import Feature, read_feature
from vitools.conjugacy.term import Atom, Constant
from vitools.conjugacy.terms import ClosedTerm, Selection
from vitools.conjugacy.trace import TracedSite
from vitools.errors import NumericalError

CHUNK_BYTES = 2 << 20  # features and responsibilities of one chunk stay in the cache
KEEP_FEATURES = 256 << 20  # bytes of features written out once rather than in every sweep


class StreamedBlock(Block):
    """One or several discrete sites whose only common plate is streamed."""

    def __init__(self, sites: Sequence[TracedSite], label: int, multiplicity: Tensor | None):
        super().__init__(sites)
        self.dense = DiscreteBlock(sites)
        self.label = label
        axis = next(i for i, size in enumerate(self.dense.batch_shape) if size > 1)
        self.count = self.dense.batch_shape[axis]
        self.batch_plates = ()
        self.batch_shape: tuple[int, ...] = ()
        self.supports = self.dense.supports
        self.cases = math.prod(self.supports)
        self.multiplicity = multiplicity
        self.mask = None
        self.features: dict[Any, Feature] = {}
        self._names: dict[Any, int] = {}
        self._written: Tensor | None = None
        self._entropy = torch.zeros((), dtype=torch.float64)

    # ---- statistics ------------------------------------------------------------------------

    def resolve(self, atoms: Sequence[Atom]) -> Resolved:
        raise NotImplementedError("a streamed block resolves whole terms")

    def resolve_term(
        self, term: ClosedTerm, atoms: Sequence[Atom]
    ) -> tuple[Resolved, list[Constant], list[Selection]]:
        """The statistic of a term, and the constants and selections that are not part of it."""
        plain = self.dense.resolve(atoms)
        batch = len(self.dense.batch_shape)
        single = set(plain.labels[:batch]) - {self.label}
        supports = plain.labels[batch:]
        local: list[Constant] = []
        rest: list[Constant] = []
        for constant in term.constants:
            kept = [i for i, x in enumerate(constant.labels) if x not in single]
            squeezed = Constant(
                constant.tensor.reshape([constant.tensor.shape[i] for i in kept]),
                tuple(constant.labels[i] for i in kept),
            )
            (local if self.label in squeezed.labels else rest).append(squeezed)
        selected = [s for s in term.selections if self.label in s.labels]
        others = [s for s in term.selections if self.label not in s.labels]
        feature, labels, name = read_feature(
            plain.key, self.label, self.count, local, selected, supports
        )
        number = self._names.setdefault(name, len(self._names))
        self.features.setdefault(number, feature)
        return Resolved(number, (*supports, *labels)), rest, others

    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        feature = self.features[key]
        sizes = dict(zip(self.names, self.supports, strict=True))
        return (*(sizes[name] for name in feature.key), *feature.shape)

    # ---- the pass over the plate --------------------------------------------------------------

    def update(self, messages: dict[Any, Tensor], idle: frozenset[Any] = frozenset()) -> None:
        natural = (
            messages[key].expand(self.statistic_shape(key))
            if key in messages
            else torch.zeros(self.statistic_shape(key), dtype=torch.float64)
            for key in self.features
        )
        self.restore(tuple(natural), idle)

    def restore(self, natural: tuple[Tensor, ...], idle: frozenset[Any] = frozenset()) -> None:
        """One pass: responsibilities from the natural parameters, chunk by chunk, and their sums.

        Sums over the long axes in ``idle`` are left out; a full pass must follow before the bound
        or a block that needs them is asked for.
        """
        self.natural = natural
        weights = self._weights(natural)
        sums = torch.zeros_like(weights)
        positions = self._position_tables(natural)
        keys = [key for key, feature in self.features.items() if feature.index is not None]
        added = [torch.zeros_like(table) for table in positions]
        log_normaliser = torch.zeros((), dtype=torch.float64)
        step = self._chunk()
        for start in range(0, self.count, step):
            stop = min(start + step, self.count)
            rows = self._rows(start, stop)
            logits = self._logits(rows, weights, positions, start, stop)
            top = logits.max(1, keepdim=True).values
            table = logits.sub_(top).exp_()
            total = table.sum(1, keepdim=True)
            table.div_(total)
            log_total = top.add_(total.log_()).squeeze(1)
            if self.multiplicity is None:
                log_normaliser += log_total.sum()
            else:
                count = self.multiplicity[start:stop]
                log_normaliser += (log_total * count).sum()
                table.mul_(count.unsqueeze(1))
            if rows is not None:
                sums.addmm_(rows.T, table)
            for key, feature, target in zip(keys, self._positioned(), added, strict=True):
                assert feature.index is not None
                if key in idle:
                    continue
                weighted = table
                if feature.weight is not None:
                    weighted = table * feature.weight[start:stop].unsqueeze(1)
                target.index_add_(0, feature.index[start:stop], weighted)
        if not bool(log_normaliser.isfinite()):
            raise NumericalError(f"site {self.title!r}: the probabilities became nan")
        energy = (sums * weights).sum()
        for table, target in zip(positions, added, strict=True):
            energy = energy + (table * target).sum()
        self._entropy = log_normaliser - energy
        self._set_sums(sums, added)
        self.changed()

    def _dense_features(self) -> list[Feature]:
        return [feature for feature in self.features.values() if feature.index is None]

    def _positioned(self) -> list[Feature]:
        return [f for f in self.features.values() if f.index is not None]

    def _chunk(self) -> int:
        width = sum(feature.width for feature in self._dense_features()) + 2 * self.cases
        return min(max(CHUNK_BYTES // (8 * width), 512), 1 << 16)

    def _rows(self, start: int, stop: int) -> Tensor | None:
        """All written-out features of a chunk, side by side."""
        if self._written is not None:
            return self._written[start:stop]
        features = self._dense_features()
        if not features:
            return None
        width = sum(feature.width for feature in features)
        rows = torch.empty(stop - start, width, dtype=torch.float64)
        column = 0
        for feature in features:
            feature.write(start, stop, rows[:, column : column + feature.width])
            column += feature.width
        return rows

    def write_features(self) -> None:
        """Write the features out once where they fit beside the data."""
        width = sum(feature.width for feature in self._dense_features())
        if width and 8 * width * self.count <= KEEP_FEATURES:
            self._written = None
            self._written = self._rows(0, self.count)

    def _weights(self, natural: tuple[Tensor, ...]) -> Tensor:
        """η as a matrix [features, cases]."""
        parts = []
        for (_, feature), eta in zip(self.features.items(), natural, strict=True):
            if feature.index is None:
                full = self._over_cases(feature, eta)
                if feature.symmetric:
                    size = feature.shape[0]
                    i, j = torch.triu_indices(size, size)
                    half = torch.where(i == j, 0.5, 1.0).to(torch.float64)
                    square = full.reshape(self.cases, size, size)
                    full = (square[:, i, j] + square[:, j, i]) * half
                parts.append(full.reshape(self.cases, -1).T)
        return torch.cat(parts) if parts else torch.zeros(0, self.cases, dtype=torch.float64)

    def _over_cases(self, feature: Feature, eta: Tensor) -> Tensor:
        """Spread a message about some of the sites over all joint cases: [cases, width]."""
        view = [
            size if name in feature.key else 1
            for name, size in zip(self.names, self.supports, strict=True)
        ]
        spread = eta.reshape(*view, *feature.shape).expand(*self.supports, *feature.shape)
        return spread.reshape(self.cases, -1)

    def _position_tables(self, natural: tuple[Tensor, ...]) -> list[Tensor]:
        """η of long axes as [positions, cases]."""
        return [
            self._over_cases(feature, eta).T.contiguous()
            for feature, eta in zip(self.features.values(), natural, strict=True)
            if feature.index is not None
        ]

    def _logits(
        self,
        rows: Tensor | None,
        weights: Tensor,
        positions: list[Tensor],
        start: int,
        stop: int,
    ) -> Tensor:
        logits = None if rows is None else rows @ weights
        for feature, table in zip(self._positioned(), positions, strict=True):
            assert feature.index is not None
            part = table.index_select(0, feature.index[start:stop])
            if feature.weight is not None:
                part = part * feature.weight[start:stop].unsqueeze(1)
            logits = part if logits is None else logits.add_(part)
        assert logits is not None
        return logits

    def _set_sums(self, sums: Tensor, added: list[Tensor]) -> None:
        self.moments = {}
        start = 0
        positioned = iter(added)
        for key, feature in self.features.items():
            if feature.index is not None:
                full = next(positioned).T
            else:
                part = sums[start : start + feature.width].T
                start += feature.width
                full = self._mirrored(part, feature.shape[0]) if feature.symmetric else part
            table = full.reshape(*self.supports, *feature.shape)
            away = [i for i, name in enumerate(self.names) if name not in feature.key]
            self.moments[key] = table.sum(away) if away else table

    def _mirrored(self, part: Tensor, size: int) -> Tensor:
        i, j = torch.triu_indices(size, size)
        full = torch.zeros(self.cases, size, size, dtype=torch.float64)
        full[:, i, j] = part
        full[:, j, i] = part
        return full

    # ---- the factor -----------------------------------------------------------------------------

    def entropies(self) -> Tensor:
        return self._entropy

    def materialised(self) -> DiscreteBlock:
        """The factor of every element, stored: for the posterior, after the fit."""
        logits = torch.empty(self.count, self.cases, dtype=torch.float64)
        weights, positions = self._weights(self.natural), self._position_tables(self.natural)
        step = self._chunk()
        for start in range(0, self.count, step):
            stop = min(start + step, self.count)
            rows = self._rows(start, stop)
            logits[start:stop] = self._logits(rows, weights, positions, start, stop)
        block = DiscreteBlock(self.sites)
        block.restore((logits.reshape(*block.batch_shape, *self.supports),))
        return block

    def distribution(self, name: str) -> Distribution:
        return self.materialised().distribution(name)


def can_stream(
    block: Block, label: int, plate: str, terms: Sequence[ClosedTerm], local_sites: set[str]
) -> bool:
    """Whether the block's elements along the plate are independent given everything else.

    ``local_sites`` are all latents inside the plate. A term may then hold no other latent of the
    plate beside the block, and the block must be read along the plate alone.
    """
    if not isinstance(block, DiscreteBlock) or block.mask is not None:
        return False
    wide = [i for i, size in enumerate(block.batch_shape) if size > 1]
    if len(wide) != 1 or block.batch_plates[wide[0]] != plate:
        return False
    for term in terms:
        mine = [a for a in term.atoms if a.site in block.names]
        if not mine:
            continue
        others = [a for a in term.atoms if a.site not in block.names]
        if any(a.site in local_sites or label in a.labels for a in others):
            return False
        if any(a.labels[wide[0]] != label for a in mine):
            return False
        supports = {a.labels[-1] for a in mine}
        selected = [s for s in term.selections if label in s.labels]
        if any(s.labels != (label,) for s in selected) or len(selected) > 1:
            return False
        along = [c for c in term.constants if label in c.labels]
        if any(set(c.labels) & supports for c in along):
            return False
        if selected and any(len(c.labels) > 1 for c in along):
            return False
    return True
