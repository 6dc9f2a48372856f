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

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_counter = itertools.count()

# log 0 of a constant probability: a finite stand-in, so that 0 · log 0 is 0 and not nan.
LOG_ZERO = -1e300


def fresh() -> int:
    """A label that no other axis carries."""
    return next(_counter)


class Unsupported(Exception):
    """An operation has no rule in the calculus; the text says which and why."""


@dataclass(frozen=True, eq=False)
class Gather:
    """An axis read at the positions ``index`` (integers), whose own axes carry ``labels``."""

    index: Tensor
    labels: tuple[int, ...]

    def rename(self, names: dict[int, int]) -> Gather:
        return Gather(self.index, tuple(names.get(label, label) for label in self.labels))

    def same(self, other: Gather) -> bool:
        if self.labels != other.labels:
            return False
        return self.index is other.index or torch.equal(self.index, other.index)


Index = int | Gather


def same_index(a: Index, b: Index) -> bool:
    if isinstance(a, Gather) and isinstance(b, Gather):
        return a.same(b)
    return not isinstance(a, Gather) and not isinstance(b, Gather) and a == b


@dataclass(frozen=True, eq=False)
class Constant:
    tensor: Tensor
    labels: tuple[int, ...]
    selects: bool = False

    def rename(self, names: dict[int, int]) -> Constant:
        labels = tuple(names.get(label, label) for label in self.labels)
        return Constant(self.tensor, labels, self.selects)


@dataclass(frozen=True, eq=False)
class Atom:
    """``function`` is a power (a float) or 'log', 'log1m', 'indicator', 'log_determinant'.

    The last index of an indicator is the label of its support.
    """

    site: str
    function: float | str
    indices: tuple[Index, ...]

    @property
    def labels(self) -> tuple[int, ...]:
        found: list[int] = []
        for index in self.indices:
            found.extend(index.labels if isinstance(index, Gather) else (index,))
        return tuple(found)

    def rename(self, names: dict[int, int]) -> Atom:
        indices = tuple(
            i.rename(names) if isinstance(i, Gather) else names.get(i, i) for i in self.indices
        )
        return Atom(self.site, self.function, indices)

    def same_place(self, other: Atom) -> bool:
        return (
            self.site == other.site
            and len(self.indices) == len(other.indices)
            and all(same_index(a, b) for a, b in zip(self.indices, other.indices, strict=True))
        )


Factor = Atom | Constant
Out = tuple[int | None, ...]


def is_selector(factor: Factor) -> bool:
    if isinstance(factor, Atom):
        return factor.function == "indicator"
    return factor.selects


@dataclass(frozen=True, eq=False)
class Term:
    coefficient: float
    factors: tuple[Factor, ...]
    out: Out

    def labels(self) -> set[int]:
        inside = {label for factor in self.factors for label in factor.labels}
        return inside | {label for label in self.out if label is not None}

    def rename(self, names: dict[int, int]) -> Term:
        out = tuple(None if label is None else names.get(label, label) for label in self.out)
        return Term(self.coefficient, tuple(f.rename(names) for f in self.factors), out)

    def freshen(self) -> Term:
        return self.rename({label: fresh() for label in self.labels()})

    def atoms(self) -> list[Atom]:
        return [f for f in self.factors if isinstance(f, Atom)]

    def constants(self) -> list[Constant]:
        return [f for f in self.factors if isinstance(f, Constant)]

    def pad(self, rank: int) -> Term:
        missing = rank - len(self.out)
        return Term(self.coefficient, self.factors, (None,) * missing + self.out)

    def split(self) -> tuple[list[Factor], list[Factor]]:
        """Selectors and the factors that carry values."""
        selectors = [f for f in self.factors if is_selector(f)]
        return selectors, [f for f in self.factors if not is_selector(f)]


