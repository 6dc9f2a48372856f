"""From a traced model to the terms of E_q log p: closed, folded, merged.

*Closed*: every factor's log density is summed over its plates; the axis of a plate carries that
plate's own label in all terms. *Folded*: labels that stand on constants alone are contracted at
once, so data shrink to sufficient statistics (XᵀX, counts of faces). *Merged*: terms that are equal
up to their constants are added up.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vitools.conjugacy.discrete import Discrete
from vitools.conjugacy.expression import (
    Atom,
    Constant,
    Expression,
    Gather,
    Index,
    Term,
    Unsupported,
    fresh,
)
from vitools.conjugacy.factors import DISCRETE_VALUES, RULES
from vitools.conjugacy.symbolic import Refusal
from vitools.conjugacy.trace import ModelTrace, TracedSite
from vitools.errors import NotConjugate

# A 0/1 tensor that reads an axis by data is written out (so that it can join a matrix product)
# when the axis is no longer than this; longer axes are read and added to by position.
DENSE_SELECTION = 64
FOLD_LIMIT = 1_000_000

INSTEAD = "use svi() or nuts() for this model"


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
    constant: float
    plate_labels: dict[str, int]
    sizes: dict[int, int]


def expected_log_joint(trace: ModelTrace) -> ExpectedLogJoint:
    plate_labels = {name: fresh() for name in trace.plates}
    simplex = frozenset(
        name for name, site in trace.sites.items() if site.distribution == "Dirichlet"
    )
    terms: list[ClosedTerm] = []
    for site in trace.sites.values():
        for term in _site_terms(site, simplex, plate_labels):
            terms.append(_read_by_selection(term, site.name, trace))
    for name, factor in trace.factors.items():
        terms.extend(_read_by_selection(term, name, trace) for term in _factor_terms(name, factor))
    return ExpectedLogJoint(terms, 0.0, plate_labels, term_sizes(terms, trace, plate_labels))


# ---- closing ---------------------------------------------------------------------------------


def _site_terms(
    site: TracedSite, simplex: frozenset[str], plate_labels: dict[str, int]
) -> list[Term]:
    density = log_density(site, simplex)
    if site.mask is not None:
        density = density * Expression.constant(site.mask.double())
    density = density * site.scale
    shape = site.batch_shape
    terms = []
    for term in density.terms:
        term = term.freshen().pad(len(shape))
        names = {
            label: plate_labels[site.plates[dim].name]
            for dim, label in enumerate(term.out)
            if label is not None and dim in site.plates
        }
        repeats = math.prod(
            size for size, label in zip(shape, term.out, strict=True) if label is None
        )
        terms.append(Term(term.coefficient * repeats, term.rename(names).factors, ()))
    return [term for term in terms if term.coefficient]


def log_density(site: TracedSite, simplex: frozenset[str]) -> Expression:
    """The site's log density as an expression, or NotConjugate."""
    if site.distribution not in RULES:
        constant = _constant_density(site)
        if constant is not None:
            return constant
        raise NotConjugate(
            f"site {site.name!r}: {site.distribution} has no closed-form rule "
            f"({advice(site)}); {INSTEAD}"
        )
    arguments: dict[str, Any] = {}
    for name, argument in site.arguments.items():
        if argument is None or name == "validate_args":
            continue
        if isinstance(argument, Refusal):
            parents = ", ".join(repr(parent) for parent in sorted(argument.sites))
            raise NotConjugate(
                f"site {site.name!r}: parameter {name!r} of {site.distribution} depends on latent "
                f"{parents} through an operation without closed form: {argument.reason}; {INSTEAD}"
            )
        arguments[name] = (
            argument.expression()
            if isinstance(argument, Discrete)
            else Expression.constant(argument)
        )
    rule = RULES[site.distribution]
    if "simplex_sites" in inspect.signature(rule).parameters:
        arguments["simplex_sites"] = simplex
    try:
        return rule(_value(site), **arguments)
    except Unsupported as error:
        involved = sorted(
            {s for a in arguments.values() if isinstance(a, Expression) for s in a.sites()}
        )
        listed = ", ".join(repr(parent) for parent in involved) or "its parameters"
        raise NotConjugate(
            f"site {site.name!r}: {site.distribution} is not conjugate to {listed}: "
            f"its log density needs {error}; {INSTEAD}"
        ) from error


