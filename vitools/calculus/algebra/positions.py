"""Reading the axes of terms at integer positions: indexing by data, reshaping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Constant, Function, Gather, Index, fresh, is_open
from vitools.calculus.algebra.term import Factor, Out, Term


def varies_along(tensor: Tensor, dim: int) -> bool:
    return is_open(tensor) or bool((tensor != tensor.narrow(dim, 0, 1)).any())


def without_ones(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


def is_whole(index: Tensor, size: int) -> bool:
    """Whether reading an axis at these positions leaves it as it is: 0, 1, …, size - 1."""
    return index.shape == (size,) and torch.equal(index.long(), torch.arange(size))


def substitute(term: Term, label: int, index: Tensor, labels: tuple[int, ...]) -> Term:
    """Read ``label`` at ``index`` wherever it stands; the axes of index carry ``labels``."""

    def read(tensor: Tensor, at: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
        dim = at.index(label)
        rest = at[:dim] + at[dim + 1 :]
        shared = [name for name in labels if name in rest]
        if not shared:
            return tensor.movedim(dim, 0)[index], labels + rest
        # The tensor varies along some of the new labels already: read it diagonally.
        every = labels + tuple(name for name in rest if name not in labels)
        sizes = dict(zip(rest, tensor.movedim(dim, 0).shape[1:], strict=True))
        sizes.update(zip(labels, index.shape, strict=True))
        where: list[Tensor] = []
        for axis, name in enumerate(at):
            if axis == dim:
                where.append(index.reshape(list(index.shape) + [1] * (len(every) - len(labels))))
            else:
                view = [1] * len(every)
                view[every.index(name)] = sizes[name]
                where.append(torch.arange(sizes[name]).reshape(view))
        return tensor[tuple(where)], every

    factors: list[Factor] = []
    for factor in term.factors:
        if label not in factor.labels:
            factors.append(factor)
        elif isinstance(factor, Constant):
            factors.append(Constant(*read(factor.tensor, factor.labels), factor.selects))
        else:
            function = factor.function
            if isinstance(function, Function) and label in factor.data_labels:
                inside = (
                    Constant(*read(d.tensor, d.labels)) if label in d.labels else d
                    for d in function.data
                )
                function = replace(function, data=tuple(inside), inner=None, parts=())
            indices: list[Index] = []
            for place in factor.indices:
                if isinstance(place, Gather):
                    indices.append(
                        Gather(*read(place.index, place.labels)) if label in place.labels else place
                    )
                else:
                    indices.append(Gather(index, labels) if place == label else place)
            factors.append(replace(factor, function=function, indices=tuple(indices)))
    return Term(term.coefficient, tuple(factors), term.out)


def take_positions(term: Term, dim: int, position: Tensor, size: int) -> Term:
    """The out dim ``dim``, of ``size``, read at positions whose dims take its place."""
    if is_whole(position, size):
        return term
    label = term.out[dim]
    if label is None:
        gap: Out = (None,) * position.dim()
        return Term(term.coefficient, term.factors, term.out[:dim] + gap + term.out[dim + 1 :])
    term = term.freshen()
    label = term.out[dim]
    assert label is not None
    squeezed = position.reshape([s for s in position.shape if s != 1])
    labels = tuple(fresh() for _ in squeezed.shape)
    remaining = iter(labels)
    gap = tuple(next(remaining) if size != 1 else None for size in position.shape)
    moved = substitute(term, label, squeezed, labels)
    return Term(moved.coefficient, moved.factors, term.out[:dim] + gap + term.out[dim + 1 :])


def read_together(term: Term, positions: Sequence[Tensor], shape: Sequence[int]) -> Term:
    """The term with every out dim read at once: result[m] = term[positions[0][m], …]."""
    term = term.freshen()
    result = tuple(fresh() if size > 1 else None for size in shape)
    for label, position in zip(term.out, positions, strict=True):
        if label is None:
            continue
        varying = [i for i, size in enumerate(shape) if size > 1]
        keep = [i for i in varying if varies_along(position, i)]
        picked = position
        for i in range(len(shape)):
            if i not in keep:
                picked = picked.narrow(i, 0, 1)
        picked = picked.reshape([shape[i] for i in keep])
        labels = tuple(label_ for i in keep if (label_ := result[i]) is not None)
        term = substitute(term, label, picked, labels)
    used = {label for factor in term.factors for label in factor.labels}
    out = tuple(label if label in used else None for label in result)
    return Term(term.coefficient, term.factors, out)
