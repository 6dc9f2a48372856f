"""Products: positive quantities known by their logarithm, such as stick-breaking weights.

    π_k = v_k Π_{j<k} (1 - v_j)        log π_k = log v_k + Σ_{j<k} log(1 - v_j)

A product over an axis (``cumprod``) and an exponential are no finite sums of einsum terms, but their
logarithms are, and a Categorical needs no more of its probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Atom, Function, Gather, Unsupported
from vitools.calculus.algebra.atoms import Constant as ConstantFactor
from vitools.calculus.algebra.cases import as_table
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.functions import composed
from vitools.calculus.algebra.term import Term, contract_constants

POINTS = 3


class Product(Expression):
    """exp(L) for an expression L; ``origin`` is the operation that made it."""

    def __init__(self, log: Expression, origin: str):
        self._log = log
        self._predictor = None
        self.origin = origin
        self.shape = log.shape

    @property
    def terms(self) -> list[Term]:  # type: ignore[override]
        """exp(L) itself, of which L's parts that share no latent are factors."""
        try:
            return _exponential(self._log.folded(), self.origin).terms
        except Unsupported as error:
            raise Unsupported(
                f"the value of {self.origin}, of which only the logarithm has a closed form"
            ) from error

    def __repr__(self) -> str:
        return f"Product(shape={self.shape}, origin={self.origin!r})"

    def sites(self) -> set[str]:
        return self._log.sites()

    def log(self) -> Expression:
        return self._log

    def folded(self) -> Expression:
        return self

    def map_log(self, function: Callable[[Expression], Expression]) -> Expression:
        return Product(function(self._log), self.origin)

    # ---- arithmetic ----------------------------------------------------------------------

    def __mul__(self, other: object) -> Expression:
        other = Expression.constant(other)
        if _is_positive(other):
            return self.map_log(lambda log: log + other.log())
        try:
            return Expression(self.terms, self.shape) * other
        except Unsupported:
            if other.is_constant:
                raise
            return self.map_log(lambda log: log + other.log())  # a stick that is left, say

    __rmul__ = __mul__

    def power(self, exponent: float) -> Expression:
        return self.map_log(lambda log: log * exponent)

    def square(self) -> Expression:
        return self.power(2.0)

    # ---- shape -----------------------------------------------------------------------------

    def unsqueeze(self, dim: int) -> Expression:
        return self.map_log(lambda log: log.unsqueeze(dim))

    def squeeze(self, dim: int) -> Expression:
        return self.map_log(lambda log: log.squeeze(dim))

    def permute(self, order: Sequence[int]) -> Expression:
        return self.map_log(lambda log: log.permute(order))

    def expand(self, shape: Sequence[int]) -> Expression:
        return self.map_log(lambda log: log.expand(shape))

    def take(self, index: int | Tensor, dim: int) -> Expression:
        return self.map_log(lambda log: log.take(index, dim))

    def reshape(self, shape: Sequence[int]) -> Expression:
        return self.map_log(lambda log: log.reshape(shape))


def _is_positive(factor: Expression) -> bool:
    """Whether a factor that is a number, or one in every case, is none below zero."""
    if isinstance(factor, Product):
        return True
    if factor.is_constant:
        return bool((factor.value() >= 0).all())
    try:
        table = as_table(factor.terms)
    except Unsupported:
        return False
    return table is not None and bool((table.constants()[0].tensor > 0).all())


def _exponential(log: Expression, origin: str) -> Expression:
    """exp(L): Π exp(L_i) over the parts of L; each a function of one latent or of one predictor."""
    affine = [t for t in log.terms if all(a.function == 1.0 for a in t.atoms())]
    rest: dict[str, list[Term]] = {}
    for term in log.terms:
        if not any(term is other for other in affine):
            if any(a.function == "indicator" for a in term.atoms()) and len(term.atoms()) > 1:
                return log.function(partial(composed, "exp"), origin)
            if len(term.atoms()) > 1:
                raise Unsupported(f"{origin} of a product")
            rest.setdefault(term.atoms()[0].site, []).append(term)
    total = Expression.constant(1.0).expand(log.shape)
    for terms in (affine, *rest.values()):
        if terms:
            part = Expression(terms, log.shape)
            plain = Expression.constant(part.value().exp()) if part.is_constant else None
            total = total * (plain or part.function(partial(composed, "exp"), origin))
    return total