def _merge_indicators(term: Term) -> Term:
    """1[z=k]·1[z=j] = δ_kj·1[z=k]."""
    seen: list[Atom] = []
    for atom in term.atoms():
        if atom.function != "indicator":
            continue
        place = Atom(atom.site, 0.0, atom.indices[:-1])
        for other in seen:
            if not place.same_place(Atom(other.site, 0.0, other.indices[:-1])):
                continue
            factors = tuple(f for f in term.factors if f is not atom)
            mine, theirs = atom.indices[-1], other.indices[-1]
            if same_index(mine, theirs):
                return _merge_indicators(Term(term.coefficient, factors, term.out))
            if isinstance(mine, Gather) or isinstance(theirs, Gather):
                raise Unsupported("a one-hot latent read twice at different positions")
            if mine in term.out and theirs in term.out:
                continue
            old, new = (theirs, mine) if mine in term.out else (mine, theirs)
            return _merge_indicators(Term(term.coefficient, factors, term.out).rename({old: new}))
        seen.append(atom)
    return term


def _merge_powers(term: Term) -> Term:
    """x^p·x^q = x^(p+q) at the same place."""
    groups: list[list[Atom]] = []
    rest: list[Factor] = []
    for factor in term.factors:
        if not isinstance(factor, Atom) or isinstance(factor.function, str):
            rest.append(factor)
            continue
        for group in groups:
            if group[0].same_place(factor):
                group.append(factor)
                break
        else:
            groups.append([factor])
    if all(len(group) == 1 for group in groups):
        return term
    for group in groups:
        power = sum(float(atom.function) for atom in group)
        if power:
            rest.append(Atom(group[0].site, power, group[0].indices))
        elif any(label not in term.out for label in group[0].labels):
            raise Unsupported("a latent divided by itself inside a sum")
    return _drop_unused_out(Term(term.coefficient, tuple(rest), term.out))


def _merge_selecting_constants(term: Term) -> Term | None:
    """Multiply 0/1 constants over the same labels; None when no case can hold."""
    groups: dict[frozenset[int], Constant] = {}
    rest: list[Factor] = []
    for factor in term.factors:
        if not isinstance(factor, Constant) or not factor.selects:
            rest.append(factor)
            continue
        key = frozenset(factor.labels)
        if key not in groups:
            groups[key] = factor
            continue
        kept = groups[key]
        order = [factor.labels.index(label) for label in kept.labels]
        product = kept.tensor.double() * factor.tensor.double().permute(order)
        groups[key] = Constant(product, kept.labels, True)
    if any(not bool(c.tensor.any()) for c in groups.values()):
        return None
    return Term(term.coefficient, (*rest, *groups.values()), term.out)


def multiply_terms(a: Term, b: Term) -> Term:
    """The product of two terms whose out tuples have the same length, labels unified."""
    a, b = a.freshen(), b.freshen()
    names = {y: x for x, y in zip(a.out, b.out, strict=True) if x is not None and y is not None}
    b = b.rename(names)
    out = tuple(x if x is not None else y for x, y in zip(a.out, b.out, strict=True))
    return Term(a.coefficient * b.coefficient, a.factors + b.factors, out)


def simplify(term: Term) -> Term | None:
    if len(term.factors) < 2:
        return term
    term = _merge_powers(_merge_indicators(term))
    if any(len(set(c.labels)) < len(c.labels) for c in term.constants()):
        term = Term(term.coefficient, tuple(_diagonal(f) for f in term.factors), term.out)
    if sum(isinstance(f, Constant) and f.selects for f in term.factors) > 1:
        return _merge_selecting_constants(term)
    return term


def _diagonal(factor: Factor) -> Factor:
    """A constant read at equal positions along two axes keeps one of them."""
    if isinstance(factor, Atom):
        return factor
    labels = tuple(dict.fromkeys(factor.labels))
    ids = [labels.index(label) for label in factor.labels]
    return Constant(
        torch.einsum(factor.tensor, ids, list(range(len(labels)))), labels, factor.selects
    )


