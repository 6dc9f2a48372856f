"""Folding and merging: what is only data is contracted at once.

Labels that stand on constants alone are summed before the first sweep, so data shrink to sufficient
statistics (XᵀX, counts of faces); terms that are equal up to their constants are added up.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Constant, is_open
from vitools.calculus.algebra.functions import as_function, weighted
from vitools.calculus.densities.closed_terms import ClosedTerm, ExpectedLogJoint, Selection

# A 0/1 tensor that reads an axis by data is written out (so that it can join a matrix product)
# when the axis is no longer than this; longer axes are read and added to by position.
DENSE_SELECTION = 64
FOLD_LIMIT = 1_000_000


def fold(joint: ExpectedLogJoint) -> ExpectedLogJoint:
    """Contract what is only data; add up terms that are equal but for their constants."""
    total = joint.constant
    folded: list[ClosedTerm] = []
    for term in joint.terms:
        term = fold_term(term, joint.sizes)
        if term.atoms:
            folded.append(term)
        else:
            numbers = [c.tensor if is_open(c.tensor) else float(c.tensor) for c in term.constants]
            total = total + term.coefficient * math.prod(numbers)
    merged = _merge(folded, set(joint.plate_labels.values()))
    return replace(joint, terms=merged, constant=total)


def fold_term(term: ClosedTerm, sizes: dict[int, int]) -> ClosedTerm:
    """The term with its constants summed over the labels that no atom carries."""
    term = _summed_inside(term)
    kept = term.atom_labels()
    constants: list[Constant] = []
    selections: list[Selection] = []
    for group in connected(term):
        result = _contract(group, kept, sizes)
        for operand in result:
            if isinstance(operand, Selection):
                if operand.size <= DENSE_SELECTION and not set(operand.labels) - kept:
                    constants.append(operand.dense())
                else:
                    selections.append(operand)
            else:
                constants.append(operand)
    coefficient = term.coefficient
    remaining: list[Constant] = []
    for constant in _multiplied(constants):
        if constant.tensor.dim() == 0 and not is_open(constant.tensor):
            coefficient *= float(constant.tensor)
        else:
            remaining.append(constant)
    return replace(
        term, coefficient=coefficient, constants=tuple(remaining), selections=tuple(selections)
    )


def _summed_inside(term: ClosedTerm) -> ClosedTerm:
    """Data that only one function of a latent varies with are summed inside it.

    Σ_n c_n f(x; d_n) is one statistic of x, where nothing else depends on n but data.
    """
    for number, atom in enumerate(term.atoms):
        own = set(atom.labels[: len(atom.indices)])
        elsewhere = {x for other in term.atoms if other is not atom for x in other.labels}
        inner = [x for x in atom.data_labels if x not in own and x not in elsewhere]
        weights: list[Constant] = []
        for operand in term.operands:
            labels = operand_labels(operand)
            if not labels & set(inner):
                continue
            if labels - set(inner) - own:
                inner = [x for x in inner if x not in labels]  # it varies with other latents too
            else:
                weights.append(operand.dense() if isinstance(operand, Selection) else operand)
        weights = [w for w in weights if set(w.labels) & set(inner)]
        if not inner:
            continue
        function = weighted(as_function(atom.function), weights)
        function = replace(function, summed=(*function.summed, *inner))
        atoms = list(term.atoms)
        atoms[number] = replace(atom, function=function)
        return _summed_inside(
            replace(
                term,
                atoms=tuple(atoms),
                constants=tuple(c for c in term.constants if not set(c.labels) & set(inner)),
                selections=tuple(s for s in term.selections if not operand_labels(s) & set(inner)),
            )
        )
    return term


def connected(term: ClosedTerm) -> list[list[Constant | Selection]]:
    """The constants of a term in groups that share labels which no atom carries."""
    kept = term.atom_labels()
    groups: list[list[Constant | Selection]] = []
    for operand in term.operands:
        inner = operand_labels(operand) - kept
        touching = [g for g in groups if any(inner & operand_labels(other) for other in g)]
        groups = [g for g in groups if g not in touching]
        groups.append([operand, *(other for g in touching for other in g)])
    return groups


def operand_labels(operand: Constant | Selection) -> set[int]:
    if isinstance(operand, Selection):
        return {*operand.labels, operand.target}
    return set(operand.labels)


def _multiplied(constants: list[Constant]) -> list[Constant]:
    """Multiply constants that vary along the same labels."""
    groups: dict[frozenset[int], Constant] = {}
    for constant in constants:
        key = frozenset(constant.labels)
        if key in groups:
            first = groups[key]
            order = [constant.labels.index(label) for label in first.labels]
            product = first.tensor.double() * constant.tensor.double().permute(order)
            groups[key] = Constant(product, first.labels)
        else:
            groups[key] = constant
    return list(groups.values())


def _contract(
    group: list[Constant | Selection], kept: set[int], sizes: dict[int, int]
) -> list[Constant | Selection]:
    """Sum a connected group of constants over the labels that no atom carries."""
    every = {label for operand in group for label in operand_labels(operand)}
    if not every - kept:
        return group
    result = sorted(every & kept)
    cells = math.prod(sizes[label] for label in result)
    entries = sum(o.index.numel() if isinstance(o, Selection) else o.tensor.numel() for o in group)
    if cells > max(4 * entries, FOLD_LIMIT):
        return group
    dense = [o for o in group if isinstance(o, Constant)]
    selections = [o for o in group if isinstance(o, Selection)]
    if not selections:
        return [Constant(einsum_constants(dense, result), tuple(result))]
    return [_scatter(dense, selections, result, sizes)]


def einsum_constants(constants: list[Constant], labels: list[int]) -> Tensor:
    number: dict[int, int] = {}
    arguments: list[Any] = []
    for constant in constants:
        ids = [number.setdefault(label, len(number)) for label in constant.labels]
        arguments += [constant.tensor.double(), ids]
    return torch.einsum(*arguments, [number[label] for label in labels])


def _scatter(
    dense: list[Constant], selections: list[Selection], result: list[int], sizes: dict[int, int]
) -> Constant:
    """Σ Π dense over the inner labels, added up in the cells that the selections name."""
    targets = [s.target for s in selections]
    read = sorted({label for s in selections for label in s.labels})
    outer = [label for label in read if label in result]
    rest = [label for label in result if label not in read and label not in targets]
    have = {label for c in dense for label in c.labels}
    if dense:
        product = einsum_constants(dense, [x for x in (*read, *rest) if x in have])
        view = [sizes[x] if x in have else 1 for x in (*read, *rest)]
        weights = product.reshape(view)
    else:
        weights = torch.ones((), dtype=torch.float64)
    weights = weights.expand([sizes[x] for x in (*read, *rest)])
    cell = torch.zeros([sizes[x] for x in read], dtype=torch.long)
    for label in outer:
        position = torch.arange(sizes[label])
        cell = cell * sizes[label] + position.reshape([-1 if x == label else 1 for x in read])
    for selection in selections:
        order = sorted(range(len(selection.labels)), key=lambda i: selection.labels[i])
        index = selection.index.permute(order)
        view = [sizes[x] if x in selection.labels else 1 for x in read]
        cell = cell * selection.size + index.reshape(view)
    shape = [sizes[x] for x in (*outer, *targets, *rest)]
    width = math.prod(sizes[x] for x in rest)
    cells = math.prod(shape) // width
    flat = torch.zeros(cells, width, dtype=torch.float64)
    flat.index_add_(0, cell.reshape(-1), weights.reshape(-1, width))
    return Constant(flat.reshape(shape), (*outer, *targets, *rest))


# ---- merging ---------------------------------------------------------------------------------


def _merge(terms: list[ClosedTerm], fixed: set[int]) -> list[ClosedTerm]:
    groups: dict[Any, ClosedTerm] = {}
    for term in terms:
        has_data = any(atom.data for atom in term.atoms)
        if term.selections or len(term.constants) > 1 or has_data:
            groups[object()] = term
            continue
        key, names = _canonical(term, fixed)
        renamed = _rename(term, names)
        if key not in groups:
            groups[key] = renamed
            continue
        first = groups[key]
        if term.constants:
            (mine,), (theirs,) = renamed.constants, first.constants
            order = [mine.labels.index(label) for label in theirs.labels]
            summed = (
                theirs.tensor.double() * first.coefficient
                + mine.tensor.double().permute(order) * term.coefficient
            )
            groups[key] = replace(
                first, coefficient=1.0, constants=(Constant(summed, theirs.labels),)
            )
        else:
            groups[key] = replace(first, coefficient=first.coefficient + term.coefficient)
    return [t for t in groups.values() if t.coefficient]


def _rename(term: ClosedTerm, names: dict[int, int]) -> ClosedTerm:
    return replace(
        term,
        constants=tuple(c.rename(names) for c in term.constants),
        atoms=tuple(a.rename(names) for a in term.atoms),
    )


def _canonical(term: ClosedTerm, fixed: set[int]) -> tuple[Any, dict[int, int]]:
    """A key that equal structures share, and the labels' names in it (negative numbers).

    Atoms of the same statistic can be listed in any order; the smallest key of all orders counts.
    """
    head = sorted(term.atoms, key=lambda a: (a.site, str(a.function)))
    runs = [list(g) for _, g in itertools.groupby(head, key=lambda a: (a.site, str(a.function)))]
    best: tuple[Any, dict[int, int]] | None = None
    for orders in itertools.product(*(itertools.permutations(run) for run in runs)):
        names: dict[int, int] = {}
        parts = []
        for atom in itertools.chain(*orders):
            labels = []
            for label in atom.labels:
                if label not in fixed:
                    names.setdefault(label, -1 - len(names))
                labels.append(names.get(label, label))
            parts.append((atom.site, str(atom.function), tuple(labels)))
        constants = tuple(
            tuple(sorted(names.get(label, label) for label in c.labels)) for c in term.constants
        )
        key = (tuple(parts), constants)
        if best is None or key < best[0]:
            best = key, names
    assert best is not None
    return best
