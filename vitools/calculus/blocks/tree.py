"""The Gaussian factor over sites on a tree of groups: effects of groups, states over time, coefficients.

What a dense Gaussian block holds of all pairs of elements, this one holds of those that terms couple:
its statistics are E x_i, and E x_i x_j along the cells of a term (:mod:`.cells`). An update is one
elimination (:mod:`vitools.elimination`), linear in rows and groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from vitools.calculus.algebra.atoms import Atom, Constant, Unsupported
from vitools.calculus.blocks.block import DenseBlock, Resolved, describe, with_event
from vitools.calculus.blocks.cells import cells_of
from vitools.calculus.blocks.levels import Levels
from vitools.calculus.densities.closed_terms import ClosedTerm, Selection
from vitools.calculus.tracing.trace import TracedSite
from vitools.elimination import Factor
from vitools.errors import NumericalError
from vitools.families.family import narrow
from vitools.families.moments import SiteMoments
from vitools.families.tree_normal import TreeNormal, TreeNormalFamily, stored

Where = Tensor | slice


@dataclass(frozen=True)
class TreeStatistic:
    """E x at elements, or E x x' at entries of the tree's matrix.

    ``share``: of a coefficient, what is added at each place. ``mirrored``: the places of x' x where the
    matrix stores both; ``both``: of which pairs it does, if not of all.
    """

    degree: int
    shape: tuple[int, ...]
    where: Where
    mirrored: Where | None = None
    both: Tensor | None = None
    share: float = 1.0

    def places(self) -> Tensor:
        """Where a message is added up, once for each half that is stored."""
        both = (self.where,) if self.mirrored is None else (self.where, self.mirrored)
        return torch.cat([_numbers(where) for where in both])

    def parts(self, message: Tensor) -> Tensor:
        """What is added there."""
        part = message.reshape(-1) * self.share
        if self.mirrored is None:
            return part
        return torch.cat([part, part if self.both is None else part[self.both]])

    def same(self, other: TreeStatistic) -> bool:
        return (
            self.degree == other.degree
            and self.shape == other.shape
            and self.share == other.share
            and _same(self.both, other.both)
            and _same(self.where, other.where)
            and _same(self.mirrored, other.mirrored)
        )


class TreeBlock(DenseBlock):
    """η = (h, entries of -P/2) on a tree."""

    def __init__(self, sites: Sequence[TracedSite], levels: Levels):
        super().__init__(sites)
        self.levels, self.tree = levels, levels.tree
        self.family: TreeNormalFamily = TreeNormalFamily(levels.tree)
        self.batch_shape, self.batch_plates = (), ()
        self.joint_axes = {name: own.along for name, own in levels.axes.items()}
        self.positions = {name: levels.positions(name) for name in self.names}
        self.padding = levels.padding
        self.numbers = self.tree.size - len(self.padding)
        self.mean = torch.empty(0)
        self.covariance = torch.empty(0)
        self._statistics: list[TreeStatistic] = []
        self._places: dict[tuple[int, ...], Tensor] = {}

    # ---- statistics ----------------------------------------------------------------------

    def resolve(self, atoms: Sequence[Atom]) -> Resolved:
        raise NotImplementedError("a tree of groups resolves whole terms")

    def resolve_term(
        self, term: ClosedTerm, atoms: Sequence[Atom]
    ) -> tuple[Resolved, list[Constant], list[Selection]]:
        """The statistic of a term, and the constants and selections beside it."""
        functions = [atom.function for atom in atoms]
        if functions not in ([1.0], [2.0], [1.0, 1.0]):
            product = " · ".join(describe(atom) for atom in atoms)
            raise Unsupported(f"{product}: only first and second powers of a Normal site have one")
        cells = cells_of(term, atoms, self.levels.shapes)
        read = [self.levels.place(atom, cells) for atom in atoms]
        if functions == [1.0]:
            where = self.tree.element(read[0]).expand(cells.shape)
            made = TreeStatistic(1, cells.shape, _where(where))
        else:
            first, second = read[0], read[-1]
            entry = self.tree.entry(first, second)
            back: Any = None
            some: Tensor | None = None
            if entry is None:
                product = " · ".join(describe(atom) for atom in atoms)
                raise Unsupported(f"{product} of groups that are kept apart")
            if first.level == second.level and functions == [1.0, 1.0]:
                back = self.tree.entry(second, first)
                assert back is not None
                back = back.expand(cells.shape).reshape(-1)
                both = ~self.tree.is_mirrored[back]
                some = None if bool(both.all()) else both.nonzero().squeeze(-1)
                back = _where(back[both]) if bool(both.any()) else None
            share = 0.5 if functions == [1.0, 1.0] else 1.0
            places = _where(entry.expand(cells.shape))
            made = TreeStatistic(2, cells.shape, places, back, some, share)
        for number, known in enumerate(self._statistics):
            if known.same(made):
                return Resolved(number, tuple(cells.labels)), cells.constants, cells.selections
        self._statistics.append(made)
        number = len(self._statistics) - 1
        return Resolved(number, tuple(cells.labels)), cells.constants, cells.selections

    def statistics(self) -> Iterable[Any]:
        return range(len(self._statistics))

    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        return self._statistics[key].shape

    def component(self, key: Any) -> int:
        return self._statistics[key].degree - 1

    def component_shape(self, component: int) -> tuple[int, ...]:
        return (self.tree.size,) if component == 0 else (self.tree.count,)

    def embed(self, key: Any, message: Tensor) -> Tensor:
        return self._added({key: message})

    def _sums(self, messages: Mapping[Any, Tensor]) -> dict[int, Tensor]:
        by_component: dict[int, dict[Any, Tensor]] = {}
        for key, message in messages.items():
            whole = message.expand(self.statistic_shape(key))
            by_component.setdefault(self.component(key), {})[key] = whole
        return {i: self._added(part) for i, part in by_component.items()}

    def _added(self, messages: Mapping[Any, Tensor]) -> Tensor:
        """The coefficients of statistics of one component, at their places."""
        keys = tuple(messages)
        if keys not in self._places:
            self._places[keys] = torch.cat([self._statistics[key].places() for key in keys])
        parts = [self._statistics[key].parts(message) for key, message in messages.items()]
        values = torch.cat(parts)
        total = values.new_zeros(self.component_shape(self.component(keys[0])))
        return total.index_add_(0, self._places[keys], values)

    def extract(self, key: Any, mean: Tensor) -> Tensor:
        statistic = self._statistics[key]
        return mean[..., statistic.where].reshape(statistic.shape)

    # ---- the update ------------------------------------------------------------------------

    def set_factor(self, natural: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.natural = natural
        self.mean, self.covariance, log_root = self.family.mean_and_covariance(natural)
        self._entropies = 0.5 * self.numbers * math.log(2 * math.pi * math.e) - log_root
        return self.mean, self.covariance + self.tree.outer(self.mean)

    def gathered(self, messages: Mapping[Any, Tensor]) -> tuple[Tensor, ...]:
        """What fills up the last units stands apart, as N(0, 1)."""
        linear, quadratic = super().gathered(messages)
        if len(self.padding):
            apart = torch.full((len(self.padding),), -0.5, dtype=quadratic.dtype)
            quadratic = quadratic.index_add(0, self.tree.diagonal[self.padding], apart)
        return linear, quadratic

    def made_of(self, sites: Sequence[TracedSite]) -> DenseBlock:
        return TreeBlock(sites, self.levels)

    def starting_point(
        self, prior: Mapping[Any, Tensor], generator: torch.Generator | None
    ) -> tuple[Tensor, ...]:
        zeros = torch.zeros(self.tree.size, dtype=torch.float64)
        return self.family.start((zeros,), generator)

    def place(self, given: Mapping[str, SiteMoments]) -> None:
        mean = self.mean.clone()
        variance = self.covariance[self.tree.diagonal].clone()
        for name in self.names:
            if name in given:
                spread = given[name].variance
                where = self.positions[name]
                mean[where] = given[name].mean.to(mean)
                variance[where] = narrow(given[name].mean) if spread is None else spread.to(mean)
        self.restore(self.family.with_moments(mean, variance))

    def check(self) -> None:
        if not bool(self._entropies.isfinite()) or not bool(self.mean.isfinite().all()):
            raise NumericalError(
                f"site {self.title!r}: the update's precision matrix is not positive definite"
                f"{self._culprits()}; the prior may be improper or the elements collinear"
            )

    def check_determined(self) -> None:
        """Refuse a flat prior's factor whose precision is rounding in some direction."""
        flat = [site.name for site in self.sites if site.distribution == "ImproperUniform"]
        if flat and not bool(self.family.proper(self.natural)):
            raise NumericalError(
                f"flat prior of {', '.join(map(repr, flat))}: the data leave a direction of {self.title!r} "
                f"undetermined{self._culprits()}, so the posterior is improper. Leave out what is "
                "collinear, or give a proper prior."
            )

    def _culprits(self) -> str:
        """The elements that those eliminated before them determine, by name."""
        factor = Factor(self.tree, -2 * self.natural[1])
        low = ~(factor.pivots() > self.family.rounding)
        names = [
            name + (f"{where.tolist()}" if where.numel() else "")
            for name in self.names
            for where in low[self.positions[name]].nonzero()[:3]
        ]
        return f" (by {', '.join(names[:3])})" if names else ""

    # ---- distributions ---------------------------------------------------------------------

    def _location(self, site: TracedSite) -> Tensor:
        """The mean of a site's values: of x - c, plus c."""
        mean = self.mean[self.positions[site.name]]
        return mean if site.reference is None else mean + site.reference

    def joint_distribution(self) -> Distribution:
        loc = torch.cat([self._location(site).reshape(-1) for site in self.sites])
        positions = torch.cat([self.positions[name].reshape(-1) for name in self.names])
        return TreeNormal(loc, -2 * self.natural[1], stored(self.tree), positions)

    def distribution(self, name: str) -> Distribution:
        site = next(site for site in self.sites if site.name == name)
        if len(self.sites) == 1:
            where = self.positions[name]
            return TreeNormal(self._location(site), -2 * self.natural[1], stored(self.tree), where)
        variance = self.covariance[self.tree.diagonal][self.positions[name]]
        return with_event(Normal(self._location(site), variance.sqrt(), validate_args=False), site)


def _where(index: Tensor) -> Where:
    """Consecutive places as a slice, which is read without a copy."""
    flat = index.reshape(-1)
    if not len(flat):
        return slice(0, 0)
    start = int(flat[0])
    if torch.equal(flat, torch.arange(start, start + len(flat))):
        return slice(start, start + len(flat))
    return flat.contiguous()


def _same(first: Where | None, second: Where | None) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    return not isinstance(first, Tensor) and not isinstance(second, Tensor) and first == second


def _numbers(where: Where) -> Tensor:
    return torch.arange(where.start, where.stop) if isinstance(where, slice) else where
