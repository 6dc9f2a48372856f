"""A model compiled: what its trace states, the blocks of q, the links between them, the order of updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from vitools.calculus.blocks.allocation import make_allocations, with_allocations
from vitools.calculus.blocks.block import Between, Block, DenseBlock
from vitools.calculus.blocks.dependence import held_to_cells, prior_switches, sites_of
from vitools.calculus.blocks.plan import make_blocks, shared_normals, ties_rows
from vitools.calculus.blocks.predictor import PredictorNode, make_predictors
from vitools.calculus.blocks.schedule import inner_blocks, ordered, with_predictors
from vitools.calculus.densities.closed_terms import ClosedTerm, ExpectedLogJoint
from vitools.calculus.densities.log_joint import check_family, expected_log_joint
from vitools.calculus.densities.masks import with_priors_that_matter
from vitools.calculus.densities.surrogates import predictors
from vitools.calculus.messages import OpenConstants, compile_links, open_constants
from vitools.calculus.reduction.folding import fold
from vitools.calculus.reduction.references import movable, reference_points
from vitools.calculus.reduction.rows import DistinctRows, collapsed
from vitools.calculus.reduction.shifting import Points, shifted
from vitools.calculus.streams.share import Share
from vitools.calculus.streams.stream_plan import streamed
from vitools.calculus.streams.streamed import StreamedBlock
from vitools.calculus.tracing.alternatives import alternative_named
from vitools.calculus.tracing.augmentation import with_mixtures
from vitools.calculus.tracing.hidden_chains import with_hidden_chains
from vitools.calculus.tracing.rolling import rolled, step_by_step
from vitools.calculus.tracing.trace import ModelTrace, trace_model
from vitools.calculus.values.reading import Reading, moves, refilled
from vitools.distributions.free_form.nodes import Nodes
from vitools.errors import ModelError, NotConjugateError, NotSupportedError, clause

Together = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


@dataclass(frozen=True)
class ReadingOptions:
    """How a model is to be read."""

    joint: Sequence[Sequence[str] | str] | None
    factorised: Sequence[str] | Literal["all"] | None
    order: Sequence[str] | None
    inner: Sequence[str] | None
    cut: Sequence[str] | None
    collapse: bool
    stream: bool
    points: Points | None

    @property
    def joins_steps(self) -> bool:
        """Whether the steps of a loop may share a factor."""
        return self.factorised != "all" and (self.joint is None or bool(self.joint))

    @property
    def named(self) -> set[str]:
        """The sites that are spoken of."""
        named = sites_of(self.joint)
        for names in (self.factorised, self.order, self.inner, self.cut):
            named |= set(names or ())
        return named


class CompiledModel:
    """What a model is made of: its terms, the factors of q and the links between them.

    ``joint`` names blocks: ("z1", "z2") for one factor over both sites, ("W[rows]",) for a Gaussian
    site with one covariance along a plate. ``factorised`` names Gaussian sites to keep fully
    factorised where a factor couples their elements, ``cut`` scalars whose factor may be cut off
    at given values (``None``: the scales of few group effects). Equal rows of data are one (``collapse``), and
    blocks whose plate is otherwise data keep only their sums over it (``stream``). ``points`` are what
    locations are taken about, sought in the data if omitted, ``nodes`` those of scalar sites that count
    as tables over them. Loops over time are sites with a time axis (:mod:`.tracing.rolling`).
    """

    together: Together | None
    """Makes of what a share of the rows says what all of them say; None where the rows are all there are."""

    has_own_values = False
    """Whether a state has the constants that follow from values, so that states may differ in these."""

    def __init__(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        joint: Sequence[Sequence[str] | str] | None = None,
        factorised: Sequence[str] | Literal["all"] | None = None,
        order: Sequence[str] | None = None,
        inner: Sequence[str] | None = None,
        cut: Sequence[str] | None = (),
        collapse: bool = True,
        stream: bool = True,
        share: Share | None = None,
        points: Points | None = None,
        nodes: Mapping[str, Nodes] | None = None,
    ):
        self.share, self.nodes = share, dict(nodes or {})
        self.together = None
        options = ReadingOptions(joint, factorised, order, inner, cut, collapse, stream, points)
        traced = trace_model(model, args, kwargs or {}, nodes=nodes)
        trace = with_mixtures(with_hidden_chains(traced))
        if share is not None:
            trace = share.weighted(trace)
        if not any(site.is_latent for site in trace.sites.values()):
            raise ModelError("the model has no latent sites: there is nothing to infer")
        if options.joins_steps and share is None:
            over_time = rolled(trace, options.named)
            if over_time.rolled:
                try:
                    self._read(over_time, options)
                    return
                except (NotConjugateError, NotSupportedError) as error:
                    # steps that have no factor together may have one each
                    trace = step_by_step(trace, clause(error))
            else:
                trace = over_time
        self._read(trace, options)

    def _read(self, trace: ModelTrace, options: ReadingOptions) -> None:
        """The model that a trace states."""
        self.trace: ModelTrace = trace
        joint, factorised, share = options.joint, options.factorised, self.share
        latents = {n: s for n, s in self.trace.sites.items() if s.is_latent}
        with torch.no_grad(), alternative_named(self.trace):
            for site in latents.values():
                check_family(site)
            stated = expected_log_joint(self.trace)
            trace = with_priors_that_matter(self.trace, stated.terms)
            chosen = held_to_cells(trace, joint, options.cut)
            normal = shared_normals(trace, stated.terms, joint, factorised, chosen)
            trace = replace(trace, normal=normal) if normal else trace
            if trace is not self.trace:
                self.trace, stated = trace, expected_log_joint(trace)
            self.movable = movable(trace)
            given = options.points
            given = share.points if given is None and share is not None else given
            self.points = points = reference_points(trace) if given is None else given
            if points:
                trace = shifted(trace, points)
                stated = expected_log_joint(trace)
            self.latents = {n: s for n, s in trace.sites.items() if s.is_latent}
            self.rows: dict[str, DistinctRows] = {}
            is_curved = bool(predictors(a for t in stated.terms for a in t.atoms))
            if options.collapse and not is_curved and not self.nodes:
                only = None if share is None else share.plate
                few, short, rows = collapsed(stated, trace, joint or (), only)
                if rows and not ties_rows(short, fold(few), rows, joint, factorised):
                    stated, trace, self.rows = few, short, rows
            self._compile(stated, fold(stated), trace, options, chosen)

    @classmethod
    def of_reading(
        cls,
        reading: Reading,
        *,
        joint: Sequence[Sequence[str] | str] | None = None,
        factorised: Sequence[str] | Literal["all"] | None = None,
        order: Sequence[str] | None = None,
        inner: Sequence[str] | None = None,
        cut: Sequence[str] | None = (),
    ) -> Self:
        """The model of the latents that have no values, at the values of a reading."""
        model = cls.__new__(cls)
        model.trace, model.rows, model.share, model.points = reading.trace, {}, None, {}
        model.movable, model.nodes, model.together = set(), {}, None
        model.latents = {n: s for n, s in model.trace.sites.items() if s.is_latent}
        if not model.latents:
            raise NotConjugateError("no site is left for coordinate ascent")
        with torch.no_grad(), alternative_named(model.trace):
            for site in model.latents.values():
                check_family(site)
            chosen = held_to_cells(model.trace, joint, cut)
            options = ReadingOptions(joint, factorised, order, inner, cut, False, False, None)
            model._compile(reading.stated, reading.joint, model.trace, options, chosen)
        return model

    def _compile(
        self,
        stated: ExpectedLogJoint,
        folded: ExpectedLogJoint,
        trace: ModelTrace,
        options: ReadingOptions,
        cut: Sequence[str],
    ) -> None:
        """Blocks, messages and the order of updates, from the terms."""
        self.joint: ExpectedLogJoint = folded
        self.cut = tuple(cut)
        self.blocks = make_blocks(trace, folded.terms, options.joint, options.factorised, cut)
        if (
            options.stream
            and not self.nodes
            and not predictors(a for t in stated.terms for a in t.atoms)
        ):
            only = None if self.share is None else self.share.plate
            self.blocks = streamed(self.blocks, folded, self.rows, only)
        share = self.share
        self.weights = (
            {} if share is None else {b: share.weight for b in self.blocks if share.is_local(b)}
        )
        self.block_of = {name: block for block in self.blocks for name in block.names}
        self.prior_switches = prior_switches(self.block_of, stated.terms, trace)
        self.predictors = make_predictors(folded.terms, self.block_of)
        self.order = ordered(options.order, self.blocks, self.block_of)
        self.allocations = make_allocations(folded.terms, trace)
        nodes = {n: node for node in self.between for n in node.names}
        self.moving = OpenConstants()
        compiled = compile_links(folded, self.block_of | nodes, self.rows, self.moving)
        self.links, self.term_blocks = compiled.of, compiled.term_blocks
        self.order = with_predictors(self.order, self.predictors, self.term_blocks)
        self.order = with_allocations(self.order, self.allocations)
        self.damped = {
            b
            for blocks in self.term_blocks
            for b in blocks
            if any(isinstance(other, PredictorNode) for other in blocks)
            if isinstance(b, DenseBlock) and b.family.is_gaussian
        }
        self.inner = inner_blocks(options.inner, self.order, self.block_of, stated, trace)
        self._owners = self._find_owners()
        self._idle = self._idle_statistics()
        self._constant = torch.as_tensor(folded.constant, dtype=torch.float64)

    def take(self, reading: Reading) -> bool:
        """Go on at other values; whether the terms are the same up to their constants.

        Where they are not, or data inside functions moved, nothing is changed: the model has to be
        made anew.
        """
        fitted = self._fitted(reading)
        if fitted is None:
            return False
        self.joint = replace(reading.joint, terms=fitted)
        self._constant = torch.as_tensor(reading.joint.constant, dtype=torch.float64)
        self.moving.take(fitted)
        return True

    def constants_of(self, reading: Reading) -> dict[str, Any] | None:
        """What a state has of other values; None where the terms differ in more than constants."""
        fitted = self._fitted(reading)
        if fitted is None:
            return None
        constant = torch.as_tensor(reading.joint.constant, dtype=torch.float64)
        return {"constants": open_constants(fitted), "constant": constant}

    def _fitted(self, reading: Reading) -> list[ClosedTerm] | None:
        """The model's terms with the constants of a reading; None where they are others."""
        terms = reading.joint.terms
        if any(moves(atom) for term in terms for atom in term.atoms):
            return None
        return refilled(self.joint.terms, terms)

    def is_shared(self, block: Block) -> bool:
        """Whether all rows speak to a factor, where the model has a share of them."""
        return block not in self.weights and isinstance(block, DenseBlock)

    def _idle_statistics(self) -> dict[Block, frozenset[Any]]:
        """Statistics of streamed inner blocks that no other inner block asks for."""
        idle: dict[Block, frozenset[Any]] = {}
        for block in self.inner:
            if isinstance(block, StreamedBlock):
                asked = {
                    link.key
                    for link in self.links[block]
                    if any(b in self.inner for b in self.term_blocks[link.term] if b is not block)
                }
                idle[block] = frozenset(block.features) - asked
        return idle

    def _find_owners(self) -> list[Block]:
        """For each term the block updated last: its message is then current after a sweep."""
        position = {block: i for i, block in enumerate(self.order)}
        return [max(blocks, key=lambda b: position[b]) for blocks in self.term_blocks]

    @property
    def parts(self) -> list[Block]:
        """The factors of q, and the predictors and sums between them."""
        return [*self.blocks, *self.between]

    @property
    def between(self) -> list[Between]:
        """The predictors, and the sums and the geometric means in them."""
        return [*self.predictors, *self.allocations]
