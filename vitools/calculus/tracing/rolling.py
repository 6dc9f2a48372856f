"""Loops over time read as sites with a time axis: x_0, …, x_T-1 become one x of T steps.

Sites whose names differ in a number at the end are the steps of one sequence. Steps are alike if their
arguments are the same expressions but for data, with references to other sequences as far apart in time
(x_t-1 seen from x_t). A latent sequence that refers to itself at another time is a Markov chain; where there is
one, every sequence is rolled: data of like steps are stacked along a new label, and references become
reads of the time axis. A sequence may have a few kinds of steps (the first; those without an observation), each of
which keeps a density of its own over the steps that are of it.
"""

from __future__ import annotations

import re
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import (
    Atom,
    Constant,
    Function,
    Gather,
    Index,
    Predictor,
    fresh,
    is_open,
)
from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.algebra.term import Out, Term, drop_unused_out
from vitools.calculus.tracing.symbolic import Refusal
from vitools.calculus.tracing.trace import ModelTrace, TracedSite

SHORTEST = 8
"""Steps from which a sequence is rolled."""
MOST_KINDS = 6
"""Kinds of steps that a sequence may have."""
CHAINS = ("Normal", "MultivariateNormal", "Categorical", "Bernoulli")
"""Distributions of latents that have a factor for neighbours."""
LONGEST_READ = 1000
"""Positions of a read by data that are compared step by step."""


class _Different(Exception):
    """Something that cannot be rolled."""


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


def rolled(trace: ModelTrace, but: Iterable[str] = ()) -> ModelTrace:
    """The trace with its sequences rolled; as it is where there is no chain among them.

    Args:
        but: sites that are spoken of one by one.
    """
    sequences = _sequences(trace, set(but))
    while sequences:
        reader = _Reader(sequences)
        kinds: dict[str, list[list[int]]] = {}
        for stem, sequence in sequences.items():
            found = _kinds(reader, sequence)
            if found is not None:
                kinds[stem] = found
        for stem in reader.chains:
            if sequences[stem].first.distribution not in CHAINS:
                kinds.pop(stem, None)
        if len(kinds) == len(sequences):
            if not reader.chains:
                return trace
            try:
                return _Roller(trace, sequences, kinds).rolled()
            except _Different:
                return trace
        sequences = {stem: sequences[stem] for stem in kinds}
    return trace


def _sequences(trace: ModelTrace, but: set[str]) -> dict[str, StepSites]:
    found: dict[str, dict[int, TracedSite]] = {}
    for name, site in trace.sites.items():
        match = re.fullmatch(r"(.*?)(0|[1-9]\d*)", name)
        if match:
            found.setdefault(match[1], {})[int(match[2])] = site
    return {
        stem: StepSites(stem, steps)
        for stem, steps in found.items()
        if len(steps) >= SHORTEST
        and not but & {site.name for site in steps.values()}
        and _is_sequence(steps, trace.auxiliary)
    }


def _is_sequence(steps: Mapping[int, TracedSite], auxiliary: Container[str]) -> bool:
    """Whether steps are alike in all but their arguments."""
    numbers, sites = list(steps), list(steps.values())
    first = sites[0]
    if numbers != sorted(numbers) or any(site.switch is not None for site in sites):
        return False
    kind = _outline(first)
    if any(_outline(site) != kind for site in sites[1:]):
        return False
    if not first.is_latent:
        return True
    masked = any(s.mask is not None and not bool(s.mask.all()) for s in sites)
    consecutive = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    known = first.distribution in CHAINS or all(site.name in auxiliary for site in sites)
    return consecutive and known and not masked


def _outline(site: TracedSite) -> Hashable:
    plates = tuple((dim, plate.name) for dim, plate in site.plates.items())
    scale = site.scale if isinstance(site.scale, float) else id(site.scale)
    dtype = None if site.observed is None else site.observed.dtype
    return (site.distribution, site.shape, site.batch_shape, site.to_event, plates, scale, dtype,
            site.support_size, tuple(site.arguments))  # fmt: skip


def _kinds(reader: _Reader, sequence: StepSites) -> list[list[int]] | None:
    """The steps of each kind; None where there are too many kinds, or some cannot be read."""
    found: dict[Hashable, list[int]] = {}
    for step, site in sequence.steps.items():
        try:
            key = reader.site(site, step, sequence.stem)
        except _Different:
            return None
        found.setdefault(key, []).append(step)
        if len(found) > MOST_KINDS:
            return None
    return list(found.values())