def _einsum(constants: Sequence[Constant], labels: Sequence[int]) -> Tensor:
    """Contract constants to the given labels (in that order)."""
    number: dict[int, int] = {}
    arguments: list[object] = []
    for constant in constants:
        ids = [number.setdefault(label, len(number)) for label in constant.labels]
        arguments += [constant.tensor.double(), ids]
    if not arguments:
        return torch.ones((), dtype=torch.float64)
    return torch.einsum(*arguments, [number[label] for label in labels])


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
            part = _einsum(term.constants(), labels) * term.coefficient
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
            return self._by_cases(lambda term: _term_power(term, exponent), f"power {exponent:g}")
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
            return folded._by_cases(_term_log, "logarithm")
        except Unsupported:
            if not any(is_selector(f) for term in self.terms for f in term.factors):
                raise
            return folded._log_by_groups()

    def _by_cases(self, function: Callable[[Term], list[Term]], what: str) -> Expression:
        """Apply a function to each case; refuse when the terms are not cases of one another."""
        expression = self.folded()
        if not cases_cover(expression):
            raise Unsupported(f"{what} of a sum")
        terms = [new for term in expression.terms for new in function(_certain(term, what))]
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
        if len(rest) > 1 and not cases_cover(Expression(rest, self.shape)):
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
            signature = _case_signature(term)
            (groups.setdefault(signature, []) if signature else plain).append(term)
        cases = [
            _drop_unused_out(Term(1.0, tuple(g[0].split()[0]), g[0].out)) for g in groups.values()
        ]
        if not cases_cover(Expression(cases, self.shape)):
            raise Unsupported("logarithm of a sum")
        terms: list[Term] = []
        for case, group in zip(cases, groups.values(), strict=True):
            terms += _log_of_case(case, [*group, *(multiply_terms(p, case) for p in plain)])
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
        terms = [_take(term, dim, position) for term in self.terms]
        return Expression(terms, shape)

    def reshape(self, shape: Sequence[int]) -> Expression:
        """Any reshape: each old dim is read at the position that a new element comes from."""
        old, new = _strip(self.shape), _strip(shape)
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
                keep = [i for i in varying if _varies(position, i)]
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


def _varies(tensor: Tensor, dim: int) -> bool:
    return bool((tensor != tensor.narrow(dim, 0, 1)).any())


