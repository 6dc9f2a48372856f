"""Discrete functions: tables over the supports of discrete latents (``z1 + z2``, ``z == 3``).

Ordinary arithmetic on discrete latents acts on the table alone. A discrete function is a single
term, indicators × table, so it shares the shape operations of expressions; indexing by it
contributes its indicators and a constant 0/1 tensor. Integer data are a discrete function of no
latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Atom, Constant, Unsupported, fresh, is_open
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.positions import is_whole, substitute
from vitools.calculus.algebra.term import Factor, Out, Term, multiply_terms, simplify


class Discrete:
    """``words``: how the model wrote it, where that is known (``tracing.operations.spelling``)."""

    def __init__(self, term: Term, shape: Sequence[int], words: str = ""):
        self.term = term
        self.shape = tuple(shape)
        self.words = words

    @staticmethod
    def latent(site: str, shape: Sequence[int], support: Tensor) -> Discrete:
        """A latent of these values ``[K]``, or ``[*shape, K]`` of each element's own."""
        (term,) = Expression.latent(site, shape).terms
        (place,) = term.atoms()
        value = fresh()
        atom = Atom(site, "indicator", (*place.indices, value), support.shape[-1])
        labels = tuple(x for x in term.out if x is not None) if support.dim() > 1 else ()
        own = [size for size in shape if size > 1] if support.dim() > 1 else []
        table = Constant(support.reshape(*own, -1), (*labels, value))
        return Discrete(Term(1.0, (atom, table), term.out), shape, site)

    @staticmethod
    def data(tensor: Tensor) -> Discrete:
        """Integer or boolean data; dims of size one carry no label."""
        out: Out = tuple(None if size == 1 else fresh() for size in tensor.shape)
        labels = tuple(label for label in out if label is not None)
        squeezed = tensor.reshape([size for size in tensor.shape if size != 1])
        return Discrete(Term(1.0, (Constant(squeezed, labels),), out), tensor.shape)

    @property
    def dim(self) -> int:
        return len(self.shape)

    @property
    def atoms(self) -> list[Atom]:
        return self.term.atoms()

    @property
    def table(self) -> Constant:
        (table,) = self.term.constants()
        return table

    def sites(self) -> set[str]:
        return {atom.site for atom in self.atoms}

    def restructured(self, operation: Callable[[Expression], Expression]) -> Discrete:
        """Apply a shape operation of expressions (unsqueeze, permute, take, expand, reshape)."""
        result = operation(Expression([self.term], self.shape))
        return Discrete(result.terms[0], result.shape)

    def apply(self, function: Callable[[Tensor], Tensor]) -> Discrete:
        table = self.table
        return self._with_table(Constant(function(table.tensor), table.labels))

    def _with_table(self, table: Constant) -> Discrete:
        factors: tuple[Factor, ...] = (*self.atoms, table)
        used = {label for factor in factors for label in factor.labels}
        out = tuple(o if o in used else None for o in self.term.out)
        return Discrete(Term(1.0, factors, out), self.shape)

    def combine(self, other: Discrete, function: Callable[[Tensor, Tensor], Tensor]) -> Discrete:
        """An elementwise function of two discrete functions: a table over the union of latents."""
        shape = torch.broadcast_shapes(self.shape, other.shape)
        rank = len(shape)
        product = multiply_terms(self.term.pad(rank), other.term.pad(rank))
        merged = simplify(product)
        assert merged is not None
        mine, theirs = merged.constants()
        labels = mine.labels + tuple(x for x in theirs.labels if x not in mine.labels)
        table = Constant(function(_spread(mine, labels), _spread(theirs, labels)), labels)
        term = Term(1.0, (*merged.atoms(), table), merged.out)
        return Discrete(term, shape)._with_table(table)

    def expression(self) -> Expression:
        """The function's value as a number."""
        table = self.table
        numbers = table.tensor.double()
        movable = torch.is_grad_enabled() and is_open(numbers)
        if not self.atoms and numbers.dim() == 0 and not movable:
            return Expression([Term(float(numbers), (), self.term.out)], self.shape)
        selects = not movable and bool(((numbers == 0) | (numbers == 1)).all())
        constant = Constant(numbers, table.labels, selects, self.words)
        return Expression([Term(1.0, (*self.atoms, constant), self.term.out)], self.shape)

    def one_hot(self, size: int) -> Expression:
        """1[value = v] for v = 0 … size-1, in a new last dim."""
        selectors, label, out = self.selectors(size)
        return Expression([Term(1.0, selectors, (*out, label))], (*self.shape, size))

    def selectors(self, size: int) -> tuple[tuple[Factor, ...], int, Out]:
        """Factors that are one where ``label`` equals the value, and the out labels they use."""
        term = self.term.freshen()
        (table,) = term.constants()
        low, high = int(table.tensor.min()), int(table.tensor.max())
        if low < -size or high >= size:
            raise Unsupported(
                f"an index that runs from {low} to {high} into an axis of size {size}"
            )
        atoms = term.atoms()
        if len(atoms) == 1 and atoms[0].indices[-1] == table.labels[0] and table.tensor.dim() == 1:
            plain = torch.arange(size, device=table.tensor.device)
            if table.tensor.shape[0] == size and torch.equal(table.tensor.long(), plain):
                return tuple(atoms), table.labels[0], term.out
        label = fresh()
        positions = table.tensor.long() % size
        cases = torch.nn.functional.one_hot(positions, size).double()
        chosen = Constant(cases, (*table.labels, label), True, self.words)
        return (*atoms, chosen), label, term.out


