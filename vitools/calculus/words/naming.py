"""Names for the constants of a term: which data or argument of the model each one is.

The calculus keeps values only. A constant that equals an observed site or an argument (or its
square, logarithm or complement) gets that name back, with the orientation the user knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Constant, Predictor
from vitools.calculus.densities.closed_terms import ClosedTerm, Selection
from vitools.calculus.reduction.folding import operand_labels
from vitools.calculus.tracing.trace import ModelTrace

FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "{}": lambda x: x,
    "{}²": lambda x: x * x,
    "log {}": torch.log,
    "(1 - {})": lambda x: 1 - x,
    "log(1 - {})": lambda x: torch.log1p(-x),
}


@dataclass(frozen=True)
class Named:
    """A constant in words, its labels in the order of the thing it is named after."""

    words: str
    labels: tuple[int, ...]


class DataNames:
    """Finds the name of a constant; numbers those that have none.

    Args:
        arguments: the model's arguments by name.
    """

    def __init__(self, trace: ModelTrace, arguments: Mapping[str, Any]) -> None:
        self.known: list[tuple[str, Tensor]] = []
        for name, site in trace.sites.items():
            if site.observed is not None:
                self.known.append((name, site.observed.detach().squeeze()))
            if site.mask is not None:
                self.known.append((f"observed({name})", site.mask.squeeze()))
        for name, value in arguments.items():
            if isinstance(value, Tensor) and value.numel() > 1:
                self.known.append((name, value.detach().squeeze()))
        self.priors = {name for name, site in trace.sites.items() if site.is_latent}
        self.seen = {name for name, site in trace.sites.items() if site.observed is not None}
        self.rolled = set(trace.rolled)
        self.unnamed: list[tuple[Tensor, str]] = []

    def of(self, operand: Constant | Selection, term: ClosedTerm) -> Named:
        """The name of a constant in a term."""
        if isinstance(operand, Selection):
            return Named(self.index(operand, term), operand.labels)
        if operand.words:
            bracketed = f"({operand.words})" if " " in operand.words else operand.words
            return Named(bracketed, operand.labels)
        position = position_of(operand)
        if position is not None:
            return Named(f"1[{position}]", operand.labels)
        for form, function in FORMS.items():
            for name, value in self._candidates(term.origin):
                turned = _aligned(operand, value, function)
                if turned is not None:
                    return Named(form.format(name), turned)
        return Named(self._number(operand.tensor, term), operand.labels)

    def index(self, selection: Selection, term: ClosedTerm) -> str:
        """The name of the integers that read an axis."""
        for name, value in self._candidates(term.origin):
            if value.shape == selection.index.shape and torch.equal(
                value.long(), selection.index.long()
            ):
                return name
        by_slice = slice_of(selection.index)
        if by_slice is None and term.origin in self.seen and self._reads_steps(selection, term):
            return f"steps({term.origin})"  # those of a loop at which it is seen
        return by_slice or self._number(selection.index, term)

    def _reads_steps(self, selection: Selection, term: ClosedTerm) -> bool:
        return any(a.site in self.rolled and selection.target in a.labels for a in term.atoms)

    def legend(self) -> list[str]:
        """What stands behind the numbered constants."""
        return [
            f"{self._symbol(i)}: constants {' × '.join(map(str, tensor.shape))} in "
            + ("a predictor" if isinstance(origin, Predictor) else f"the density of '{origin}'")
            for i, (tensor, origin) in enumerate(self.unnamed)
        ]

    def _candidates(self, origin: str) -> list[tuple[str, Tensor]]:
        return sorted(self.known, key=lambda pair: pair[0] != origin)

    def _number(self, tensor: Tensor, term: ClosedTerm) -> str:
        origin = term.origin
        if origin in self.priors and all(atom.site == origin for atom in term.atoms):
            return f"prior({origin})"
        for i, (known, _) in enumerate(self.unnamed):
            if known.shape == tensor.shape and torch.equal(known, tensor):
                return self._symbol(i)
        self.unnamed.append((tensor, origin))
        return self._symbol(len(self.unnamed) - 1)

    @staticmethod
    def _symbol(position: int) -> str:
        return "data" + str(position + 1).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _aligned(
    constant: Constant, value: Tensor, function: Callable[[Tensor], Tensor]
) -> tuple[int, ...] | None:
    """The constant's labels in the order of the axes of ``value``, if they are equal."""
    tensor = constant.tensor
    orders = [range(tensor.dim())] + ([(1, 0)] if tensor.dim() == 2 else [])
    for order in orders:
        turned = tensor.permute(tuple(order))
        if turned.shape != value.shape or not value.numel():
            continue
        first = (0,) * value.dim()
        # one entry tells most tensors apart at no cost
        if all(
            torch.equal(function(part_of_value.double()), part)
            for part_of_value, part in (
                (value[first], turned[first].double()),
                (value, turned.double()),
            )
        ):
            return tuple(constant.labels[i] for i in order)
    return None