def _strip(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


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
            indices: list[Index] = []
            for place in factor.indices:
                if isinstance(place, Gather):
                    indices.append(
                        Gather(*read(place.index, place.labels)) if label in place.labels else place
                    )
                else:
                    indices.append(Gather(index, labels) if place == label else place)
            factors.append(Atom(factor.site, factor.function, tuple(indices)))
    return Term(term.coefficient, tuple(factors), term.out)


def _take(term: Term, dim: int, position: Tensor) -> Term:
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


def _certain(term: Term, what: str) -> Term:
    """A case must not contain a sum of its own: its values may vary only with out and selectors."""
    selectors, values = term.split()
    allowed = {label for label in term.out if label is not None}
    allowed |= {label for selector in selectors for label in selector.labels}
    if any(label not in allowed for value in values for label in value.labels):
        raise Unsupported(f"{what} of a sum")
    return term


def cases_cover(expression: Expression) -> bool:
    """True when exactly one term's selectors hold, whatever the discrete latents are."""
    terms = expression.terms
    plain = [not any(is_selector(f) for f in term.factors) for term in terms]
    if len(terms) == 1 and plain[0]:
        return True
    if any(plain):
        return False
    # Bring all terms to common labels: out dims by position, indicators by site and place.
    rank = expression.dim
    common = [fresh() for _ in range(rank)]
    places: list[Atom] = []
    sizes: dict[int, int] = {}
    parts: list[tuple[list[Constant], set[int]]] = []
    for term in terms:
        term = term.freshen()
        names = {label: common[i] for i, label in enumerate(term.out) if label is not None}
        term = term.rename(names)
        supports: set[int] = set()
        for atom in term.atoms():
            if atom.function != "indicator":
                continue
            support = atom.indices[-1]
            if isinstance(support, Gather) or support in term.out:
                return False
            place = Atom(atom.site, 0.0, atom.indices[:-1])
            for known in places:
                if place.same_place(Atom(known.site, 0.0, known.indices[:-1])):
                    target = known.indices[-1]
                    assert isinstance(target, int)
                    term = term.rename({support: target})
                    supports.add(target)
                    break
            else:
                places.append(atom)
                supports.add(support)
        constants = [c for c in term.constants() if c.selects]
        parts.append((constants, supports))
        for constant in constants:
            sizes.update(zip(constant.labels, constant.tensor.shape, strict=True))
    support_labels = {label for _, supports in parts for label in supports}
    kept = [label for label in sizes if label in support_labels or label in common]
    total = torch.zeros([sizes[label] for label in kept], dtype=torch.float64)
    for constants, _ in parts:
        present = {label for constant in constants for label in constant.labels}
        labels = [label for label in kept if label in present]
        value = _einsum(constants, labels)
        view = [sizes[label] if label in present else 1 for label in kept]
        total = total + value.reshape(view)
    return bool((total == 1).all())


def _term_power(term: Term, exponent: float) -> list[Term]:
    selectors, values = term.split()
    if term.coefficient < 0 and exponent != int(exponent):
        raise Unsupported(f"power {exponent:g} of a negative quantity")
    powers: list[Factor] = []
    for value in values:
        if isinstance(value, Constant):
            powers.append(Constant(value.tensor**exponent, value.labels))
        elif isinstance(value.function, str):
            raise Unsupported(f"power {exponent:g} of a logarithm")
        elif exponent != int(exponent) and value.function % 2 == 0:
            # (x²)^½ is |x|, not x.
            raise Unsupported(f"power {exponent:g} of {value.site}^{value.function:g}")
        else:
            powers.append(Atom(value.site, value.function * exponent, value.indices))
    return [Term(term.coefficient**exponent, (*selectors, *powers), term.out)]


def _term_log(term: Term) -> list[Term]:
    selectors, values = term.split()
    if term.coefficient <= 0:
        raise Unsupported("logarithm of a negative quantity")
    logs: list[Term] = []
    if term.coefficient != 1:
        logs.append(Term(math.log(term.coefficient), tuple(selectors), term.out))
    for value in values:
        if isinstance(value, Constant):
            log: Factor = Constant(value.tensor.log().clamp(min=LOG_ZERO), value.labels)
            logs.append(Term(1.0, (*selectors, log), term.out))
        elif isinstance(value.function, str):
            raise Unsupported("logarithm of a logarithm")
        else:
            atom = Atom(value.site, "log", value.indices)
            logs.append(Term(value.function, (*selectors, atom), term.out))
    return [_drop_unused_out(log_term) for log_term in logs]


def _drop_unused_out(term: Term) -> Term:
    used = {label for factor in term.factors for label in factor.labels}
    return Term(term.coefficient, term.factors, tuple(o if o in used else None for o in term.out))


def _case_signature(term: Term) -> tuple[object, ...]:
    """What tells one term's selectors from another's, whatever their labels; () without any."""
    roles: dict[int, object] = {
        label: ("out", i) for i, label in enumerate(term.out) if label is not None
    }
    for atom in term.atoms():
        if atom.function == "indicator" and isinstance(atom.indices[-1], int):
            roles.setdefault(atom.indices[-1], ("support", atom.site))
    parts: list[object] = []
    for factor in term.split()[0]:
        places = tuple(roles.get(label, ("inner", label)) for label in factor.labels)
        if isinstance(factor, Atom):
            parts.append((factor.site, str(places)))
        else:
            parts.append((str(factor.tensor.double().tolist()), str(places)))
    return tuple(sorted(parts, key=str))


def _log_of_case(case: Term, terms: Sequence[Term]) -> list[Term]:
    number = 0.0
    others: list[Term] = []
    for term in terms:
        if term.split()[1]:
            others.append(term)
        else:
            number += term.coefficient
    if not others and number > 0:
        return [Term(math.log(number), case.factors, case.out)]
    if len(others) == 1 and number == 0:
        return _term_log(_certain(others[0], "logarithm"))
    if len(others) == 1 and number == 1 and others[0].coefficient == -1:
        selectors, values = others[0].split()
        if len(values) == 1 and isinstance(values[0], Atom) and values[0].function == 1.0:
            atom = Atom(values[0].site, "log1m", values[0].indices)
            return [Term(1.0, (*selectors, atom), others[0].out)]
    raise Unsupported("logarithm of a sum")