def advice(site: TracedSite) -> str:
    suggestions = {
        "HalfCauchy": "a Gamma prior on the precision is the conjugate choice",
        "HalfNormal": "a Gamma prior on the precision is the conjugate choice",
        "LogNormal": "a Gamma prior is the conjugate choice for a rate or precision",
        "StudentT": "write it as a Normal whose precision has a Gamma prior",
        "Laplace": "write it as a Normal with an exponentially distributed variance, or use a Normal",
        "LKJCholesky": "a Wishart prior on the precision matrix is the conjugate choice",
    }
    return suggestions.get(site.distribution, "it is not one of " + ", ".join(sorted(RULES)))


def _constant_density(site: TracedSite) -> Expression | None:
    """An observed site whose parameters involve no latents adds a number, whatever it is."""
    if site.is_latent or any(
        isinstance(a, Expression | Discrete | Refusal) for a in site.arguments.values()
    ):
        return None
    return Expression.constant(site.fn.log_prob(site.observed))


def _value(site: TracedSite) -> Expression | Discrete:
    if site.is_latent:
        assert site.value is not None
        return site.value
    value = site.observed
    assert value is not None
    if site.mask is not None:
        event = (1,) * site.base_event_dim
        mask = site.mask.reshape(tuple(site.mask.shape) + event)
        value = torch.where(mask, value, _harmless(site, value))
    if site.distribution in DISCRETE_VALUES:
        return Discrete.data(value)
    return Expression.constant(value)


def _harmless(site: TracedSite, value: Tensor) -> Tensor:
    """A value inside the support, put where the mask hides the data (which may be nan)."""
    fill = {"Beta": 0.5, "Uniform": 0.5, "Gamma": 1.0, "Exponential": 1.0, "InverseGamma": 1.0,
            "LogNormal": 1.0, "Chi2": 1.0, "Dirichlet": 0.5}  # fmt: skip
    return torch.full_like(value, fill.get(site.distribution, 0.0))


def _factor_terms(name: str, factor: Any) -> list[Term]:
    node = factor.node if hasattr(factor, "node") else factor
    if isinstance(node, Refusal):
        raise NotConjugate(f"factor {name!r}: {node.reason}; {INSTEAD}")
    expression = node.expression() if isinstance(node, Discrete) else Expression.constant(node)
    while expression.dim:
        expression = expression.sum(-1)
    return expression.terms


# ---- plain labels ----------------------------------------------------------------------------


def _read_by_selection(term: Term, origin: str, trace: ModelTrace) -> ClosedTerm:
    """Give each atom axis a plain label; axes read by data get a selection beside them."""
    constants = list(term.constants())
    selections: list[Selection] = []
    known: list[tuple[Gather, int, int]] = []
    atoms: list[Atom] = []
    for atom in term.atoms():
        sizes = statistic_shape(atom, trace)
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
    site = trace.sites[atom.site]
    shape = site.shape
    if atom.function == "indicator" and site.distribution != "OneHotCategorical":
        return (*shape, site.support_size)
    if atom.function == "log_determinant":
        return shape[:-2]
    return shape


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


# ---- folding ---------------------------------------------------------------------------------


def fold(joint: ExpectedLogJoint) -> ExpectedLogJoint:
    """Contract what is only data; add up terms that are equal but for their constants."""
    total = joint.constant
    folded: list[ClosedTerm] = []
    for term in joint.terms:
        term = _fold_term(term, joint.sizes)
        if term.atoms:
            folded.append(term)
        else:
            numbers = [float(c.tensor) for c in term.constants]
            total += term.coefficient * math.prod(numbers)
    merged = _merge(folded, set(joint.plate_labels.values()))
    return replace(joint, terms=merged, constant=total)


def _fold_term(term: ClosedTerm, sizes: dict[int, int]) -> ClosedTerm:
    kept = term.atom_labels()
    groups: list[list[Constant | Selection]] = []
    for operand in term.operands:
        inner = _labels(operand) - kept
        touching = [g for g in groups if any(inner & _labels(other) for other in g)]
        groups = [g for g in groups if g not in touching]
        groups.append([operand, *(other for g in touching for other in g)])
    constants: list[Constant] = []
    selections: list[Selection] = []
    for group in groups:
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
        if constant.tensor.dim() == 0:
            coefficient *= float(constant.tensor)
        else:
            remaining.append(constant)
    return replace(
        term, coefficient=coefficient, constants=tuple(remaining), selections=tuple(selections)
    )


def _labels(operand: Constant | Selection) -> set[int]:
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
    every = {label for operand in group for label in _labels(operand)}
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
        if term.selections or len(term.constants) > 1:
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
