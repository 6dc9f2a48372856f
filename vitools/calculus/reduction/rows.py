"""Distinct rows: elements of a plate whose data are equal share one factor, with a multiplicity.

Rolls of dice, words of a document, categories: rows of N data repeat. Rows with equal data have
equal optimal factors, so it suffices to update one of each kind and to count it m times in every
sum over the plate. The order of exchangeable observations inside a row does not matter either: a
row of rolls counts as its face counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Constant
from vitools.calculus.densities.closed_terms import (
    ClosedTerm,
    ExpectedLogJoint,
    Selection,
    term_sizes,
)
from vitools.calculus.tracing.trace import ModelTrace, TracedSite
from vitools.problem.sites import Plate

PROBE = 4096
WORTHWHILE = 0.7
MOST_COLUMNS = 32
LARGEST_CODE = 2**61


@dataclass(frozen=True)
class DistinctRows:
    """Representatives of the distinct rows, the row of each element, and multiplicities."""

    plate: str
    representative: Tensor  # [U]
    inverse: Tensor  # [N]
    multiplicity: Tensor  # [U], float64


def distinct_rows(joint: ExpectedLogJoint, trace: ModelTrace, plate: str) -> DistinctRows | None:
    """The distinct rows of a plate, or None where its rows cannot or need not be collapsed."""
    label, size = joint.plate_labels[plate], trace.plates[plate].size
    if size < 2 or not _stands_alone(joint, trace, plate, label):
        return None
    columns = _columns(joint, label)
    if columns is None:
        return None
    # Neighbouring rows: data sorted by group repeat there first.
    probe = torch.arange(min(size, PROBE))
    code, limit = _encode(columns, probe)
    if len(torch.unique(code)) > WORTHWHILE * len(probe):
        return None
    code, limit = _encode(columns, None) if size > len(probe) else (code, limit)
    if code.dim() == 0:
        code = code.expand(size)
    if limit <= max(4 * size, 2**20):
        counts = torch.bincount(code, minlength=limit)
        present = counts.nonzero().squeeze(1)
        rank = torch.zeros(limit, dtype=torch.long)
        rank[present] = torch.arange(len(present))
        inverse, multiplicity = rank[code], counts[present]
    else:
        _, inverse, multiplicity = torch.unique(code, return_inverse=True, return_counts=True)
    if len(multiplicity) > WORTHWHILE * size:
        return None
    representative = torch.zeros(len(multiplicity), dtype=torch.long)
    representative[inverse] = torch.arange(size)
    return DistinctRows(plate, representative, inverse, multiplicity.double())


def _stands_alone(joint: ExpectedLogJoint, trace: ModelTrace, plate: str, label: int) -> bool:
    """The plate's latents are read along the plate only, and nothing else carries its label."""
    axes = {
        site.name: dim
        for site in trace.sites.values()
        if site.is_latent
        for dim, p in site.plates.items()
        if p.name == plate
    }
    if not axes:
        return False
    for term in joint.terms:
        for atom in term.atoms:
            where = [i for i, x in enumerate(atom.labels) if x == label]
            expected = [axes[atom.site]] if atom.site in axes else []
            if where != expected:
                return False
    return True


@dataclass(frozen=True)
class _Column:
    data: Tensor  # [N, m]
    size: int  # values run from 0 to size-1; 0: any numbers
    exchangeable: bool


def _columns(joint: ExpectedLogJoint, label: int) -> list[_Column] | None:
    found: dict[tuple[int, int, bool], _Column] = {}
    for term in joint.terms:
        for constant in term.constants:
            if label in constant.labels:
                axis = constant.labels.index(label)
                data = (
                    constant.tensor.movedim(axis, 0).flatten(1)
                    if constant.tensor.dim() > 1
                    else (constant.tensor.unsqueeze(1))
                )
                if data.shape[1] > MOST_COLUMNS:
                    return None
                found[(id(constant.tensor), axis, False)] = _Column(data, 0, False)
        for selection in term.selections:
            if label in selection.labels:
                axis = selection.labels.index(label)
                data = selection.index.movedim(axis, 0)
                data = data.flatten(1) if data.dim() > 1 else data.unsqueeze(1)
                free = _exchangeable(term, selection, label)
                if data.shape[1] > MOST_COLUMNS and not free:
                    return None
                key = (id(selection.index), axis, free)
                found[key] = _Column(data, selection.size, free)
    return list(found.values())


