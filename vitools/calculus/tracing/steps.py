"""Steps of a loop: sites that follow one another, and what each states but for its data."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vitools.calculus.algebra.atoms import (
    Atom,
    Constant,
    Function,
    Gather,
    Predictor,
    is_open,
)
from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression, LogOfSum
from vitools.calculus.algebra.products import Product
from vitools.calculus.algebra.term import Term
from vitools.calculus.tracing.symbolic import Refusal
from vitools.calculus.tracing.trace import TracedSite

LONGEST_READ = 1000
"""Positions of a read by data that are compared step by step."""


class Different(Exception):
    """Why steps cannot be rolled."""


@dataclass
class StepSites:
    """Sites that follow one another: the number of each and what it states."""

    stem: str
    steps: dict[int, TracedSite]

    @property
    def first(self) -> TracedSite:
        return next(iter(self.steps.values()))

    @property
    def axis(self) -> int:
        """Where the time axis of a latent stands: after the plates."""
        return len(self.first.batch_shape)

    @property
    def shape(self) -> tuple[int, ...]:
        own = self.first.shape
        return (*own[: self.axis], len(self.steps), *own[self.axis :])

    def place(self, step: int) -> int:
        return step - next(iter(self.steps))


class StepReader:
    """What steps are but for data: equal keys for steps that are alike."""

    def __init__(self, sequences: Mapping[str, StepSites]):
        self.of = {
            site.name: (stem, step)
            for stem, sequence in sequences.items()
            if sequence.first.is_latent
            for step, site in sequence.steps.items()
        }
        self.chains: set[str] = set()

    def site(self, site: TracedSite, step: int, stem: str) -> Hashable:
        own = stem if site.is_latent else None
        parts = []
        for name, argument in site.arguments.items():
            parts.append((name, self.node(argument, step, own)))
        return (site.mask is None, *parts)

    def node(self, node: Any, step: int, own: str | None) -> Hashable:
        if isinstance(node, Refusal):
            raise Different(node.reason)
        if isinstance(node, Discrete):
            return ("discrete", node.shape, self.term(node.term, step, own))
        if isinstance(node, Product):
            return ("product", node.origin, self.node(node.log(), step, own))
        if isinstance(node, LogOfSum):
            return ("log of a sum", self.node(node.inside, step, own))
        if isinstance(node, Expression):
            return (node.shape, *(self.term(term, step, own) for term in node.terms))
        if isinstance(node, Tensor):
            return ("tensor", tuple(node.shape), node.dtype)
        if isinstance(node, int | float) and not isinstance(node, bool):
            return ("number", type(node).__name__)
        if node is None or isinstance(node, bool | str):
            return node
        raise Different(f"an argument that is a {type(node).__name__}")

    def term(self, term: Term, step: int, own: str | None) -> Hashable:
        number: dict[int, int] = {}

        def named(labels: Iterable[int | None]) -> tuple[int | None, ...]:
            return tuple(None if x is None else number.setdefault(x, len(number)) for x in labels)

        def data(constant: Constant) -> Hashable:
            if is_open(constant.tensor):
                raise Different("values that move with a parameter or a guide")
            return (named(constant.labels), constant.selects, tuple(constant.tensor.shape))

        def function(of: float | str | Function | None) -> Hashable:
            """What it computes; numbers inside a sum may differ as data do."""
            if not isinstance(of, Function):
                return of
            if of.parts:
                parts = ((*map(data, c), function(f)) for _, c, f in of.parts)
                return ("sum", *parts)
            if of.inner is not None and isinstance(of.name, tuple):
                return (of.name[0], function(of.inner))
            return ("function", of.name, *map(data, of.data), named(of.summed))

        factors: list[Hashable] = []
        for factor in term.factors:
            if isinstance(factor, Constant):
                factors.append(data(factor))
                continue
            places: list[Hashable] = []
            for index in factor.indices:
                if isinstance(index, Gather):
                    if index.index.numel() > LONGEST_READ:
                        raise Different("a read of more than 1000 positions in each step")
                    places.append((named(index.labels), str(index.index.tolist())))
                else:
                    places.append(named([index]))
            factors.append((self.reference(factor, step, own), function(factor.function), *places))
        return (*factors, named(term.out))

    def reference(self, atom: Atom, step: int, own: str | None) -> Hashable:
        if isinstance(atom.site, Predictor):
            flags = (atom.site.is_vector, atom.site.is_sum, atom.site.is_factor)
            return ("predictor", flags, self.node(atom.site.expression, step, own))
        if atom.site not in self.of:
            return atom.site
        stem, there = self.of[atom.site]
        if stem == own and there != step:
            self.chains.add(stem)
        return (stem, there - step)
