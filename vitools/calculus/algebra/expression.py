"""Expressions: tensors that are sums of einsum terms over statistics of the latent sites.

Four notions carry the calculus.

* :class:`Atom`: a statistic of one latent site (``x**p``, ``log x``, ``log(1-x)``, the indicator
  ``1[z = k]``), with an index for each axis of the site: a label, or a :class:`Gather` that reads
  the axis at positions given by integer data.
* :class:`Constant`: a tensor of data or hyperparameters, with a label for each axis.
* :class:`Term`: coefficient × product of atoms and constants. ``out`` names the label that stands
  at each output dim (``None``: the term does not vary along it); all other labels are summed.
* :class:`Expression`: a shape and a sum of terms.

A factor is a *selector* when it is an indicator or a 0/1 constant that picks cases (indexing by a
discrete latent, ``where``, ``stack``). Exactly one case holds at a time, so a logarithm or a power
goes past selectors: log Σ_k 1[z=k] f_k = Σ_k 1[z=k] log f_k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import (
    LOG_ZERO,
    NO_VALUE,
    Atom,
    Constant,
    Function,
    Gather,
    Predictor,
    Unsupported,
    fresh,
    is_open,
)
from vitools.calculus.algebra.cases import (
    as_table,
    by_cases,
    cancelling_table,
    is_table,
    mapped,
    power_of_case,
)
from vitools.calculus.algebra.elementwise import Change, changed
from vitools.calculus.algebra.functions import ELEMENTWISE, as_function, composed, to_power
from vitools.calculus.algebra.given_cases import given_cases
from vitools.calculus.algebra.logarithm import LOG_SUM, is_sum_of_monomials, log_terms
from vitools.calculus.algebra.positions import read_together, take_positions, without_ones
from vitools.calculus.algebra.term import (
    Out,
    Term,
    constant_value,
    is_selector,
    multiplied_out,
    squared,
)


class Expression:
    """A tensor of the given shape that is a sum of terms."""

    def __init__(self, terms: Sequence[Term], shape: Sequence[int]):
        self.terms = list(terms)
        self.shape = tuple(shape)
        self._predictor: Predictor | None = None

    def __repr__(self) -> str:
        return f"Expression(shape={self.shape}, terms={len(self.terms)})"

    # ---- building ----------------------------------------------------------------------

    @staticmethod
    def constant(value: object, *, selects: bool = False) -> Expression:
        """Data or a hyperparameter. Dims of size one and expanded dims carry no label."""
        if isinstance(value, Expression):
            return value
        if isinstance(value, int | float):
            return Expression([Term(float(value), (), ())], ())
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(value)
        if tensor.is_meta:
            raise Unsupported(NO_VALUE)
        movable = torch.is_grad_enabled() and is_open(tensor)
        tensor = (tensor if movable else tensor.detach()).to(torch.float64)
        shape = tuple(tensor.shape)
        out: list[int | None] = []
        for dim, (size, stride) in enumerate(zip(shape, tensor.stride(), strict=True)):
            varies = size > 1 and stride != 0
            out.append(fresh() if varies else None)
            if size > 1 and not varies:
                tensor = tensor.narrow(dim, 0, 1)
        if any(size == 0 for size in shape):
            return Expression([], shape)
        tensor = tensor.reshape(
            [s for s, label in zip(shape, out, strict=True) if label is not None]
        )
        if tensor.dim() == 0 and not selects and not movable:
            return Expression([Term(float(tensor), (), tuple(out))], shape)
        labels = tuple(label for label in out if label is not None)
        return Expression([Term(1.0, (Constant(tensor, labels, selects),), tuple(out))], shape)

    @staticmethod
    def latent(
        site: str, shape: Sequence[int], function: float | str | Function = 1.0
    ) -> Expression:
        """A latent site. An axis of size one is read at its only position, so it can broadcast."""
        only = torch.zeros((), dtype=torch.long)
        out: Out = tuple(fresh() if size > 1 else None for size in shape)
        indices = tuple(Gather(only, ()) if label is None else label for label in out)
        return Expression([Term(1.0, (Atom(site, function, indices),), out)], shape)

    # ---- questions ---------------------------------------------------------------------

    @property
    def dim(self) -> int:
        return len(self.shape)

    def sites(self) -> set[str]:
        """The latents; of a function of a predictor, those below it."""
        found: set[str] = set()
        for term in self.terms:
            for atom in term.atoms():
                is_made = isinstance(atom.site, Predictor)
                found |= atom.site.expression.sites() if is_made else {atom.site}  # type: ignore[attr-defined]
        return found

    @property
    def is_affine(self) -> bool:
        """Whether it is data plus data times latents."""
        atoms = [term.atoms() for term in self.terms]
        return any(atoms) and all(
            len(found) < 2 and all(atom.function == 1.0 for atom in found) for found in atoms
        )

    @property
    def predictor(self) -> Predictor:
        """The expression as a quantity of its own, of which functions are statistics."""
        if self._predictor is None:
            self._predictor = Predictor.of(self)
        return self._predictor

    @property
    def is_constant(self) -> bool:
        return not self.sites()

    def value(self) -> Tensor:
        """The tensor itself, of an expression without latents."""
        return constant_value(self.terms, self.shape)

    def folded(self) -> Expression:
        """The same expression with its constant terms added up into one."""
        plain = [t for t in self.terms if not t.atoms() and not any(map(is_selector, t.factors))]
        if len(plain) < 2:
            return self
        rest = [term for term in self.terms if term not in plain]
        varies = [any(term.out[dim] is not None for term in plain) for dim in range(self.dim)]
        shape = [n if v else 1 for n, v in zip(self.shape, varies, strict=True)]
        value = Expression.constant(constant_value(plain, shape).expand(self.shape))
        return Expression([t for t in (*value.terms, *rest) if t.coefficient], self.shape)

    def folded_to_be_squared(self) -> Expression:
        """:meth:`folded`; where constants nearly cancel in each case of discrete latents, by cases."""
        plain = [t for t in self.terms if not t.atoms() and not any(map(is_selector, t.factors))]
        table = cancelling_table(self.terms, plain) if plain else None
        if table is None:
            return self.folded()
        rest = [t for t in self.terms if t not in plain and not is_table(t)]
        return Expression([table, *rest], self.shape)

    # ---- arithmetic --------------------------------------------------------------------

    def __add__(self, other: object) -> Expression:
        other = Expression.constant(other)
        shape = torch.broadcast_shapes(self.shape, other.shape)
        padded = [term.pad(len(shape)) for term in (*self.terms, *other.terms)]
        return Expression([t for t in padded if t.coefficient or t.factors], shape)

    def __mul__(self, other: object) -> Expression:
        if isinstance(other, int | float):
            scaled = [Term(t.coefficient * other, t.factors, t.out) for t in self.terms]
            return Expression(scaled, self.shape)
        other = Expression.constant(other)
        shape = torch.broadcast_shapes(self.shape, other.shape)
        left = [term.pad(len(shape)) for term in self.terms]
        right = [term.pad(len(shape)) for term in other.terms]
        return Expression(multiplied_out(left, right), shape)

    def square(self) -> Expression:
        """Σ_i t_i² + 2 Σ_{i<j} t_i t_j."""
        return Expression(squared(self.terms), self.shape)

    def __neg__(self) -> Expression:
        return self * -1.0

    def __sub__(self, other: object) -> Expression:
        return self + Expression.constant(other) * -1.0

    def __truediv__(self, other: object) -> Expression:
        return self * Expression.constant(other).power(-1.0)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: object) -> Expression:
        return Expression.constant(other) - self

    def __rtruediv__(self, other: object) -> Expression:
        return Expression.constant(other) / self

    # ---- logarithm and powers ----------------------------------------------------------

    def power(self, exponent: float) -> Expression:
        if exponent == 1:
            return self
        if self.is_constant:
            return Expression.constant(self.value() ** exponent)
        try:
            terms = by_cases(
                self.folded().terms, lambda t: power_of_case(t, exponent), f"power {exponent:g}"
            )
            return Expression(terms, self.shape)
        except Unsupported:
            table = as_table(self.folded().terms)
            if table is not None:
                return Expression([mapped(table, lambda t: t**exponent)], self.shape)
            if exponent == 2:
                return self.square()
            if exponent in (3, 4):
                return self.square() * self.power(exponent - 2)
            return self.function(lambda f: to_power(f, exponent), f"power {exponent:g}")

    def function(self, change: Change, what: str) -> Expression:
        """change(self), of a function of one element of one latent, or of a table of cases."""
        terms = self.folded().terms
        table = as_table(terms)
        if table is None:
            try:
                return Expression(changed(terms, change, what), self.shape)
            except Unsupported:
                known = given_cases(terms, self.shape, change, _as_predictor)
                if known is not None:
                    return Expression([known], self.shape)
                if not self.is_affine:
                    raise
                return Expression.latent(self.predictor, self.shape, change(1.0))
        return Expression([mapped(table, as_function(change(1.0)).evaluate)], self.shape)

    def elementwise(self, name: str) -> Expression:
        """One of :data:`~vitools.calculus.algebra.functions.ELEMENTWISE` of each element."""
        if self.is_constant:
            return Expression.constant(ELEMENTWISE[name][0](self.value()))
        return self.function(lambda f: composed(name, f), name)

    def log(self) -> Expression:
        if self.is_constant:
            return Expression.constant(self.value().log().clamp(min=LOG_ZERO))
        try:
            return Expression(log_terms(self.folded().terms, self.shape), self.shape)
        except Unsupported:
            change: Change = partial(composed, "log")
            known = given_cases(self.folded().terms, self.shape, change, _as_predictor)
            if known is not None:
                return Expression([known], self.shape)
            if not is_sum_of_monomials(self.folded().terms):
                raise
            return LogOfSum(self.folded())

    def log_sum_exp(self) -> Expression:
        """log Σ exp over the last dim, of a predictor: a statistic of all its elements."""
        if not self.is_affine:
            raise Unsupported("log Σ exp of what is no predictor of Gaussian latents")
        name = Predictor.of(self, is_vector=True)
        return Expression.latent(name, self.shape[:-1], "log_sum_exp")

    # ---- shape -------------------------------------------------------------------------

    def sum(self, dim: int) -> Expression:
        dim %= self.dim
        size = self.shape[dim]
        terms = [
            Term(
                t.coefficient * (size if t.out[dim] is None else 1),
                t.factors,
                t.out[:dim] + t.out[dim + 1 :],
            )
            for t in self.terms
        ]
        return Expression(terms, self.shape[:dim] + self.shape[dim + 1 :])

    def sum_right(self, count: int) -> Expression:
        result = self
        for _ in range(count):
            result = result.sum(-1)
        return result

    def unsqueeze(self, dim: int) -> Expression:
        dim %= self.dim + 1
        terms = [
            Term(t.coefficient, t.factors, (*t.out[:dim], None, *t.out[dim:])) for t in self.terms
        ]
        return Expression(terms, (*self.shape[:dim], 1, *self.shape[dim:]))

    def squeeze(self, dim: int) -> Expression:
        dim %= self.dim
        if self.shape[dim] != 1:
            return self
        return self.take(0, dim)

    def permute(self, order: Sequence[int]) -> Expression:
        order = [i % self.dim for i in order]
        terms = [Term(t.coefficient, t.factors, tuple(t.out[i] for i in order)) for t in self.terms]
        return Expression(terms, [self.shape[i] for i in order])

    def expand(self, shape: Sequence[int]) -> Expression:
        """Broadcast to a shape; a labelled dim of size one keeps its only element."""
        result = self
        missing = len(shape) - self.dim
        for dim, size in enumerate(self.shape):
            if size == 1 and shape[dim + missing] != 1:
                result = result.take(0, dim).unsqueeze(dim)
        return Expression([term.pad(len(shape)) for term in result.terms], shape)

    def take(self, index: int | Tensor, dim: int) -> Expression:
        """Read one dim at integer positions (data); the dims of ``index`` take its place."""
        dim %= self.dim
        size = self.shape[dim]
        position = torch.as_tensor(index)
        position = torch.where(position < 0, position + size, position)
        shape = (*self.shape[:dim], *position.shape, *self.shape[dim + 1 :])
        terms = [take_positions(term, dim, position, size) for term in self.terms]
        return Expression(terms, shape)

    def reshape(self, shape: Sequence[int]) -> Expression:
        """Any reshape: each old dim is read at the position that a new element comes from."""
        old, new = without_ones(self.shape), without_ones(shape)
        if old == new:
            kept = self
            for dim in reversed([d for d, s in enumerate(self.shape) if s == 1]):
                kept = kept.take(0, dim)
            for dim, size in enumerate(shape):
                if size == 1:
                    kept = kept.unsqueeze(dim)
            return kept
        flat = torch.arange(math.prod(shape)).reshape(tuple(shape))
        positions = []
        for dim in range(self.dim):
            below = math.prod(self.shape[dim + 1 :])
            positions.append(flat.div(below, rounding_mode="floor") % self.shape[dim])
        return self.take_together(positions, shape)

    def take_together(self, positions: Sequence[Tensor], shape: Sequence[int]) -> Expression:
        """Read every dim at once: result[m] = self[positions[0][m], positions[1][m], …]."""
        return Expression([read_together(t, positions, shape) for t in self.terms], shape)


def _as_predictor(terms: Sequence[Term], shape: Sequence[int]) -> Predictor:
    return Expression(terms, shape).predictor


class LogOfSum(Expression):
    """log of a sum of positive products, of which the terms hold one statistic.

    Of the elements only those are computed that are read in the end, so shapes change inside it.
    """

    def __init__(self, inside: Expression):
        self.inside, self.shape = inside, inside.shape
        self._predictor = None

    @property
    def terms(self) -> list[Term]:  # type: ignore[override]
        if self._predictor is None:
            self._predictor = Predictor.of(self.inside, is_sum=True)
        return Expression.latent(self._predictor, self.shape, LOG_SUM).terms

    def folded(self) -> Expression:
        return self

    def sites(self) -> set[str]:
        return self.inside.sites()

    def unsqueeze(self, dim: int) -> Expression:
        return LogOfSum(self.inside.unsqueeze(dim))

    def squeeze(self, dim: int) -> Expression:
        return LogOfSum(self.inside.squeeze(dim))

    def permute(self, order: Sequence[int]) -> Expression:
        return LogOfSum(self.inside.permute(order))

    def expand(self, shape: Sequence[int]) -> Expression:
        return self if tuple(shape) == self.shape else LogOfSum(self.inside.expand(shape))

    def take(self, index: int | Tensor, dim: int) -> Expression:
        return LogOfSum(self.inside.take(index, dim))

    def reshape(self, shape: Sequence[int]) -> Expression:
        return LogOfSum(self.inside.reshape(shape))
