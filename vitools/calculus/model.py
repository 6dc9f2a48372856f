"""The conjugate model: blocks of q, the messages between them, coordinate updates and the bound.

With E_q log p multilinear in the expected statistics, the optimal factor of a block has the
coefficients of its statistics as natural parameters (Winn and Bishop 2005), and

    ELBO = Σ_terms + Σ_blocks entropy,       exactly, at any state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from vitools.calculus.blocks.allocation import make_allocations, with_allocations
from vitools.calculus.blocks.block import Block, DenseBlock
from vitools.calculus.blocks.dependence import held_to_cells, prior_switches, sites_of
from vitools.calculus.blocks.plan import make_blocks, shared_normals
from vitools.calculus.blocks.predictor import PredictorNode, make_predictors
from vitools.calculus.blocks.schedule import inner_blocks, ordered, with_predictors
from vitools.calculus.densities.log_joint import (
    ClosedTerm,
    ExpectedLogJoint,
    advice,
    expected_log_joint,
)
from vitools.calculus.densities.masks import with_priors_that_matter
from vitools.calculus.densities.surrogates import SURROGATES, predictors
from vitools.calculus.messages import OpenConstants, compile_links, open_constants
from vitools.calculus.reduction.folding import fold
from vitools.calculus.reduction.references import movable, reference_points
from vitools.calculus.reduction.rows import DistinctRows, distinct_rows
from vitools.calculus.reduction.rows import collapse as collapse_rows
from vitools.calculus.reduction.shifting import Points, shifted
from vitools.calculus.streams.share import Share
from vitools.calculus.streams.stream_plan import streamed
from vitools.calculus.streams.streamed import StreamedBlock
from vitools.calculus.tracing.alternatives import alternative_named
from vitools.calculus.tracing.augmentation import with_mixtures
from vitools.calculus.tracing.hidden_chains import with_hidden_chains
from vitools.calculus.tracing.rolling import rolled, step_by_step
from vitools.calculus.tracing.trace import ModelTrace, TracedSite, trace_model
from vitools.calculus.values.reading import Reading, moves, refilled
from vitools.distributions.free_form.nodes import Nodes
from vitools.errors import ModelError, NotConjugateError, NotSupportedError, clause

State = list[dict[str, Any]]
Together = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]
# What an update sets in a block; all else in it is fixed when the model is compiled.
VARYING = frozenset({"natural", "moments", "mean", "covariance", "_entropies", "_entropy"})


@dataclass(frozen=True)
class Options:
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


class ConjugateModel:
    """A Pyro model whose latents all have closed-form updates.

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
        options = Options(joint, factorised, order, inner, cut, collapse, stream, points)
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

    def _read(self, trace: ModelTrace, options: Options) -> None:
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
                few, short, rows = _collapsed(stated, trace, joint or (), only)
                if rows and not _ties_rows(short, fold(few), rows, joint, factorised):
                    stated, trace, self.rows = few, short, rows
            order, inner = options.order, options.inner
            self._compile(
                stated, fold(stated), trace, joint, factorised, order, inner, chosen, options.stream
            )

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
    ) -> ConjugateModel:
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
            terms, folded = reading.stated, reading.joint
            model._compile(
                terms, folded, model.trace, joint, factorised, order, inner, chosen, False
            )
        return model

    def _compile(
        self,
        stated: ExpectedLogJoint,
        folded: ExpectedLogJoint,
        trace: ModelTrace,
        joint: Sequence[Sequence[str] | str] | None,
        factorised: Sequence[str] | Literal["all"] | None,
        order: Sequence[str] | None,
        inner: Sequence[str] | None,
        cut: Sequence[str],
        stream: bool,
    ) -> None:
        """Blocks, messages and the order of updates, from the terms."""
        self.joint: ExpectedLogJoint = folded
        self.cut = tuple(cut)
        self.blocks = make_blocks(trace, folded.terms, joint, factorised, cut)
        if stream and not self.nodes and not predictors(a for t in stated.terms for a in t.atoms):
            only = None if self.share is None else self.share.plate
            self.blocks = streamed(self.blocks, folded, self.rows, only)
        share = self.share
        self.weights = (
            {} if share is None else {b: share.weight for b in self.blocks if share.is_local(b)}
        )
        self.block_of = {name: block for block in self.blocks for name in block.names}
        self.prior_switches = prior_switches(self.block_of, stated.terms, trace)
        self.predictors = make_predictors(folded.terms, self.block_of)
        self.order = ordered(order, self.blocks, self.block_of)
        self.allocations = make_allocations(folded.terms, trace)
        nodes = {n: node for node in (*self.predictors, *self.allocations) for n in node.names}
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
        self.inner = inner_blocks(inner, self.order, self.block_of, stated, trace)
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

    # ---- coordinate ascent ---------------------------------------------------------------

    def messages(
        self, block: Block, *, given: Collection[Block] | None = None
    ) -> dict[Any, Tensor]:
        """The coefficient of each statistic of the block in E_q log p.

        Args:
            given: only terms that hold no other blocks than these; all terms if omitted.
        """
        total: dict[Any, Tensor] = {}
        for link in self.links[block]:
            if given is not None and any(
                other is not block and other not in given for other in self.term_blocks[link.term]
            ):
                continue
            value = link.value()
            total[link.key] = total[link.key] + value if link.key in total else value
        weight = self.weights.get(block)
        return total if weight is None else {key: x / weight for key, x in total.items()}

    @torch.no_grad()
    def update(self, block: Block) -> None:
        """Maximise the bound over one factor; NumericalError where no density does."""
        self._update(block, self.messages(block))
        block.check()

    def _update(self, block: Block, messages: dict[Any, Tensor]) -> None:
        if self.together is not None and isinstance(block, DenseBlock) and self.is_shared(block):
            block.restore(self._target(block, messages))
        else:
            block.update(messages)

    def _target(self, block: DenseBlock, messages: dict[Any, Tensor]) -> tuple[Tensor, ...]:
        """The natural parameters of the factor's optimum given all others."""
        found = block.gathered(messages)
        if self.together is None or not self.is_shared(block):
            return found
        return self.together(found)

    def is_shared(self, block: Block) -> bool:
        """Whether all rows speak to a factor, where the model has a share of them."""
        return block not in self.weights and isinstance(block, DenseBlock)

    @torch.no_grad()
    def sweep(self, step: float = 1.0, *, every: bool = False) -> None:
        """Update every block once. What is not a density makes the bound nan.

        With a ``step`` below 1 the Gaussian factors under curved functions go but a part of their
        way, in natural parameters; with ``every`` all factors but discrete ones, which is a step of
        a stochastic natural gradient where the terms are those of random draws (Hoffman et al. 2013).
        """
        for block in self.order:
            messages = self.messages(block)
            partial = block in self.damped or (every and _is_continuous(block))
            if step < 1 and partial:
                assert isinstance(block, DenseBlock)
                pairs = zip(block.natural, self._target(block, messages), strict=True)
                block.restore(tuple(a + step * (b - a) for a, b in pairs))
            else:
                self._update(block, messages)

    @torch.no_grad()
    def inner_sweep(self) -> None:
        """Update the inner blocks once, less the sums that only other blocks ask for.

        A full sweep must follow before the bound is asked for.
        """
        for block in self.inner:
            if isinstance(block, StreamedBlock):
                block.update(self.messages(block), self._idle[block])
            else:
                self._update(block, self.messages(block))

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
        return [*self.blocks, *self.predictors, *self.allocations]

    def elbo(self) -> float:
        """E_q log p - E_q log q, exactly."""
        return float(self.bound())

    @torch.no_grad()
    def bound(self) -> Tensor:
        """The ELBO as a tensor without axes."""
        return self._of_all(self._summed_up())

    def _of_all(self, number: Tensor) -> Tensor:
        return number if self.together is None else self.together((number,))[0]

    @torch.enable_grad()
    def bound_of_values(self) -> Tensor:
        """The same with its gradient with respect to what the constants were computed from.

        By the envelope theorem it is the gradient of the bound's maximum over q where q is optimal.
        """
        self.moving.changed()  # what was computed before has no gradient
        found = {part: part.moments_of_values(self.messages(part)) for part in self.parts}
        return self._summed_up(found)

    def _summed_up(self, found: Mapping[Block, dict[Any, Tensor]] | None = None) -> Tensor:
        total = self._constant
        for block in self.parts:
            owned: dict[Any, Tensor] = {}
            for link in self.links[block]:
                if self._owners[link.term] is block and link.key not in SURROGATES:
                    value = link.value()
                    owned[link.key] = owned[link.key] + value if link.key in owned else value
            moments = block.moments | (found or {}).get(block, {})
            for key, value in owned.items():
                total = total + (value * self._weighted(block, moments[key])).sum()
            entropy = self._weighted(block, block.entropies()).sum()
            total = total + self.weights.get(block, 1.0) * entropy
        return total

    @torch.no_grad()
    def size(self) -> Tensor:
        """The sum of the absolute values of all that the bound adds up: what its rounding scales with.

        Every message to a block counts, since its entropy is A(η) - η·μ.
        """
        total = self._constant.abs()
        for block in self.parts:
            for link in self.links[block]:
                if link.key in SURROGATES:
                    continue
                part = link.value() * block.moments[link.key]
                total = total + self._weighted(block, part).abs().sum()
            total = total + self._weighted(block, block.entropies()).abs().sum()
        return self._of_all(total)

    def _weighted(self, block: Block, tensor: Tensor) -> Tensor:
        """Times the multiplicity of each row, for a block inside a collapsed plate."""
        for axis, plate in enumerate(block.batch_plates):
            if plate is not None and plate in self.rows:
                view = [1] * tensor.dim()
                view[axis] = -1
                tensor = tensor * self.rows[plate].multiplicity.reshape(view)
        return tensor

    # ---- state -----------------------------------------------------------------------------

    def state(self) -> State:
        """The state of q, to come back to (updates make new tensors, so this copies nothing)."""
        state: State = [
            {name: value for name, value in vars(block).items() if name in VARYING}
            for block in self.parts
        ]
        if self.has_own_values:
            state.append({"constants": self.moving.moments, "constant": self._constant})
        return state

    def integral_error(self) -> float:
        """Estimated error of the bound, in nats, by all integrals that are taken numerically."""
        integrated = (part for part in self.parts if part.integrates)
        error = sum(part.integral_error(self.messages(part)) for part in integrated)
        return float(self._of_all(torch.tensor(error, dtype=torch.float64)))

    def load(self, state: State) -> None:
        """Go back to a state. What was computed at it is kept where the model is still there."""
        parts = self.parts
        if self.has_own_values:
            own, state = state[-1], state[:-1]
            if self.moving.moments is not own["constants"]:
                self.moving.moments, self._constant = own["constants"], own["constant"]
                self.moving.changed()
        for block, saved in zip(parts, state, strict=True):
            if block.natural is not saved["natural"]:
                vars(block).update(saved)
                block.changed()


