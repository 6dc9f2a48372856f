"""Which pairs of elements a term holds, where data read them.

A term with u[g_n] v[h_n] holds the pairs (g_n, h_n) alone, of which there are no more than rows; the
statistic E[u_g v_h] of all groups would have as many as there are pairs of groups. Its *cells* are the
distinct pairs that occur: one label in place of those of g and h, and one selection n → cell in place
of the two. A label that data give as a function of others (the school of a class) goes, with its selection;
a constant that is zero for most pairs (what is left of such selections once data are added up) is
written as the pairs where it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Atom, Constant, fresh, is_open
from vitools.calculus.densities.closed_terms import ClosedTerm, Selection

SPARSE = 0.5
"""Part of a constant's numbers that may differ from zero for it to be written as cells."""


@dataclass
class Cells:
    """The labels and lengths of the axes of a statistic, and what is left of the term beside it."""

    labels: list[int]
    lengths: dict[int, int]
    constants: list[Constant]
    selections: list[Selection]
    at: dict[int, tuple[Tensor, tuple[int, ...]]]
    """Where each label of the atoms stands along the axes of the statistic that it varies with."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.lengths[x] for x in self.labels)

    def position(self, label: int) -> Tensor:
        """Where a label of the atoms stands, to be broadcast to the statistic's shape."""
        tensor, along = self.at[label]
        order = sorted(range(len(along)), key=lambda i: self.labels.index(along[i]))
        view = [self.lengths[x] if x in along else 1 for x in self.labels]
        return tensor.permute(order).reshape(view)

    def flat(self, labels: Sequence[int], sizes: Sequence[int]) -> Tensor:
        """The position along several axes as one number, row by row."""
        total = torch.zeros((), dtype=torch.long)
        for label, size in zip(labels, sizes, strict=True):
            total = total * size + self.position(label)
        return total


def cells_of(term: ClosedTerm, atoms: Sequence[Atom], shapes: Mapping[str, Sequence[int]]) -> Cells:
    """The pairs of elements (or the elements) that stand in a term for some of its atoms.

    Args:
        atoms: one or two of the term's.
        shapes: of their sites.
    """
    lengths: dict[int, int] = {}
    for atom in atoms:
        lengths.update(zip(atom.labels, shapes[atom.site], strict=True))
    cells = Cells(
        labels=list(lengths),
        lengths=lengths,
        constants=list(term.constants),
        selections=list(term.selections),
        at={x: (torch.arange(n), (x,)) for x, n in lengths.items()},
    )
    others = {x for atom in term.atoms if atom not in atoms for x in atom.labels}
    if len(atoms) == 2 and not any(is_open(c.tensor) for c in cells.constants):
        _narrow(cells, others)
        _write_sparse(cells, atoms, others)
    _follow_selections(cells)
    _merge_selections(cells)
    needed = others | {x for c in cells.constants for x in c.labels} | set(cells.labels)
    cells.selections = [s for s in cells.selections if s.target in needed]
    return cells


def _narrow(cells: Cells, others: set[int]) -> None:
    """A label along which a constant of its own is zero but at few places (x[3], say) as these places."""
    read = {s.target for s in cells.selections}
    for constant in cells.constants:
        if len(constant.labels) != 1 or constant.labels[0] not in cells.labels:
            continue
        (label,) = constant.labels
        where = (constant.tensor != 0).nonzero()
        if label in read or not 0 < len(where) <= SPARSE * len(constant.tensor):
            continue
        cell, size = fresh(), len(constant.tensor)
        _replace(cells, [label], cell, len(where), [where[:, 0]])
        cells.constants = [_at_cells(c, [label], where, cell) for c in cells.constants]
        if label in others:
            cells.selections.append(Selection(where[:, 0], (cell,), label, size))
        _narrow(cells, others)
        return


def _write_sparse(cells: Cells, atoms: Sequence[Atom], others: set[int]) -> None:
    """A constant that couples labels of both atoms as the pairs where it is not zero."""
    first, second = (set(atom.labels) for atom in atoms)
    read = {s.target for s in cells.selections}
    for constant in cells.constants:
        own = [x for x in constant.labels if x in first ^ second]
        if not (set(own) & first and set(own) & second) or set(own) & read:
            continue
        axes = [constant.labels.index(x) for x in own]
        rest = [i for i in range(constant.tensor.dim()) if i not in axes]
        sizes = [constant.tensor.shape[i] for i in axes]
        occurs = (constant.tensor != 0).permute(*axes, *rest).reshape(*sizes, -1).any(-1)
        where = occurs.nonzero()
        if len(where) > SPARSE * occurs.numel():
            continue
        cell = fresh()
        _replace(cells, own, cell, len(where), [where[:, i] for i in range(len(own))])
        cells.constants = [_at_cells(c, own, where, cell) for c in cells.constants]
        for i, label in enumerate(own):
            if label in others:
                cells.selections.append(Selection(where[:, i], (cell,), label, sizes[i]))
        return


def _at_cells(constant: Constant, own: Sequence[int], where: Tensor, cell: int) -> Constant:
    """A constant read at the cells, for those of its axes that they stand for."""
    axes = [i for i, x in enumerate(constant.labels) if x in own]
    if not axes:
        return constant
    rest = [i for i in range(constant.tensor.dim()) if i not in axes]
    index = tuple(where[:, own.index(constant.labels[i])] for i in axes)
    tensor = constant.tensor.permute(*axes, *rest)[index]
    return Constant(tensor, (cell, *(constant.labels[i] for i in rest)), constant.selects)


def _follow_selections(cells: Cells) -> None:
    """Labels that data give as a function of labels that are there anyway."""
    for selection in cells.selections:
        if selection.target in cells.labels and set(selection.labels) <= set(cells.labels):
            cells.labels.remove(selection.target)
            cells.at[selection.target] = (selection.index, selection.labels)


def _merge_selections(cells: Cells) -> None:
    """Labels read by the same rows become the distinct combinations that occur."""
    by_rows: dict[tuple[int, ...], list[Selection]] = {}
    for selection in cells.selections:
        if selection.target in cells.labels:
            by_rows.setdefault(selection.labels, []).append(selection)
    for rows, read in by_rows.items():
        if len(read) < 2:
            continue
        code = torch.zeros((), dtype=torch.long)
        for selection in read:
            code = code * selection.size + selection.index
        codes, inverse = torch.unique(code, return_inverse=True)
        positions = []
        for selection in reversed(read):
            positions.append(codes % selection.size)
            codes = codes // selection.size
        cell = fresh()
        _replace(cells, [s.target for s in read], cell, len(codes), positions[::-1])
        cells.selections.append(Selection(inverse, rows, cell, len(codes)))


def _replace(
    cells: Cells, labels: Sequence[int], cell: int, count: int, positions: Sequence[Tensor]
) -> None:
    place = min(cells.labels.index(x) for x in labels)
    cells.labels = [x for x in cells.labels if x not in labels]
    cells.labels.insert(place, cell)
    cells.lengths[cell] = count
    for label, position in zip(labels, positions, strict=True):
        cells.at[label] = (position, (cell,))