class _Reader:
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
            raise _Different
        if isinstance(node, Discrete):
            return ("discrete", node.shape, self.term(node.term, step, own))
        if isinstance(node, Expression):
            if type(node) is not Expression:
                raise _Different
            return (node.shape, *(self.term(term, step, own) for term in node.terms))
        if isinstance(node, Tensor):
            return ("tensor", tuple(node.shape), node.dtype)
        if isinstance(node, int | float) and not isinstance(node, bool):
            return ("number", type(node).__name__)
        if node is None or isinstance(node, bool | str):
            return node
        raise _Different

    def term(self, term: Term, step: int, own: str | None) -> Hashable:
        number: dict[int, int] = {}

        def named(labels: Iterable[int | None]) -> tuple[int | None, ...]:
            return tuple(None if x is None else number.setdefault(x, len(number)) for x in labels)

        factors: list[Hashable] = []
        for factor in term.factors:
            if isinstance(factor, Constant):
                if is_open(factor.tensor):
                    raise _Different
                factors.append((named(factor.labels), factor.selects, tuple(factor.tensor.shape)))
                continue
            places: list[Hashable] = []
            for index in factor.indices:
                if isinstance(index, Gather):
                    if index.index.numel() > LONGEST_READ:
                        raise _Different
                    places.append((named(index.labels), str(index.index.tolist())))
                else:
                    places.append(named([index]))
            factors.append((self.reference(factor, step, own), _function(factor), *places))
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


def _function(atom: Atom) -> Hashable:
    function = atom.function
    if not isinstance(function, Function):
        return function
    if function.data:
        raise _Different
    return ("function", function.name)


class _Roller:
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
        head, label = nodes[0], fresh()
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
        return Atom(self.names[stem], atom.function, indices)

    def _stacked_predictor(self, predictors: Sequence[Predictor]) -> Predictor:
        head = predictors[0]
        return Predictor.of(
            self._stacked([p.expression for p in predictors]),
            is_vector=head.is_vector,
            is_sum=head.is_sum,
            is_factor=head.is_factor,
        )

    # ---- sites that are no steps -----------------------------------------------------------

    def _elsewhere(self, site: TracedSite) -> TracedSite:
        arguments = {key: self._renamed(node) for key, node in site.arguments.items()}
        switch = None if site.switch is None else self._renamed(site.switch)
        return replace(site, arguments=arguments, switch=switch)

    def _renamed(self, node: Any) -> Any:
        if isinstance(node, Refusal) and node.sites & self.of.keys():
            raise _Different
        if not isinstance(node, Expression | Discrete) or not node.sites() & self.of.keys():
            return node
        if isinstance(node, Discrete):
            return Discrete(self._renamed_term(node.term), node.shape, node.words)
        if type(node) is not Expression:
            raise _Different
        return Expression([self._renamed_term(term) for term in node.terms], node.shape)

    def _renamed_term(self, term: Term) -> Term:
        factors: list[Atom | Constant] = []
        for factor in term.factors:
            if isinstance(factor, Atom) and isinstance(factor.site, Predictor):
                if factor.site.expression.sites() & self.of.keys():
                    raise _Different
                factors.append(factor)
            elif isinstance(factor, Atom) and factor.site in self.of:
                stem, place = self.of[factor.site]
                factors.append(self._atom(factor, stem, Gather(torch.tensor(place), ())))
            else:
                factors.append(factor)
        return Term(term.coefficient, tuple(factors), term.out)


def _stacked_constant(constants: Sequence[Any], head: Constant, label: int) -> Constant:
    tensors = [constant.tensor for constant in constants]
    if all(t is head.tensor or torch.equal(t, head.tensor) for t in tensors):
        return head
    return Constant(torch.stack(tensors), (label, *head.labels), head.selects)


def _own_dims(site: TracedSite, key: str) -> int:
    """Dims of a parameter beside those of the batch."""
    constraint = site.fn.arg_constraints.get(key)
    if constraint is None:
        raise _Different
    return int(constraint.event_dim)


def _said(steps: Sequence[int]) -> str:
    return f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} steps from {steps[0]} on"