def _is_continuous(block: Block) -> bool:
    return isinstance(block, DenseBlock) and not block.family.is_discrete


def is_number(site: TracedSite) -> bool:
    """Whether a site's elements are continuous scalars: any prior of theirs has a factor.

    An angle's density repeats itself on the line, which is no density there.
    """
    is_angle = site.distribution == "VonMises"
    return not site.base_event_dim and not site.fn.support.is_discrete and not is_angle


def check_family(site: TracedSite) -> None:
    if site.family is None and not is_number(site):
        raise NotConjugateError(
            f"latent site {site.name!r}: {site.distribution} has no conjugate family "
            f"({advice(site)})",
            [site.name],
        )


def _collapsed(
    joint: ExpectedLogJoint,
    trace: ModelTrace,
    blocks: Sequence[Sequence[str] | str],
    only: str | None,
) -> tuple[ExpectedLogJoint, ModelTrace, dict[str, DistinctRows]]:
    """Collapse the rows of the largest plate that repeats, or of the one that may be."""
    written = " ".join(e if isinstance(e, str) else " ".join(e) for e in blocks)
    for name in sorted(trace.plates, key=lambda n: -trace.plates[n].size):
        if f"[{name}]" in written or only not in (None, name):
            continue
        rows = distinct_rows(joint, trace, name)
        if rows is not None:
            joint, trace = collapse_rows(joint, trace, rows)
            return joint, trace, {name: rows}
    return joint, trace, {}


def _ties_rows(
    trace: ModelTrace,
    joint: ExpectedLogJoint,
    rows: Mapping[str, DistinctRows],
    together: Sequence[Sequence[str] | str] | None,
    factorised: Sequence[str] | Literal["all"] | None,
) -> bool:
    """Whether a factor ties rows that are to count as one: given what they share, they are not equal."""
    return any(
        plate.name in rows and plate.name not in block.batch_plates
        for block in make_blocks(trace, joint.terms, together, factorised)
        for site in block.sites
        for plate in site.plates.values()
    )
