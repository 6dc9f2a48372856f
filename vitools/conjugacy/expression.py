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
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vitools.conjugacy.cases import (
    case_signature,
    cases_cover,
    log_of_case,
    log_of_monomial,
    power_of_case,
    without_inner_sums,
)
from vitools.conjugacy.term import (
    LOG_ZERO,
    Atom,
    Constant,
    Gather,
    Out,
    Term,
    Unsupported,
    contract_constants,
    drop_unused_out,
    fresh,
    is_selector,
    multiply_terms,
    simplify,
    substitute,
    take_positions,
    varies_along,
    without_ones,
)


class Expression:
    """A tensor of the given shape that is a sum of terms."""

    def __init__(self, terms: Sequence[Term], shape: Sequence[int]):
        self.terms = list(terms)
        self.shape = tuple(shape)

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
        tensor = tensor.detach().to(torch.float64)
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
        if tensor.dim() == 0 and not selects:
            return Expression([Term(float(tensor), (), tuple(out))], shape)
        labels = tuple(label for label in out if label is not None)
        return Expression([Term(1.0, (Constant(tensor, labels, selects),), tuple(out))], shape)

    @staticmethod
    def latent(site: str, shape: Sequence[int], function: float | str = 1.0) -> Expression:
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
        return {atom.site for term in self.terms for atom in term.atoms()}

    @property
    def is_constant(self) -> bool:
        return not self.sites()

    def value(self) -> Tensor:
        """The tensor itself, of an expression without latents."""
        total = torch.zeros(self.shape, dtype=torch.float64)
        for term in self.terms:
            labels = [label for label in term.out if label is not None]
            part = contract_constants(term.constants(), labels) * term.coefficient
            view = [
                1 if label is None else n for label, n in zip(term.out, self.shape, strict=True)
            ]
            total = total + part.reshape(view)
        return total

    def folded(self) -> Expression:
        """The same expression with its constant terms added up into one."""
        plain = [t for t in self.terms if not t.atoms() and not any(map(is_selector, t.factors))]
        if len(plain) < 2:
            return self
        rest = [term for term in self.terms if term not in plain]
        value = Expression.constant(Expression(plain, self.shape).value())
        return Expression([t for t in (*value.terms, *rest) if t.coefficient], self.shape)

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
        products = (simplify(multiply_terms(a, b)) for a in left for b in right)
        return Expression([t for t in products if t is not None and t.coefficient], shape)

    def square(self) -> Expression:
        """Σ_i t_i² + 2 Σ_{i<j} t_i t_j."""
        terms = []
        for i, a in enumerate(self.terms):
            for j, b in enumerate(self.terms[i:], start=i):
                product = simplify(multiply_terms(a, b))
                if product is not None:
                    weight = 1.0 if i == j else 2.0
                    terms.append(Term(product.coefficient * weight, product.factors, product.out))
        return Expression(terms, self.shape)

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
            return self._by_cases(lambda term: power_of_case(term, exponent), f"power {exponent:g}")
        except Unsupported:
            if exponent == 2:
                return self.square()
            if exponent in (3, 4):
                return self.square() * self.power(exponent - 2)
            raise

    def log(self) -> Expression:
        if self.is_constant:
            return Expression.constant(self.value().log().clamp(min=LOG_ZERO))
        folded = self.folded()
        complement = folded._log_complement()
        if complement is not None:
            return complement
        try:
            return folded._by_cases(log_of_monomial, "logarithm")
        except Unsupported:
            if not any(is_selector(f) for term in self.terms for f in term.factors):
                raise
            return folded._log_by_groups()

    def _by_cases(self, function: Callable[[Term], list[Term]], what: str) -> Expression:
        """Apply a function to each case; refuse when the terms are not cases of one another."""
        expression = self.folded()
        if not cases_cover(expression.terms):
            raise Unsupported(f"{what} of a sum")
        terms = [
            new for term in expression.terms for new in function(without_inner_sums(term, what))
        ]
        return Expression(terms, self.shape)

    def _log_complement(self) -> Expression | None:
        """log(1 - Σ_k s_k x_k) = Σ_k s_k log(1 - x_k) for exclusive selectors s_k; else None."""
        constant = [term for term in self.terms if not term.atoms()]
        rest = [term for term in self.terms if term.atoms()]
        if not constant or not bool((Expression(constant, self.shape).value() == 1).all()):
            return None
        if any(term.coefficient != -1 or len(term.split()[1]) != 1 for term in rest):
            return None
        terms = []
        for term in rest:
            selectors, (value,) = term.split()
            if not isinstance(value, Atom) or value.function != 1.0:
                return None
            new = Atom(value.site, "log1m", value.indices)
            terms.append(Term(1.0, (*selectors, new), term.out))
        if len(rest) > 1 and not cases_cover(rest):
            return None
        return Expression(terms, self.shape)

    def _log_by_groups(self) -> Expression:
        """The logarithm where several terms share a case: log Σ_i s_i (c_i + x_i), s_i exclusive.

        Terms without selectors belong to every case. Each case must then be a number, a monomial,
        or one minus a latent.
        """
        plain: list[Term] = []
        groups: dict[object, list[Term]] = {}
        for term in self.terms:
            signature = case_signature(term)
            (groups.setdefault(signature, []) if signature else plain).append(term)
        cases = [
            drop_unused_out(Term(1.0, tuple(g[0].split()[0]), g[0].out)) for g in groups.values()
        ]
        if not cases_cover(cases):
            raise Unsupported("logarithm of a sum")
        terms: list[Term] = []
        for case, group in zip(cases, groups.values(), strict=True):
            terms += log_of_case(case, [*group, *(multiply_terms(p, case) for p in plain)])
        return Expression(terms, self.shape)

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
        terms = [take_positions(term, dim, position) for term in self.terms]
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
        terms = []
        for term in self.terms:
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
            terms.append(Term(term.coefficient, term.factors, out))
        return Expression(terms, shape)