def slice_of(index: Tensor) -> str | None:
    """Positions one after another as Python writes them: ``1:200``; None of others."""
    if index.dim() != 1 or len(index) < 2:
        return None
    first, step = int(index[0]), int(index[1] - index[0])
    stop = first + step * len(index)
    if step < 1 or not torch.equal(index.long(), torch.arange(first, stop, step)):
        return None
    return f"{first}:{int(index[-1]) + 1}" + (f":{step}" if step > 1 else "")


def position_of(operand: Constant | Selection) -> int | None:
    """The element that a 0/1 vector picks."""
    if isinstance(operand, Selection) or operand.tensor.dim() != 1:
        return None
    values = operand.tensor
    if int((values == 1).sum()) != 1 or int((values == 0).sum()) != len(values) - 1:
        return None
    return int(values.argmax())


def times_identity(constants: Sequence[Constant | Selection]) -> float | None:
    """c, where the only constant is c times the identity matrix."""
    if len(constants) != 1 or isinstance(constants[0], Selection):
        return None
    matrix = constants[0].tensor
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
        return None
    scale = matrix[0, 0]
    same = torch.equal(matrix, scale * torch.eye(len(matrix), dtype=matrix.dtype))
    return float(scale) if same else None


def products(factors: list[Named]) -> list[str]:
    """The factors in words; one that stands twice is squared, or an outer product."""
    words: list[str] = []
    for factor in factors:
        twins = [other for other in factors if other.words == factor.words]
        if len(twins) == 2:
            outer = set(twins[0].labels) != set(twins[1].labels)
            words.append(f"{factor.words} {factor.words}ᵀ" if outer else f"{factor.words}²")
        else:
            words.append(factor.words)
    return list(dict.fromkeys(words))


def group_words(
    group: list[Constant | Selection],
    inner: set[int],
    names: DataNames,
    term: ClosedTerm,
    plates: Mapping[int, str],
) -> str:
    """A group of constants summed over the labels ``inner``: ``XᵀX``, ``Xᵀy``, ``Σ_rows x``."""
    group = [o for o in group if times_identity([o]) != 1.0] or group
    named = [names.of(operand, term) for operand in group]
    product = _matrix_product(group, named, inner)
    if product:
        return product
    summed = "".join(f"Σ_{plates[label]} " for label in sorted(inner) if label in plates) or (
        "Σ " if inner else ""
    )
    factors = [
        Named(f"1[{n.words}]", n.labels) if isinstance(o, Selection) else n
        for o, n in zip(group, named, strict=True)
    ]
    text = summed + " · ".join(products(factors))
    return f"({text})" if summed else text


def _matrix_product(
    group: list[Constant | Selection], named: list[Named], inner: set[int]
) -> str | None:
    """AᵀB where two matrices (or a matrix and a vector) meet in the one label that is summed."""
    if len(group) != 2 or len(inner) != 1 or any(isinstance(o, Selection) for o in group):
        return None
    (shared,) = inner
    if any(shared not in operand_labels(o) or len(operand_labels(o)) > 2 for o in group):
        return None
    left, right = sorted(named, key=lambda n: -len(n.labels))
    if len(left.labels) != 2:
        return None
    first = f"{left.words}ᵀ" if left.labels[0] == shared else left.words
    second = right.words if right.labels[0] == shared else f"{right.words}ᵀ"
    gap = "" if len(left.words) == len(right.words) == 1 else " "
    return f"{first}{gap}{second}"
