"""Sites of like steps written as one site with a time axis, their expressions stacked along it.

:mod:`.rolling` says which steps are alike; here every kind of node that a site's arguments are made of
knows how to become one node along a further label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Atom, Constant, Function, Gather, Index, Predictor, fresh
from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression, LogOfSum
from vitools.calculus.algebra.functions import combined, composed
from vitools.calculus.algebra.products import Product
from vitools.calculus.algebra.term import Out, Term, drop_unused_out
from vitools.calculus.tracing.steps import Different, StepSites
from vitools.calculus.tracing.symbolic import Refusal
from vitools.calculus.tracing.trace import ModelTrace, TracedSite


class Roller:
    """Writes the sites of sequences as sites with a time axis."""

    def __init__(
        self,
        trace: ModelTrace,
        sequences: Mapping[str, StepSites],
        kinds: Mapping[str, list[list[int]]],
    ):
        self.trace, self.sequences, self.kinds = trace, sequences, kinds
        self.of = {
            site.name: (stem, sequence.place(step))
            for stem, sequence in sequences.items()
            for step, site in sequence.steps.items()
        }
        taken = {name for name in trace.sites if name not in self.of}
        self.names: dict[str, str] = {}
        for stem in sequences:
            name = stem.rstrip("_") or "steps"
            while name in taken:
                name += "'"
            taken.add(name)
            self.names[stem] = name
        self._predictors: dict[tuple[int, ...], Predictor] = {}

    def rolled(self) -> ModelTrace:
        sites: dict[str, TracedSite] = {}
        begun: set[str] = set()
        for name, site in self.trace.sites.items():
            if name not in self.of:
                sites[name] = self._elsewhere(site)
                continue
            stem, _ = self.of[name]
            if stem not in begun:
                begun.add(stem)
                sequence = self.sequences[stem]
                if sequence.first.is_latent:
                    sites[self.names[stem]] = self._latent(sequence)
        for stem, sequence in self.sequences.items():
            for number, steps in enumerate(self.kinds[stem]):
                name = self.names[stem]
                if sequence.first.is_latent or number:
                    name = f"{name}, {_said(steps)}"
                sites[name] = self._part(sequence, steps, name)
        written = {
            self.names[stem]: tuple(site.name for site in sequence.steps.values())
            for stem, sequence in self.sequences.items()
            if sequence.first.is_latent
        }
        wider = {name for name, of in written.items() if set(of) <= self.trace.auxiliary}
        auxiliary = self.trace.auxiliary | wider
        return replace(self.trace, sites=sites, rolled=written, auxiliary=auxiliary)

    def _latent(self, sequence: StepSites) -> TracedSite:
        first, name = sequence.first, self.names[sequence.stem]
        value: Expression | Discrete = Expression.latent(name, sequence.shape)
        if isinstance(first.value, Discrete):
            value = Discrete.latent(name, sequence.shape, first.value.table.tensor)
        return replace(
            first,
            name=name,
            arguments={},
            shape=sequence.shape,
            batch_shape=sequence.shape[: sequence.axis + 1],
            value=value,
            mask=None,
        )

    def _part(self, sequence: StepSites, steps: Sequence[int], name: str) -> TracedSite:
        """The density of steps of one kind, along a first axis."""
        sites = [sequence.steps[step] for step in steps]
        first = sites[0]
        arguments = {
            key: self._argument([site.arguments[key] for site in sites], first, key)
            for key in first.arguments
        }
        value: Expression | Discrete | None = None
        observed = first.observed
        if observed is not None:
            observed = torch.stack([s.observed for s in sites if s.observed is not None])
        else:
            value = self._read(sequence, torch.tensor([sequence.place(step) for step in steps]))
        mask = None
        if first.mask is not None and observed is not None:
            shape = first.batch_shape
            mask = torch.stack([s.mask.expand(shape) for s in sites if s.mask is not None])
        return replace(
            first,
            name=name if observed is not None else self.names[sequence.stem],
            arguments=arguments,
            shape=(len(steps), *first.shape),
            batch_shape=(len(steps), *first.batch_shape),
            plates={dim + 1: plate for dim, plate in first.plates.items()},
            observed=observed,
            value=value,
            mask=mask,
            is_part=observed is None,
        )

    def _read(self, sequence: StepSites, places: Tensor) -> Expression | Discrete:
        """The states of some steps, the time axis first."""
        whole = self._latent(sequence).value
        axis = sequence.axis
        assert whole is not None
        order = [axis, *range(axis), *range(axis + 1, len(sequence.shape))]
        if isinstance(whole, Discrete):
            return whole.restructured(lambda e: e.take(places, axis).permute(order))
        return whole.take(places, axis).permute(order)

    # ---- expressions -----------------------------------------------------------------------

    def _argument(self, nodes: Sequence[Any], site: TracedSite, key: str) -> Any:
        head = nodes[0]
        if isinstance(head, Expression | Discrete):
            rank = len(site.batch_shape) + _own_dims(site, key)
            return self._stacked(nodes, rank)
        if isinstance(head, Tensor) or (
            isinstance(head, int | float) and not isinstance(head, bool)
        ):
            same = all(n is head or (not isinstance(n, Tensor) and n == head) for n in nodes)
            if same:
                return head
            together = torch.stack([torch.as_tensor(n) for n in nodes])
            pad = len(site.batch_shape) + _own_dims(site, key) - (together.dim() - 1)
            return together.reshape(len(nodes), *(1,) * pad, *together.shape[1:])
        return head

    def _stacked(self, nodes: Sequence[Any], rank: int | None = None) -> Expression | Discrete:
        """Expressions that are alike, along a new first axis before ``rank`` others."""
        head = nodes[0]
        if isinstance(head, Product):
            log = self._stacked([node.log() for node in nodes], rank)
            assert isinstance(log, Expression)
            return Product(log, head.origin)
        if isinstance(head, LogOfSum):
            inside = self._stacked([node.inside for node in nodes], rank)
            assert isinstance(inside, Expression)
            return LogOfSum(inside)
        label = fresh()
        pad = (1,) * (0 if rank is None else rank - len(head.shape))
        shape = (len(nodes), *pad, *head.shape)
        if isinstance(head, Discrete):
            term = self._stacked_term([node.term for node in nodes], label, len(pad))
            return Discrete(term, shape)
        terms = [
            self._stacked_term([node.terms[i] for node in nodes], label, len(pad))
            for i in range(len(head.terms))
        ]
        return Expression(terms, shape)

    def _stacked_term(self, terms: Sequence[Term], label: int, pad: int) -> Term:
        head = terms[0]
        factors: list[Atom | Constant] = []
        coefficients = torch.tensor([term.coefficient for term in terms], dtype=torch.float64)
        coefficient = head.coefficient
        if bool((coefficients != coefficient).any()):
            coefficient = 1.0
            factors.append(Constant(coefficients, (label,)))
        for place, factor in enumerate(head.factors):
            every = [term.factors[place] for term in terms]
            if isinstance(factor, Constant):
                factors.append(_stacked_constant(every, factor, label))
            else:
                factors.append(self._stacked_atom(every, factor, label))
        out: Out = (label, *(None,) * pad, *head.out)
        return drop_unused_out(Term(coefficient, tuple(factors), out))

    def _stacked_atom(self, atoms: Sequence[Any], head: Atom, label: int) -> Atom:
        head = replace(head, function=_stacked_function([a.function for a in atoms], label))
        if isinstance(head.site, Predictor):
            key = tuple(id(atom.site) for atom in atoms)
            if key not in self._predictors:
                self._predictors[key] = self._stacked_predictor([a.site for a in atoms])
            return Atom(self._predictors[key], head.function, (label, *head.indices))
        if head.site not in self.of:
            return head
        stem, _ = self.of[head.site]
        sequence = self.sequences[stem]
        places = torch.tensor([self.of[atom.site][1] for atom in atoms])
        whole = torch.equal(places, torch.arange(len(sequence.steps)))
        return self._atom(head, stem, label if whole else Gather(places, (label,)))

    def _atom(self, atom: Atom, stem: str, index: Index) -> Atom:
        axis = self.sequences[stem].axis
        indices = (*atom.indices[:axis], index, *atom.indices[axis:])
        return replace(atom, site=self.names[stem], indices=indices)

    def _stacked_predictor(self, predictors: Sequence[Predictor]) -> Predictor:
        stacked = self._stacked([p.expression for p in predictors])
        assert isinstance(stacked, Expression)
        return _like(predictors[0], stacked)

    # ---- sites that are no steps -----------------------------------------------------------

    def _elsewhere(self, site: TracedSite) -> TracedSite:
        arguments = {key: self._renamed(node) for key, node in site.arguments.items()}
        switch = None if site.switch is None else self._renamed(site.switch)
        return replace(site, arguments=arguments, switch=switch)

    def _renamed(self, node: Any) -> Any:
        if isinstance(node, Refusal) and node.sites & self.of.keys():
            raise Different(node.reason)
        if not isinstance(node, Expression | Discrete) or not node.sites() & self.of.keys():
            return node
        if isinstance(node, Discrete):
            return Discrete(self._renamed_term(node.term), node.shape, node.words)
        if isinstance(node, Product):
            return Product(self._renamed(node.log()), node.origin)
        if isinstance(node, LogOfSum):
            return LogOfSum(self._renamed(node.inside))
        return Expression([self._renamed_term(term) for term in node.terms], node.shape)

    def _renamed_term(self, term: Term) -> Term:
        factors: list[Atom | Constant] = []
        for factor in term.factors:
            if isinstance(factor, Atom) and isinstance(factor.site, Predictor):
                factors.append(replace(factor, site=self._renamed_predictor(factor.site)))
            elif isinstance(factor, Atom) and factor.site in self.of:
                stem, place = self.of[factor.site]
                factors.append(self._atom(factor, stem, Gather(torch.tensor(place), ())))
            else:
                factors.append(factor)
        return Term(term.coefficient, tuple(factors), term.out)

    def _renamed_predictor(self, name: Predictor) -> Predictor:
        if not name.expression.sites() & self.of.keys():
            return name
        key = (id(name),)
        if key not in self._predictors:
            self._predictors[key] = _like(name, self._renamed(name.expression))
        return self._predictors[key]


def _like(name: Predictor, expression: Expression) -> Predictor:
    """A predictor of the same kind."""
    return Predictor.of(
        expression, is_vector=name.is_vector, is_sum=name.is_sum, is_factor=name.is_factor
    )


def _stacked_constant(constants: Sequence[Any], head: Constant, label: int) -> Constant:
    tensors = [constant.tensor for constant in constants]
    if all(t is head.tensor or torch.equal(t, head.tensor) for t in tensors):
        return head
    return Constant(torch.stack(tensors), (label, *head.labels), head.selects)


def _stacked_function(functions: Sequence[Any], label: int) -> float | str | Function:
    """Functions that are alike but for data and numbers, of which those that differ get the label."""
    head = functions[0]
    if not isinstance(head, Function) or all(f is head for f in functions):
        return head
    if head.parts:
        parts = [
            _stacked_part(own, label) for own in zip(*(f.parts for f in functions), strict=True)
        ]
        return combined(parts)
    if head.inner is not None and isinstance(head.name, tuple):
        return composed(head.name[0], _stacked_function([f.inner for f in functions], label))
    data = zip(*(f.data for f in functions), strict=True)
    return replace(head, data=tuple(_stacked_constant(own, own[0], label) for own in data))


def _stacked_part(
    parts: Sequence[tuple[float, Sequence[Constant], Function | None]], label: int
) -> tuple[float, Sequence[Constant], Function | None]:
    """coefficient · Π constants · f(x), a part of a sum."""
    coefficient, _, function = parts[0]
    constants = [
        _stacked_constant(own, own[0], label) for own in zip(*(c for _, c, _ in parts), strict=True)
    ]
    numbers = torch.tensor([number for number, _, _ in parts], dtype=torch.float64)
    if bool((numbers != coefficient).any()):
        coefficient, constants = 1.0, [Constant(numbers, (label,)), *constants]
    if function is not None:
        stacked = _stacked_function([f for _, _, f in parts], label)
        assert isinstance(stacked, Function)
        function = stacked
    return coefficient, constants, function


def _own_dims(site: TracedSite, key: str) -> int:
    """Dims of a parameter beside those of the batch."""
    constraint = site.fn.arg_constraints.get(key)
    if constraint is None:
        raise Different(f"argument {key!r} of {site.distribution}")
    return int(constraint.event_dim)


def _said(steps: Sequence[int]) -> str:
    return f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} steps from {steps[0]} on"