def _spread(constant: Constant, labels: Sequence[int]) -> Tensor:
    """A view of the table whose axes stand in the order of ``labels`` (size one where absent)."""
    order = sorted(range(len(constant.labels)), key=lambda i: labels.index(constant.labels[i]))
    tensor = constant.tensor.permute(order)
    present = [constant.labels[i] for i in order]
    for position, label in enumerate(labels):
        if label not in present:
            tensor = tensor.unsqueeze(position)
    return tensor


def take_discrete(
    expression: Expression, dims: Sequence[int], indices: Sequence[Discrete]
) -> Expression:
    """Read adjacent dims at discrete functions or integer data that broadcast together.

    The common dims of the indices take the place of ``dims``; the others stay where they are.
    """
    first, last = dims[0], dims[-1] + 1
    common = torch.broadcast_shapes(*(index.shape for index in indices))
    terms = []
    for old in expression.terms:
        term = old.freshen()
        gap: list[int | None] = [None] * len(common)
        for dim, index in zip(dims, indices, strict=True):
            label = term.out[dim]
            if label is None:
                continue
            size = expression.shape[dim]
            if index.atoms:
                selectors, position, own = index.selectors(size)
                names = _unify(gap, own)
                selectors = tuple(factor.rename(names) for factor in selectors)
                term = Term(term.coefficient, term.factors, term.out).rename({label: position})
                term = Term(term.coefficient, (*term.factors, *selectors), term.out)
            else:
                data = index.term.freshen()
                (table,) = data.constants()
                names = _unify(gap, data.out)
                labels = tuple(names.get(label_, label_) for label_ in table.labels)
                positions = table.tensor.long() % size
                if is_whole(positions, size):
                    term = term.rename({label: labels[0]})
                else:
                    term = substitute(term, label, positions, labels)
        out = (*term.out[:first], *gap, *term.out[last:])
        result = simplify(Term(term.coefficient, term.factors, out))
        if result is not None:
            terms.append(result)
    shape = (*expression.shape[:first], *common, *expression.shape[last:])
    return Expression(terms, shape)


def _unify(gap: list[int | None], own: Out) -> dict[int, int]:
    """Names that bring an index's own labels to those of the gap; fills the gap's open dims."""
    names: dict[int, int] = {}
    offset = len(gap) - len(own)
    for i, label in enumerate(own):
        if label is None:
            continue
        known = gap[offset + i]
        if known is None:
            gap[offset + i] = label
        else:
            names[label] = known
    return names


def pick(expression: Expression, value: Discrete) -> Expression:
    """expression[…, v] at v = value, the dims of the value aligned with the batch dims."""
    size = expression.shape[-1]
    if value.atoms:
        return (expression * value.one_hot(size)).sum(-1)
    shape = torch.broadcast_shapes(expression.shape[:-1], value.shape)
    terms = []
    for term in expression.terms:
        term = term.freshen().pad(len(shape) + 1)
        label = term.out[-1]
        if label is None:
            terms.append(Term(term.coefficient, term.factors, term.out[:-1]))
            continue
        data = value.term.pad(len(shape)).freshen()
        (table,) = data.constants()
        names = {
            old: new
            for old, new in zip(data.out, term.out[:-1], strict=True)
            if old is not None and new is not None
        }
        labels = tuple(names.get(label_, label_) for label_ in table.labels)
        out = tuple(x if x is not None else y for x, y in zip(term.out[:-1], data.out, strict=True))
        picked = substitute(term, label, table.tensor.long(), labels)
        terms.append(Term(picked.coefficient, picked.factors, out))
    return Expression(terms, shape)
