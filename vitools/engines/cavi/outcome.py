"""The factors of a fitted model as torch distributions, over all rows of the data, and as posteriors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from torch.distributions import Distribution

from vitools.calculus.blocks.block import Block, plate_names
from vitools.calculus.blocks.dependence import PriorSwitch
from vitools.calculus.blocks.single import DiscreteBlock
from vitools.calculus.model import ConjugateModel
from vitools.calculus.streams.streamed import StreamedBlock
from vitools.calculus.words.dependence import switches_in_words, switches_remedy
from vitools.engines.cavi.coordinate_ascent import CaviRun
from vitools.engines.cavi.nested.cells import NestedAscent
from vitools.engines.cavi.repeated import Categorical as RepeatedCategorical
from vitools.engines.cavi.steps import by_step
from vitools.errors import VitoolsWarning, callers_level
from vitools.posterior import FactorisedPosterior, MixturePosterior, Status
from vitools.problem import Problem

REPORTED_ERROR = 1e-6  # nats by which numerical integrals may miss the bound unsaid


def factors(model: ConjugateModel) -> dict[str | tuple[str, ...], Distribution]:
    """q as torch distributions: one for each site, or for a block of several sites."""
    found: dict[str | tuple[str, ...], Distribution] = {}
    for block in model.blocks:
        if set(block.names) <= model.trace.auxiliary:
            continue
        if set(block.names) & model.trace.rolled.keys():
            found |= by_step(full(model, block), model.trace)
            continue
        repeated = _repeated(model, block)
        if repeated is not None:
            found[block.names if len(block.names) > 1 else block.names[0]] = repeated
        else:
            found.update(full(model, block).factors())
    return found


def distributions(model: ConjugateModel) -> dict[str, Distribution]:
    """The marginal of every latent."""
    return {
        name: full(model, model.block_of[name]).distribution(name)
        for name in model.latents
        if name not in model.trace.auxiliary
    }


def _repeated(model: ConjugateModel, block: Block) -> Distribution | None:
    """A categorical factor over collapsed rows, without writing all rows out; else None."""
    if {site.distribution for site in block.sites} != {"Categorical"}:
        return None
    first = model.latents[block.names[0]]
    plate = next((p for p in plate_names(first) if p in model.rows), None)
    if plate is None or first.to_event:
        return None
    small = block.materialised() if isinstance(block, StreamedBlock) else block
    if not isinstance(small, DiscreteBlock):
        return None
    if small.mask is not None or sum(size > 1 for size in small.batch_shape) > 1:
        return None
    rows = model.rows[plate]
    logits = small.natural[0].reshape(len(rows.multiplicity), -1)
    return RepeatedCategorical(logits, rows.inverse, first.shape)


def full(model: ConjugateModel, block: Block) -> Block:
    """The block over all rows of its collapsed plates."""
    if isinstance(block, StreamedBlock):
        block = block.materialised()
    for axis, plate in enumerate(block.batch_plates):
        if plate is not None and plate in model.rows:
            sites = [model.latents[name] for name in block.names]
            block = block.spread(axis, model.rows[plate].inverse, sites)
    return block


@dataclass(frozen=True)
class Outcome:
    """What the model was brought to, as posteriors."""

    problem: Problem
    model: ConjugateModel
    restart_bounds: list[float]
    seed: int

    def factorised(self, bound: float) -> FactorisedPosterior:
        return self._factors(bound, self._integral_error())

    def nested(self, found: NestedAscent) -> MixturePosterior:
        """The mixture of what was found in each cell; integrals are checked in the heaviest."""
        cells = found.reached.cells
        found.enter(max(cells, key=lambda cell: cell.bound))
        error = self._integral_error()
        parts = []
        for cell in cells:
            found.enter(cell)
            parts.append(self._factors(cell.bound, error))
        return MixturePosterior(
            self.problem,
            found.reached.bounds.softmax(0),
            parts,
            apart=found.names,
            bound=found.reached.bound,
            bound_error=error,
            restart_bounds=self.restart_bounds,
            engine="cavi",
            status=Status.CONVERGED,
            seed=self.seed,
        )

    def _factors(self, bound: float, error: float) -> FactorisedPosterior:
        return FactorisedPosterior(
            self.problem,
            factors(self.model),
            bound,
            restart_bounds=self.restart_bounds,
            bound_error=error,
            engine="cavi",
            status=Status.CONVERGED,
            seed=self.seed,
        )

    def _integral_error(self) -> float:
        error = self.model.integral_error()
        return error if error > REPORTED_ERROR else 0.0


CLOSE = 0.1  # nats by which a start may miss the best bound and still have found the same answer


def warn_of_switches(problem: Problem, switches: Sequence[PriorSwitch]) -> None:
    if switches:
        warnings.warn(
            f"model '{problem.name}': {switches_in_words(switches)}, and which answer is found depends "
            f"on the start. {switches_remedy(switches)}.",
            VitoolsWarning,
            stacklevel=callers_level(),
        )


def of_starts(bounds: Sequence[float]) -> str:
    """How far the starts agree, in words."""
    close = sum(bound >= max(bounds) - CLOSE for bound in bounds)
    return (
        f", best of {len(bounds)} starts (bounds {min(bounds):.1f} to {max(bounds):.1f}, "
        f"{close} within {CLOSE} of the best)"
    )


def sweeps_in_words(best: CaviRun, runs: Sequence[CaviRun], restarts: int) -> str:
    words = f"{len(best.history)} sweeps"
    return words + of_starts([run.bound for run in runs]) if restarts > 1 else words
