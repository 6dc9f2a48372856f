"""A model on some of the rows of its longest plate, and the order in which rows are taken.

A model that subsamples the plate (``subsample_size``) is told which indices to take. Any other is run on
arguments cut to the rows: those tensors whose first dim is as long as the plate. Either way the model
states of the rows what it states of them among all, which is tried on the first batch and on half of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from vitools.calculus import ConjugateModel
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.streams.share import Share
from vitools.calculus.tracing.trace import TracedSite
from vitools.errors import ModelError, NotSupportedError, OptionError, VitoolsError, clause
from vitools.isolation import plate_at
from vitools.problem import Problem
from vitools.problem.rows import cut, facts_of, has_facts, is_of_rows, plate_of_rows
from vitools.whole_numbers import check_whole

RUN = 64
"""Neighbouring rows that stay together when rows are taken in random order: files are read by pages."""

BatchRows = int | Mapping[str, int]
"""How many rows of the longest observed plate, or of the plate that is named."""


class RowBatches:
    """The rows of one plate, some at a time.

    Args:
        size: rows of a batch; the last of a pass has what remains.
        make: the conjugate model of a Pyro model, its arguments and what its rows stand for.
        hold_out: how many rows, chosen at random, are in no shuffled batch.
        seed: of that choice.

    Attributes:
        total: rows of the plate.
        held_out: those rows, in order.
    """

    def __init__(
        self,
        problem: Problem,
        size: BatchRows,
        make: Callable[..., ConjugateModel],
        hold_out: int | None = None,
        seed: int = 0,
    ):
        self.problem, self._make = problem, make
        self.plate, self.size = _plate_and_size(problem, size)
        plate = problem.plates[self.plate]
        self.total = plate.size
        self._subsamples = plate.subsample_size < plate.size
        self._arguments = (problem.args, dict(problem.kwargs))
        if has_facts(problem):
            self._arguments[1]["facts"] = facts_of(problem)
        leaves = tree_leaves((problem.args, problem.kwargs))
        self._has_rows = any(is_of_rows(leaf, self.total) for leaf in leaves)
        if not (self._subsamples or self._has_rows):
            raise NotSupportedError(
                f"batch_rows: no argument of model '{problem.name}' has the {self.total} rows of plate "
                f"'{self.plate}' as its first dim. Give the data to the model as arguments, or state the "
                "plate with a subsample_size."
            )

        self.held_out = torch.empty(0, dtype=torch.long)
        if hold_out is not None:
            check_whole("hold_out", hold_out, 2)
            if hold_out > self.total - self.size:
                raise OptionError(
                    f"hold_out={hold_out}: plate '{self.plate}' has {self.total} rows, of which not one batch of "
                    f"{self.size} would be left. Hold out fewer."
                )
            generator = torch.Generator().manual_seed(seed)
            chosen = torch.randperm(self.total, generator=generator)[:hold_out]
            self.held_out = chosen.sort().values

    @property
    def count(self) -> int:
        """Batches in a pass of steps."""
        return -(-(self.total - len(self.held_out)) // self.size)

    def in_order(self) -> Iterator[Tensor]:
        """All rows, batch by batch."""
        for start in range(0, self.total, self.size):
            yield torch.arange(start, min(start + self.size, self.total))

    def shuffled(self, generator: torch.Generator) -> Iterator[Tensor]:
        """All rows that are not held out, batch by batch, in a random order of short runs."""
        run = max(1, min(RUN, self.size // 16))
        starts = torch.randperm(-(-self.total // run), generator=generator) * run
        rest = torch.empty(0, dtype=torch.long)
        for part in starts.split(max(1, self.size // run)):
            rows = (part.unsqueeze(1) + torch.arange(run)).flatten()
            rows = rows[rows < self.total]
            rest = torch.cat([rest, rows[~torch.isin(rows, self.held_out)]])
            while len(rest) >= self.size:
                yield rest[: self.size].sort().values
                rest = rest[self.size :]
        if len(rest):
            yield rest.sort().values

    def model(self, rows: Tensor, points: Mapping[str, Tensor] | None = None) -> ConjugateModel:
        """The model of these rows, each counting for as many as it stands for."""
        share = Share(self.plate, self.total / len(rows), points)
        args, kwargs = self._arguments
        if not self._subsamples:
            args, kwargs = cut((args, kwargs), self.total, rows)
        chosen = plate_at(self.plate, rows) if self._subsamples else nullcontext()
        with chosen:
            try:
                made = self._make(self.problem.model, args, kwargs, share=share)
            except VitoolsError:
                raise
            except Exception as error:
                raise ModelError(
                    f"model '{self.problem.name}' does not run on {len(rows)} of its {self.total} rows "
                    f"({type(error).__name__}: {clause(error)}). {self._remedy}"
                ) from error
        found = made.trace.plates[self.plate].size
        if made.rows.get(self.plate) is None and found != len(rows):
            raise ModelError(
                f"plate '{self.plate}' of model '{self.problem.name}' has {found} rows where its data "
                f"have {len(rows)}. {self._remedy}"
            )
        return made

    @property
    def _remedy(self) -> str:
        return (
            f"Give plate '{self.plate}' the length of its data, or a subsample_size and index the data "
            "by the plate: with pyro.plate(…, subsample_size=…) as rows: … x[rows]."
        )

    def try_rows(self, rows: Tensor, model: ConjugateModel) -> None:
        """Refuse a model that makes of its rows what depends on which others there are."""
        if self._subsamples or len(rows) < 2:
            return
        half = rows[: len(rows) // 2]
        other = self.model(half, {})
        for name, site in model.trace.sites.items():
            twin = other.trace.sites.get(name)
            if twin is None or same_rows(site, twin):
                continue
            raise NotSupportedError(
                f"batch_rows: what model '{self.problem.name}' states of site '{name}' for a row depends "
                "on which other rows there are (a mean taken inside the model, say). Prepare the data "
                "before, and give the model rows that stand for themselves, or let it hand out "
                "facts_of_rows, as vitools.models.mixtures.mixture does."
            )


def _plate_and_size(problem: Problem, size: BatchRows) -> tuple[str, int]:
    plate: str | None = None
    count: Any = size
    if isinstance(size, Mapping):
        if len(size) != 1:
            raise OptionError(
                f"batch_rows: expected a number, or {{plate: number}} for one plate, got {dict(size)!r}."
            )
        ((plate, count),) = size.items()
    plate = plate_of_rows(problem, "batch_rows", plate)
    check_whole("batch_rows", count, 2)
    total = problem.plates[plate].size
    if count >= total:
        raise OptionError(
            f"batch_rows={count}: plate '{plate}' has {total} rows, which one batch would hold. Leave "
            "batch_rows out."
        )
    return plate, int(count)


def same_rows(site: TracedSite, half: TracedSite) -> bool:
    """Whether the first rows of a site are those of another run on these alone."""
    pairs = [(site.observed, half.observed)]
    for name, argument in site.arguments.items():
        other = half.arguments.get(name)
        pairs.append((argument, other))
        if isinstance(argument, Expression) and isinstance(other, Expression):
            for one, two in zip(argument.terms, other.terms, strict=False):
                constants = zip(one.constants(), two.constants(), strict=False)
                pairs += [(a.tensor, b.tensor) for a, b in constants]
    return all(
        _begins_with(first, second)
        for first, second in pairs
        if isinstance(first, Tensor) and isinstance(second, Tensor)
    )


def _begins_with(first: Tensor, second: Tensor) -> bool:
    """Whether the second is the first as far as it goes."""
    if first.dim() != second.dim() or first.is_meta or second.is_meta:
        return True
    for axis, size in enumerate(second.shape):
        first = first.narrow(axis, 0, min(size, first.shape[axis]))
    return first.shape != second.shape or torch.equal(first, second)
