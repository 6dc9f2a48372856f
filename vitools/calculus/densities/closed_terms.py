"""Closed terms: products of constants and statistics in which every axis has a plain label."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import (
    Atom,
    Constant,
    Gather,
    Index,
    Predictor,
    fresh,
)
from vitools.calculus.algebra.term import Term
from vitools.calculus.densities.surrogates import predictor_shape
from vitools.calculus.tracing.trace import ModelTrace


@dataclass(frozen=True, eq=False)
class Selection:
    """The 0/1 tensor 1[index[labels] = target], kept as integers."""

    index: Tensor
    labels: tuple[int, ...]
    target: int
    size: int

    def dense(self) -> Constant:
        hot = torch.nn.functional.one_hot(self.index, self.size).double()
        return Constant(hot, (*self.labels, self.target))


@dataclass(frozen=True, eq=False)
class ClosedTerm:
    """coefficient · Π constants · Π selections · Π atoms, all labels summed."""

    coefficient: float
    constants: tuple[Constant, ...]
    selections: tuple[Selection, ...]
    atoms: tuple[Atom, ...]  # every index is a plain label
    origin: str  # the site whose log density it came from

    @property
    def operands(self) -> list[Constant | Selection]:
        return [*self.constants, *self.selections]

    def constant_labels(self) -> set[int]:
        found = {label for c in self.constants for label in c.labels}
        for selection in self.selections:
            found |= {*selection.labels, selection.target}
        return found

    def atom_labels(self) -> set[int]:
        return {label for atom in self.atoms for label in atom.labels}


@dataclass
class ExpectedLogJoint:
    """E_q log p = constant + Σ terms; the labels of plates and the size of every label."""

    terms: list[ClosedTerm]
    constant: float | Tensor
    plate_labels: dict[str, int]
    sizes: dict[int, int]


def read_by_selection(term: Term, origin: str, trace: ModelTrace) -> ClosedTerm:
    """Give each atom axis a plain label; axes read by data get a selection beside them."""
    constants = list(term.constants())
    selections: list[Selection] = []
    known: list[tuple[Gather, int, int]] = []
    atoms: list[Atom] = []
    for atom in term.atoms():
        sizes = statistic_shape(atom, trace)[: len(atom.indices)]
        labels: list[Index] = []
        for index, size in zip(atom.indices, sizes, strict=True):
            if not isinstance(index, Gather):
                if index in labels:
                    # x[k, k]: the same label twice on one atom needs an identity between them.
                    copy = fresh()
                    eye = torch.eye(size, dtype=torch.float64)
                    constants.append(Constant(eye, (index, copy)))
                    labels.append(copy)
                else:
                    labels.append(index)
                continue
            for gather, label, length in known:
                if gather.same(index) and length == size and label not in labels:
                    labels.append(label)
                    break
            else:
                label = fresh()
                known.append((index, label, size))
                labels.append(label)
                if index.labels:
                    selections.append(Selection(index.index, index.labels, label, size))
                else:
                    position = torch.zeros(size, dtype=torch.float64)
                    position[index.index] = 1
                    constants.append(Constant(position, (label,)))
        atoms.append(Atom(atom.site, atom.function, tuple(labels)))
    return ClosedTerm(term.coefficient, tuple(constants), tuple(selections), tuple(atoms), origin)


def statistic_shape(atom: Atom, trace: ModelTrace) -> tuple[int, ...]:
    """The sizes of the labels of an atom: its site's axes, then those of data inside the function."""
    if isinstance(atom.site, Predictor):
        shape = predictor_shape(atom)
    else:
        site = trace.sites[atom.site]
        shape = site.shape
        if atom.function == "indicator" and site.distribution != "OneHotCategorical":
            return (*shape, site.support_size)
        if atom.function == "log_determinant":
            return shape[:-2]
    sizes = {x: n for d in atom.data for x, n in zip(d.labels, d.tensor.shape, strict=True)}
    own = replace(atom, function=1.0).labels
    return (*shape, *(sizes[x] for x in atom.data_labels if x not in own))


def term_sizes(
    terms: Iterable[ClosedTerm], trace: ModelTrace, plate_labels: dict[str, int]
) -> dict[int, int]:
    sizes = {plate_labels[name]: plate.size for name, plate in trace.plates.items()}
    for term in terms:
        for constant in term.constants:
            sizes.update(zip(constant.labels, constant.tensor.shape, strict=True))
        for selection in term.selections:
            sizes.update(zip(selection.labels, selection.index.shape, strict=True))
            sizes[selection.target] = selection.size
        for atom in term.atoms:
            sizes.update(zip(atom.labels, statistic_shape(atom, trace), strict=True))
    return sizes