def product(log: Expression, origin: str) -> Expression:
    """exp(L), as a number where L is one."""
    if log.is_constant:
        return Expression.constant(log.value().exp())
    return Product(log, origin)


def adds_to_one(log: Expression, simplex_sites: frozenset[str]) -> bool:
    """Whether Σ_k exp(L_k) = 1 over the last dim whatever the latents are.

    Both sides are polynomials or exponentials of the latents: equal at random points, equal
    everywhere (Schwartz 1980, "Fast probabilistic algorithms for verification of polynomial
    identities").
    """
    sizes = _axis_sizes(log)
    if sizes is None:
        return False
    generator = torch.Generator().manual_seed(0)
    for _ in range(POINTS):
        values = {}
        for site, shape in sizes.items():
            value = 0.1 + 0.8 * torch.rand(shape, generator=generator, dtype=torch.float64)
            if site in simplex_sites:
                value = value / value.sum(-1, keepdim=True)
            values[site] = value
        if bool(((evaluate(log, values).exp().sum(-1) - 1).abs() > 1e-9).any()):
            return False
    return True


def _axis_sizes(expression: Expression) -> dict[str, list[int]] | None:
    """How long the axes of each site are, as far as they are read; None where it does not show."""
    found: dict[str, list[int]] = {}
    for term in expression.terms:
        sizes = _label_sizes(term, expression.shape)
        for atom in term.atoms():
            axes = found.setdefault(atom.site, [1] * len(atom.indices))
            for i, index in enumerate(atom.indices):
                if isinstance(index, Gather):
                    size = int(index.index.max()) + 1
                elif index in sizes:
                    size = sizes[index]
                else:
                    return None
                axes[i] = max(axes[i], size)
    return found


def _label_sizes(term: Term, shape: Sequence[int]) -> dict[int, int]:
    sizes = {label: n for label, n in zip(term.out, shape, strict=True) if label is not None}
    for constant in term.constants():
        sizes.update(zip(constant.labels, constant.tensor.shape, strict=True))
    for atom in term.atoms():
        for index in atom.indices:
            if isinstance(index, Gather):
                sizes.update(zip(index.labels, index.index.shape, strict=True))
    return sizes


def evaluate(expression: Expression, values: dict[str, Tensor]) -> Tensor:
    """The expression's value where the latents have the given values."""
    terms = []
    for term in expression.terms:
        sizes = _label_sizes(term, expression.shape)
        factors = [
            _statistic(factor, values[factor.site], sizes) if isinstance(factor, Atom) else factor
            for factor in term.factors
        ]
        labels = [label for label in term.out if label is not None]
        value = contract_constants(factors, labels) * term.coefficient
        view = [sizes[label] if label is not None else 1 for label in term.out]
        terms.append(value.reshape(view).expand(expression.shape))
    return torch.stack(terms).sum(0)


def _statistic(atom: Atom, value: Tensor, sizes: dict[int, int]) -> ConstantFactor:
    labels = list(dict.fromkeys(atom.labels))
    where = []
    for index in atom.indices:
        own = index.labels if isinstance(index, Gather) else (index,)
        position = index.index if isinstance(index, Gather) else torch.arange(sizes[index])
        order = sorted(range(len(own)), key=lambda i: labels.index(own[i]))
        view = [sizes[x] if x in own else 1 for x in labels]
        where.append(position.permute(order).reshape(view))
    picked = value[tuple(where)].expand([sizes[x] for x in labels])
    if atom.function == "log":
        picked = picked.log()
    elif atom.function == "log1m":
        picked = torch.log1p(-picked)
    elif isinstance(atom.function, str):
        raise Unsupported(f"{atom.function} inside a product")
    elif isinstance(atom.function, Function):
        raise Unsupported(f"{atom.function.said_of(atom.site)} inside a product")
    else:
        picked = picked**atom.function
    return ConstantFactor(picked, tuple(labels))
