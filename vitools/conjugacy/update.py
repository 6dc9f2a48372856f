"""The conjugate model: blocks of q, the messages between them, coordinate updates and the bound.

With E_q log p multilinear in the expected statistics, the optimal factor of a block has the
coefficients of its statistics as natural parameters (Winn and Bishop 2005), and

    ELBO = Σ_terms + Σ_blocks entropy,       exactly, at any state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vitools.conjugacy.blocks import Block, DiscreteBlock, Resolved, plate_names
from vitools.conjugacy.contraction import Contractor, Operand
from vitools.conjugacy.folding import fold
from vitools.conjugacy.links import Link, label_sizes, make_link, separated
from vitools.conjugacy.plan import make_blocks
from vitools.conjugacy.rows import DistinctRows, distinct_rows
from vitools.conjugacy.rows import collapse as collapse_rows
from vitools.conjugacy.streamed import StreamedBlock, can_stream
from vitools.conjugacy.term import Atom, Unsupported
from vitools.conjugacy.terms import (
    INSTEAD,
    ClosedTerm,
    ExpectedLogJoint,
    advice,
    expected_log_joint,
)
from vitools.conjugacy.trace import ModelTrace, TracedSite, trace_model
from vitools.errors import ModelError, NotConjugate, OptionError
from vitools.families import FAMILY_OF_PRIOR
from vitools.families.repeated import Categorical as RepeatedCategorical


class ConjugateModel:
    """A Pyro model whose latents all have closed-form updates.

    ``joint`` names blocks: ("z1", "z2") for one factor over both sites, ("W[rows]",) for a Gaussian
    site with one covariance along a plate. ``factorised`` names Gaussian sites to keep fully
    factorised where a factor couples their elements.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        joint: Sequence[Sequence[str] | str] = (),
        factorised: Sequence[str] = (),
        order: Sequence[str] | None = None,
        inner: Sequence[str] = (),
        collapse: bool = True,
    ):
        self.trace: ModelTrace = trace_model(model, args, kwargs or {})
        self.latents = {n: s for n, s in self.trace.sites.items() if s.is_latent}
        if not self.latents:
            raise ModelError("the model has no latent sites: there is nothing to infer")
        for site in self.latents.values():
            _check_family(site)
        with torch.no_grad():
            stated = expected_log_joint(self.trace)
            trace = self.trace
            self.rows: dict[str, DistinctRows] = {}
            if collapse:
                stated, trace, self.rows = _collapsed(stated, trace, joint)
            self.joint: ExpectedLogJoint = fold(stated)
            self.blocks = make_blocks(trace, self.joint.terms, joint, factorised)
            self._stream()
            self.block_of = {name: block for block in self.blocks for name in block.names}
            self.order = self._ordered(order)
            self._compile()
            self._owners = self._find_owners()
            self.inner = self._inner_blocks(inner)

    def _stream(self) -> None:
        """Let discrete blocks whose plate is otherwise data keep only their sums over it."""
        for i, block in enumerate(self.blocks):
            if not isinstance(block, DiscreteBlock):
                continue
            for plate in block.batch_plates:
                if plate is None:
                    continue
                label = self.joint.plate_labels[plate]
                local = {
                    site.name
                    for site in self.latents.values()
                    if any(p.name == plate for p in site.plates.values())
                } - set(block.names)
                if can_stream(block, label, plate, self.joint.terms, local):
                    rows = self.rows.get(plate)
                    multiplicity = None if rows is None else rows.multiplicity
                    self.blocks[i] = StreamedBlock(block.sites, label, multiplicity)
                    break

    # ---- compilation ---------------------------------------------------------------------

    def _compile(self) -> None:
        self.links: dict[Block, list[Link]] = {block: [] for block in self.blocks}
        self.term_blocks: list[list[Block]] = []
        contractor = Contractor()
        for number, term in enumerate(self.joint.terms):
            term = separated(term, self.block_of)
            by_block: dict[Block, list[Atom]] = {}
            for atom in term.atoms:
                by_block.setdefault(self.block_of[atom.site], []).append(atom)
            resolved: dict[Block, Resolved] = {}
            left, selections = list(term.constants), list(term.selections)
            for block, atoms in by_block.items():
                try:
                    if isinstance(block, StreamedBlock):
                        part = replace(term, constants=tuple(left), selections=tuple(selections))
                        resolved[block], left, selections = block.resolve_term(part, atoms)
                    else:
                        resolved[block] = block.resolve(atoms)
                except Unsupported as error:
                    raise _not_conjugate(term, block, error) from error
            term = replace(term, constants=tuple(left), selections=tuple(selections))
            sizes = label_sizes(term, resolved)
            constants = [Operand(contractor.fixed(c.tensor), c.labels) for c in term.constants]
            statistics = {
                block: Operand(contractor.statistic(block, r.key), r.labels)
                for block, r in resolved.items()
            }
            for block, target in resolved.items():
                others = [o for b, o in statistics.items() if b is not block]
                others += [
                    Operand(contractor.fixed(rows.multiplicity), (self.joint.plate_labels[plate],))
                    for plate, rows in self.rows.items()
                    if plate not in block.batch_plates
                    and self.joint.plate_labels[plate] in sizes
                    and any(plate in b.batch_plates for b in resolved)
                ]
                message = contractor.message(
                    [*constants, *others], term.selections, target.labels, sizes
                )
                self.links[block].append(
                    make_link(message, target, sizes, term.coefficient, number)
                )
            self.term_blocks.append(list(resolved))
        for block, links in self.links.items():
            if isinstance(block, StreamedBlock):
                block.write_features()
            if not links:
                raise ModelError(
                    f"site {block.title!r} has no density: its prior contributes nothing"
                )

    # ---- coordinate ascent ---------------------------------------------------------------

    def messages(self, block: Block, *, fixed_only: bool = False) -> dict[Any, Tensor]:
        """The coefficient of each statistic of the block in E_q log p."""
        total: dict[Any, Tensor] = {}
        for link in self.links[block]:
            if fixed_only and len(self.term_blocks[link.term]) > 1:
                continue
            value = link.value()
            total[link.key] = total[link.key] + value if link.key in total else value
        return total

    @torch.no_grad()
    def update(self, block: Block) -> None:
        block.update(self.messages(block))

    def sweep(self, inner_sweeps: int = 1) -> None:
        """Update every block; those of ``inner`` ``inner_sweeps`` times before the others."""
        for _ in range(inner_sweeps - 1):
            for block in self.inner:
                if isinstance(block, StreamedBlock):
                    with torch.no_grad():
                        block.update(self.messages(block), self._idle(block))
                else:
                    self.update(block)
        for block in self.order:
            self.update(block)

    def _inner_blocks(self, names: Sequence[str]) -> list[Block]:
        """The blocks swept more than once before the others move, in the order of updates."""
        unknown = [name for name in names if name not in self.block_of]
        if unknown:
            raise OptionError(
                f"inner: no latent site {unknown[0]!r}; latents are {list(self.latents)}"
            )
        if names:
            return [block for block in self.order if set(block.names) & set(names)]
        return [block for block in self.order if isinstance(block, DiscreteBlock)]

    def _idle(self, block: StreamedBlock) -> frozenset[Any]:
        """Statistics of a streamed block that no other inner block asks for."""
        asked = {
            link.key
            for link in self.links[block]
            if any(b in self.inner for b in self.term_blocks[link.term] if b is not block)
        }
        return frozenset(block.features) - asked

    def restart_inner(self) -> None:
        """Put the inner blocks back to a start without noise."""
        from vitools.conjugacy.initialise import flat_start

        for block in self.inner:
            flat_start(self, block)

    def _ordered(self, names: Sequence[str] | None) -> list[Block]:
        """Children before parents (locals see the current globals), or the user's order."""
        if names is None:
            return self.blocks[::-1]
        unknown = [name for name in names if name not in self.block_of]
        if unknown:
            raise OptionError(
                f"order: no latent site {unknown[0]!r}; latents are {list(self.latents)}"
            )
        first = list(dict.fromkeys(self.block_of[name] for name in names))
        missing = [block.title for block in self.blocks if block not in first]
        if missing:
            raise OptionError(f"order: every latent must be listed; missing are {missing}")
        return first

    def _find_owners(self) -> list[Block]:
        """For each term the block updated last: its message is then current after a sweep."""
        position = {block: i for i, block in enumerate(self.order)}
        return [max(blocks, key=lambda b: position[b]) for blocks in self.term_blocks]

    @torch.no_grad()
    def elbo(self) -> float:
        """E_q log p - E_q log q, exactly."""
        total = torch.tensor(self.joint.constant, dtype=torch.float64)
        for block in self.blocks:
            owned: dict[Any, Tensor] = {}
            for link in self.links[block]:
                if self._owners[link.term] is block:
                    value = link.value()
                    owned[link.key] = owned[link.key] + value if link.key in owned else value
            for key, value in owned.items():
                total = total + (value * self._weighted(block, block.moments[key])).sum()
            total = total + self._weighted(block, block.entropies()).sum()
        return float(total)

    def _weighted(self, block: Block, tensor: Tensor) -> Tensor:
        """Times the multiplicity of each row, for a block inside a collapsed plate."""
        for axis, plate in enumerate(block.batch_plates):
            if plate is not None and plate in self.rows:
                view = [1] * tensor.dim()
                view[axis] = -1
                tensor = tensor * self.rows[plate].multiplicity.reshape(view)
        return tensor

    # ---- state -----------------------------------------------------------------------------

    def initialise(self, seed: int) -> None:
        """A seeded starting point; see :mod:`vitools.conjugacy.initialise`."""
        from vitools.conjugacy.initialise import initialise

        initialise(self, seed)

    def snapshot(self) -> list[dict[str, Any]]:
        """The state of q, to come back to (updates make new tensors, so this copies nothing)."""
        return [dict(vars(block)) for block in self.blocks]

    def reset(self, state: list[dict[str, Any]]) -> None:
        for block, saved in zip(self.blocks, state, strict=True):
            vars(block).update(saved)
            block.changed()

    def factors(self) -> dict[str | tuple[str, ...], Distribution]:
        """q as torch distributions: one for each site, or for a block of several sites."""
        factors: dict[str | tuple[str, ...], Distribution] = {}
        for block in self.blocks:
            repeated = self._repeated(block)
            if repeated is not None:
                factors[block.names if len(block.names) > 1 else block.names[0]] = repeated
                continue
            full = self._full(block)
            if len(block.names) > 1:
                factors[block.names] = full.joint_distribution()
            else:
                factors[block.names[0]] = full.distribution(block.names[0])
        return factors

    def _repeated(self, block: Block) -> Distribution | None:
        """A categorical factor over collapsed rows, without writing all rows out; else None."""
        if not isinstance(block, DiscreteBlock | StreamedBlock) or block.mask is not None:
            return None
        kinds = {site.distribution for site in block.sites}
        first = self.latents[block.names[0]]
        plate = next((p for p in plate_names(first) if p in self.rows), None)
        if plate is None or kinds != {"Categorical"} or first.to_event:
            return None
        small = block.materialised() if isinstance(block, StreamedBlock) else block
        wide = [size for size in small.batch_shape if size > 1]
        if len(wide) > 1:
            return None
        logits = small.natural[0].reshape(len(self.rows[plate].multiplicity), -1)
        return RepeatedCategorical(logits, self.rows[plate].inverse, first.shape)

    def _full(self, block: Block) -> Block:
        """The block over all rows of its collapsed plates."""
        if isinstance(block, StreamedBlock):
            block = block.materialised()
        for axis, plate in enumerate(block.batch_plates):
            if plate is not None and plate in self.rows:
                sites = [self.latents[name] for name in block.names]
                block = block.spread(axis, self.rows[plate].inverse, sites)
        return block

    def distributions(self) -> dict[str, Distribution]:
        """The marginal of every latent."""
        return {name: self._full(self.block_of[name]).distribution(name) for name in self.latents}


def _check_family(site: TracedSite) -> None:
    if site.distribution not in FAMILY_OF_PRIOR:
        raise NotConjugate(
            f"latent site {site.name!r}: {site.distribution} has no conjugate family "
            f"({advice(site)}); {INSTEAD}"
        )


def _not_conjugate(term: ClosedTerm, block: Block, error: Unsupported) -> NotConjugate:
    return NotConjugate(
        f"site {term.origin!r}: not conjugate to its parent {block.title!r}: the expected log "
        f"density needs {error}; {INSTEAD}"
    )


def _collapsed(
    joint: ExpectedLogJoint, trace: ModelTrace, blocks: Sequence[Sequence[str] | str]
) -> tuple[ExpectedLogJoint, ModelTrace, dict[str, DistinctRows]]:
    """Collapse the rows of the largest plate that repeats."""
    written = " ".join(e if isinstance(e, str) else " ".join(e) for e in blocks)
    for name in sorted(trace.plates, key=lambda n: -trace.plates[n].size):
        if f"[{name}]" in written:
            continue
        rows = distinct_rows(joint, trace, name)
        if rows is not None:
            joint, trace = collapse_rows(joint, trace, rows)
            return joint, trace, {name: rows}
    return joint, trace, {}
