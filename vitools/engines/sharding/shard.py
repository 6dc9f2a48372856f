"""The rows of one process among those of all: what they count for, and that all processes mean one model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from vitools.engines.sharding.ranks import Ranks
from vitools.errors import ModelError, NotSupportedError, OptionError
from vitools.problem import Problem
from vitools.problem.reading.program import fingerprint
from vitools.problem.rows import cut, facts_of, has_facts, is_of_rows, plate_of_rows, told
from vitools.problem.sites import Site

MOST_ROWS, MOST_BYTES = 10_000, 2**26
"""Of the rows that all processes see, from which a run is begun."""
PART = 2**16
"""Rows that are digested together."""


@dataclass(frozen=True)
class Shard:
    """Rows of a plate, of which other processes have the rest.

    Of R processes the r-th has N_r of N rows. A model in which each of its rows counts N / N_r times
    states an estimate of what all rows say; the mean of these over the processes, weighted by N_r / N,
    is what all rows say:  Σ_r N_r/N (η₀ + N/N_r Σ_rows message) = η₀ + Σ_{all rows} message.

    Attributes:
        sizes: how many rows each process has.
    """

    ranks: Ranks
    plate: str
    sizes: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.sizes)

    @property
    def own(self) -> int:
        return self.sizes[self.ranks.rank]

    @property
    def weight(self) -> float:
        """How often a row of this process counts in the place of all."""
        return self.total / self.own

    def mean(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Over the processes, each counting for its rows."""
        share = self.own / self.total
        found = self.ranks.sum([x.double() * share for x in tensors])
        return tuple(mean.to(x.dtype) for mean, x in zip(found, tensors, strict=True))

    @property
    def words(self) -> str:
        """Whose rows a fit has."""
        return f"rank {self.ranks.rank} of {self.ranks.size}"

    # ---- what all processes have in common ------------------------------------------------------

    @classmethod
    def of(cls, problem: Problem, plate: object) -> tuple[Shard, Problem]:
        """The shard of a problem that every process made of its own rows, or an error that all raise.

        Returns:
            The shard, and the problem: of a model that takes facts of all rows the one that was told them.
        """
        ranks = Ranks()
        if all(ranks.gathered(has_facts(problem))):
            parts = ranks.gathered(ranks.each(lambda: facts_of(problem)))
            problem = ranks.each(lambda: told(problem, parts))
        name = ranks.each(lambda: _checked_plate(problem, plate))
        described = ranks.gathered(_described(problem, name))
        _refuse_unlike(described)
        sizes = tuple(ranks.gathered(problem.plates[name].size))
        if 0 in sizes:
            raise OptionError(
                f"sharded: rank {sizes.index(0)} has no rows of plate '{name}'. Start fewer processes, "
                "or divide the rows so that each has some."
            )
        return cls(ranks, name, sizes), problem

    def refuse_unlike(self, what: str, words: str) -> None:
        """Raise on all processes where what each has found is not the same."""
        _refuse_unlike([{what: found} for found in self.ranks.gathered(words)])

    def sample(self, problem: Problem, seed: int) -> tuple[tuple[Any, ...], dict[str, Any], int]:
        """Arguments with rows of all processes, the same on each: all there are, or so many at random.

        Returns:
            Arguments, those by name, and how many rows they have.
        """
        arguments = (problem.args, dict(problem.kwargs))
        leaves, spec = tree_flatten(arguments)
        of_rows = [is_of_rows(leaf, self.own) for leaf in leaves]
        everywhere = [all(found) for found in zip(*self.ranks.gathered(of_rows), strict=True)]
        if not any(everywhere):
            raise NotSupportedError(
                f"sharded: no argument of model '{problem.name}' has the rows of plate '{self.plate}' as "
                "its first dim. Give the data to the model as arguments."
            )
        for place, (leaf, has_rows) in enumerate(zip(leaves, everywhere, strict=True)):
            if not has_rows:
                digest = fingerprint((), (leaf,)) if _has_digest(leaf) else type(leaf).__name__
                said = repr(leaf) if isinstance(leaf, str | int | float | bool) else digest
                self.refuse_unlike(f"argument {place}, which does not have the rows,", said)
        rows = [leaf for leaf, has_rows in zip(leaves, everywhere, strict=True) if has_rows]
        wide = sum(leaf[:1].numel() * leaf.element_size() for leaf in rows)
        most = min(MOST_ROWS, max(1, MOST_BYTES // max(1, wide)))
        chosen = self._chosen(most, seed)
        shared = self.ranks.gathered([leaf[chosen].clone() for leaf in rows])
        joined = iter([torch.cat(parts) for parts in zip(*shared, strict=True)])
        made = [
            next(joined) if has_rows else leaf
            for leaf, has_rows in zip(leaves, everywhere, strict=True)
        ]
        args, kwargs = tree_unflatten(made, spec)
        return args, kwargs, sum(len(parts[0]) for parts in shared)

    def _chosen(self, most: int, seed: int) -> Tensor:
        if self.total <= most:
            return torch.arange(self.own)
        count = min(self.own, math.ceil(most * self.own / self.total))
        generator = torch.Generator().manual_seed(1_000_003 * seed + self.ranks.rank)
        return torch.randperm(self.own, generator=generator)[:count].sort().values

    def few_rows(self, problem: Problem, most: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments with the first rows of this process only."""
        rows = torch.arange(min(most, max(1, self.own // 2)))
        args, kwargs = cut((problem.args, dict(problem.kwargs)), self.own, rows)
        return args, kwargs

    def fingerprint(self, problem: Problem) -> str:
        """A digest of all rows that does not depend on which process has which, nor on their order."""
        leaves = tree_leaves((problem.args, problem.kwargs))
        rows = [leaf.detach() for leaf in leaves if is_of_rows(leaf, self.own)]
        parts = zip(*(leaf.split(PART) for leaf in rows), strict=True)
        whole = sum(self.ranks.gathered(sum(_digest(part) for part in parts))) % 2**64
        return f"{self.total} rows {whole:016x}"


def _checked_plate(problem: Problem, plate: object) -> str:
    if not isinstance(plate, str):
        raise OptionError(f"sharded: expected the name of a plate, got {plate!r}.")
    name = plate_of_rows(problem, "sharded", plate)
    found = problem.plates[name]
    if found.subsample_size < found.size:
        raise NotSupportedError(
            f"sharded: plate '{name}' of model '{problem.name}' is subsampled ({found.subsample_size} of "
            f"{found.size} rows), which is another way to take some at a time. State it without "
            "subsample_size."
        )
    return name


def _described(problem: Problem, plate: str) -> dict[str, str]:
    """What all processes must agree on, by what it is called."""
    found = {"the model": problem.name}
    found["the plate"] = plate
    for name, other in problem.plates.items():
        if name != plate:
            found[f"plate '{name}'"] = f"of {other.size}"
    for name, site in (problem.latents | problem.observed).items():
        found[f"site '{name}'"] = _of_site(site, plate)
    for place, leaf in enumerate(tree_leaves((problem.args, problem.kwargs))):
        if isinstance(leaf, Tensor):
            shape = ", ".join("…" if i == 0 else str(n) for i, n in enumerate(leaf.shape))
            found[f"argument {place}"] = f"{leaf.dtype} [{shape}]"
    return found


def _of_site(site: Site, plate: str) -> str:
    batch = zip(site.batch_shape, site.plates, strict=True)
    dims = ["rows" if name == plate else str(n) for n, name in batch]
    kind = "observed" if site.is_observed else "latent"
    return f"{kind} {site.distribution} [{', '.join([*dims, *map(str, site.event_shape)])}]"


def _refuse_unlike(described: Sequence[Mapping[str, str]]) -> None:
    first = described[0]
    for rank, other in enumerate(described):
        for name in {**first, **other}:
            here, there = first.get(name, "not there"), other.get(name, "not there")
            if here != there:
                error = ModelError(
                    f"sharded: ranks 0 and {rank} mean different models: {name} is {here} on rank 0 and "
                    f"{there} on rank {rank}. Give every process the same model and the same of all but "
                    "its rows; what is computed from all rows (means, counts, codes of words) has to "
                    "be computed before and given to each."
                )
                error.is_common = True
                raise error


def _has_digest(leaf: Any) -> bool:
    return isinstance(leaf, Tensor | str | int | float | bool | None)


def _digest(rows: Sequence[Tensor]) -> int:
    """A sum over rows of a digest of each, of tensors that have them, modulo 2⁶⁴."""
    total = torch.zeros(len(rows[0]), dtype=torch.int64)
    for leaf in rows:
        flat = leaf.cpu().contiguous().reshape(len(leaf), -1)
        words = flat.double().view(torch.int64) if flat.is_floating_point() else flat.long()
        places = (torch.arange(words.shape[1]) * 2 + 1) * 0x9E3779B97F4A7C1
        total = _stirred(total + _stirred(words + places).sum(1))
    return int(total.sum()) % 2**64


def _stirred(words: Tensor) -> Tensor:
    """A bijection of 64-bit integers whose output bits depend on all of its input (splitmix64)."""
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        words = words ^ ((words >> shift) & (2 ** (64 - shift) - 1))
        words = words * factor
    return words ^ ((words >> 31) & (2**33 - 1))