def _exchangeable(term: ClosedTerm, selection: Selection, label: int) -> bool:
    """The selection's other labels are its own: only counts of what it selects matter."""
    others = set(selection.labels) - {label}
    elsewhere = set(term.atom_labels())
    for operand in term.operands:
        if operand is not selection:
            elsewhere |= set(operand.labels)
    return bool(others) and not others & elsewhere


def _encode(columns: list[_Column], rows: Tensor | None) -> tuple[Tensor, int]:
    """One integer for each row, equal where all columns are equal, and a bound on it."""
    code, limit = torch.zeros((), dtype=torch.long), 1
    for column in columns:
        data = column.data if rows is None else column.data[rows]
        for part, size in _parts(data, column):
            if limit * size > LARGEST_CODE:
                values, code = torch.unique(code, return_inverse=True)
                limit = len(values)
            code, limit = code * size + part, limit * size
    return code, limit


def _parts(data: Tensor, column: _Column) -> list[tuple[Tensor, int]]:
    width = data.shape[1]
    if column.exchangeable:
        cells = (width + 1) ** column.size
        if cells <= 2**40:
            weight = (width + 1) ** torch.arange(column.size)
            total = weight[data[:, 0]]
            for j in range(1, width):
                total += weight[data[:, j]]
            return [(total, cells)]
        data = data.sort(1).values
    if column.size:
        return [(data[:, j], column.size) for j in range(width)]
    parts = []
    for j in range(width):
        values, inverse = torch.unique(data[:, j], return_inverse=True)
        parts.append((inverse, len(values)))
    return parts


def collapse(
    joint: ExpectedLogJoint, trace: ModelTrace, rows: DistinctRows
) -> tuple[ExpectedLogJoint, ModelTrace]:
    """The same model with one row of each kind; sums over data alone already weighted."""
    label = joint.plate_labels[rows.plate]
    keep = rows.representative
    terms = [_collapse_term(term, label, rows) for term in joint.terms]
    plates = dict(trace.plates)
    plates[rows.plate] = replace(plates[rows.plate], size=len(keep))
    sites = {name: _collapse_site(site, rows, plates) for name, site in trace.sites.items()}
    small = replace(trace, sites=sites, plates=plates)
    return replace(joint, terms=terms, sizes=term_sizes(terms, small, joint.plate_labels)), small


def _collapse_term(term: ClosedTerm, label: int, rows: DistinctRows) -> ClosedTerm:
    keep = rows.representative
    constants = [
        Constant(c.tensor.index_select(c.labels.index(label), keep), c.labels, c.selects)
        if label in c.labels
        else c
        for c in term.constants
    ]
    selections = [
        replace(s, index=s.index.index_select(s.labels.index(label), keep))
        if label in s.labels
        else s
        for s in term.selections
    ]
    if label in term.constant_labels() - term.atom_labels():
        constants.append(Constant(rows.multiplicity, (label,)))
    return replace(term, constants=tuple(constants), selections=tuple(selections))


def _collapse_site(site: TracedSite, rows: DistinctRows, plates: dict[str, Plate]) -> TracedSite:
    axes = [dim for dim, plate in site.plates.items() if plate.name == rows.plate]
    if not axes or not site.is_latent:
        return site
    (axis,) = axes
    shape = list(site.shape)
    shape[axis] = len(rows.representative)
    batch = list(site.batch_shape)
    batch[axis] = len(rows.representative)
    mask = site.mask
    if mask is not None and mask.shape[axis] != 1:
        mask = mask.index_select(axis, rows.representative)
    reference = site.reference
    if reference is not None:
        reference = reference.index_select(axis, rows.representative)
    return replace(
        site,
        shape=tuple(shape),
        batch_shape=tuple(batch),
        mask=mask,
        reference=reference,
        plates={dim: plates[plate.name] for dim, plate in site.plates.items()},
    )


def collapsed(
    joint: ExpectedLogJoint,
    trace: ModelTrace,
    blocks: Sequence[Sequence[str] | str],
    only: str | None,
) -> tuple[ExpectedLogJoint, ModelTrace, dict[str, DistinctRows]]:
    """Collapse the rows of the largest plate that repeats, or of the one that may be."""
    written = " ".join(e if isinstance(e, str) else " ".join(e) for e in blocks)
    for name in sorted(trace.plates, key=lambda n: -trace.plates[n].size):
        if f"[{name}]" in written or only not in (None, name):
            continue
        rows = distinct_rows(joint, trace, name)
        if rows is not None:
            joint, trace = collapse(joint, trace, rows)
            return joint, trace, {name: rows}
    return joint, trace, {}
