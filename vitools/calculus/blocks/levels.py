"""How Gaussian sites that share a factor lie on a tree of groups, and what that would cost.

Axes of a site along which no term couples it with itself number its *groups*, its other axes what each
group has. An axis along which terms couple no elements but neighbours makes each group a Markov chain; where
they couple elements up to p steps apart, p successive steps stand in one unit, so that units are coupled with
their neighbours alone (the last is filled up). Sites coupled at the same steps of the same chains stand in
them together. Sites without groups are the
dense root, and so are those whose groups the others couple (the smaller of two crossed plates):
:func:`vitools.elimination.arrange` decides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Atom
from vitools.calculus.blocks.cells import Cells, cells_of
from vitools.calculus.densities.closed_terms import ClosedTerm
from vitools.calculus.tracing.trace import TracedSite
from vitools.elimination import Coupling, Level, Place, Tree, arrange, is_along

LARGEST_ROOT = 2000
"""Numbers of the dense part that is left after elimination."""
MOST_ENTRIES = 50_000_000
"""Entries of the precision matrix."""
MOST_OPERATIONS = 3e10
"""Multiplications of one factorisation."""
SMALLEST = 200
"""Numbers below which one dense matrix is as good."""
SHORTEST_CHAIN = 3
"""Units from which neighbours along an axis make a chain."""
MOST_LAGS = 12
"""Steps that terms may reach back in a chain."""


@dataclass(frozen=True)
class Axes:
    """What the axes of a site number.

    ``along``: the numbers that a step has; ``step``: the steps of a chain; the others: groups. ``lag``: how
    many successive steps stand in one unit.
    """

    shape: tuple[int, ...]
    along: tuple[int, ...]
    step: int | None = None
    lag: int = 1

    @property
    def rest(self) -> tuple[int, ...]:
        """Those that number groups."""
        return tuple(i for i in range(len(self.shape)) if i not in (*self.along, self.step))

    @property
    def steps(self) -> int:
        return 1 if self.step is None else self.shape[self.step]

    @property
    def length(self) -> int:
        """The units of a chain."""
        return -(-self.steps // self.lag)

    @property
    def width(self) -> int:
        return math.prod(self.shape[i] for i in self.along)

    @property
    def groups(self) -> int:
        return math.prod(self.shape[i] for i in self.rest)

    def unit(self, atom: Atom, cells: Cells) -> Tensor:
        return self._flat(self.rest, atom, cells) * self.length + self.time(atom, cells) // self.lag

    def time(self, atom: Atom, cells: Cells) -> Tensor:
        """The step; 0 where there is none."""
        if self.step is None:
            return torch.zeros((), dtype=torch.long)
        return cells.position(atom.labels[self.step])

    def within(self, atom: Atom, cells: Cells) -> Tensor:
        return self._flat(self.along, atom, cells)

    def _flat(self, axes: Sequence[int], atom: Atom, cells: Cells) -> Tensor:
        return cells.flat([atom.labels[i] for i in axes], [self.shape[i] for i in axes])

    def dense(self) -> Axes:
        """The same with no groups."""
        return Axes(self.shape, tuple(range(len(self.shape))))


@dataclass(frozen=True)
class Levels:
    """A tree and the place of each site in it."""

    tree: Tree
    level: dict[str, int | None]
    """None: in the root."""
    start: dict[str, int]
    """Of each site its first number in the root, or in each step of its level."""
    axes: dict[str, Axes]
    strides: dict[str, int]
    """Of each site how many numbers a step of its level has."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: axes.shape for name, axes in self.axes.items()}

    def place(self, atom: Atom, cells: Cells) -> Place:
        """Where the elements of a site lie that a term reads."""
        axes = self.axes[atom.site]
        unit, within = axes.unit(atom, cells), axes.within(atom, cells)
        within = within + axes.time(atom, cells) % axes.lag * self.strides[atom.site]
        return Place(self.level[atom.site], unit, within + self.start[atom.site])

    @property
    def padding(self) -> Tensor:
        """The tree's numbers of elements that fill up the last units of chains."""
        found = [torch.zeros(0, dtype=torch.long)]
        for level, name in {at: name for name, at in self.level.items()}.items():
            axes = self.axes[name]
            if level is None or axes.steps % axes.lag == 0:
                continue
            last = torch.arange(axes.groups) * axes.length + axes.length - 1
            stride = self.strides[name]
            within = torch.arange(axes.steps % axes.lag * stride, axes.lag * stride)
            found.append(self.tree.element(Place(level, last.unsqueeze(-1), within)).flatten())
        return torch.cat(found)

    def positions(self, name: str) -> Tensor:
        """The tree's number of each element of a site, of its shape."""
        shape = self.axes[name].shape
        labels = tuple(range(len(shape)))
        axes: dict[int, tuple[Tensor, tuple[int, ...]]] = {
            x: (torch.arange(n), (x,)) for x, n in enumerate(shape)
        }
        every = Cells(list(labels), dict(enumerate(shape)), [], [], axes)
        place = self.place(Atom(name, 1.0, labels), every)
        return self.tree.element(place).expand(shape)


def tree_of(
    sites: Sequence[TracedSite], terms: Sequence[ClosedTerm], numbers: int
) -> Levels | None:
    """The sites on a tree where that is cheaper than one dense matrix of so many numbers."""
    if numbers < SMALLEST:
        return None
    found = levels_of(sites, terms)
    return found if found is not None and found.tree.operations < numbers**3 else None


def levels_of(sites: Sequence[TracedSite], terms: Sequence[ClosedTerm]) -> Levels | None:
    """The sites on a tree; None where they have no groups to eliminate or it would be too large."""
    axes = {site.name: _axes(site, terms) for site in sites}
    grouped = [name for name, own in axes.items() if len(own.along) < len(own.shape)]
    bundles, couplings, lags = _bundled(grouped, axes, terms)
    axes |= {name: replace(axes[name], lag=lag) for name, lag in lags.items()}
    first = [axes[names[0]] for names in bundles]
    arranged = arrange([a.groups for a in first], couplings, [a.length for a in first])
    if not arranged.order:
        return None
    number = {level: place for place, level in enumerate(arranged.order)}
    kept = {name: number[i] for i in arranged.order for name in bundles[i]}
    dense = [name for name in axes if name not in kept]
    axes |= {name: axes[name].dense() for name in dense}
    start: dict[str, int] = {}
    root = _laid_out(dense, axes, start)
    strides = dict.fromkeys(dense, root)
    if root > LARGEST_ROOT:
        return None
    levels = []
    for level in arranged.order:
        own = first[level]
        columns = (
            _columns(bundles[level][0], dense, start, axes, terms) if own.step is None else None
        )
        width = _laid_out(bundles[level], axes, start)
        strides |= dict.fromkeys(bundles[level], width)
        parents = {number[j]: p for j, p in arranged.parents[level].items()}
        levels.append(Level(own.groups, width * own.lag, parents, columns, own.length))
    tree = Tree(levels, root)
    if tree.count > MOST_ENTRIES or tree.operations > MOST_OPERATIONS:
        return None
    return Levels(tree, {name: kept.get(name) for name in axes}, start, axes, strides)


def _laid_out(names: Sequence[str], axes: Mapping[str, Axes], start: dict[str, int]) -> int:
    """Places one after another for the numbers that sites have in a step; how many there are."""
    total = 0
    for name in names:
        start[name] = total
        total += axes[name].width
    return total


def _axes(site: TracedSite, terms: Sequence[ClosedTerm]) -> Axes:
    """Which axes two elements of the site differ on in some term, and which of them is a chain's."""
    shape = tuple(site.shape)
    reach: dict[int, int] = {}
    for term in terms:
        atoms = [a for a in term.atoms if a.site == site.name]
        for first, second in itertools.combinations(atoms, 2):
            pairs = enumerate(zip(first.labels, second.labels, strict=True))
            differ = [i for i, (x, y) in pairs if x != y]
            cells = cells_of(term, (first, second), {site.name: shape}) if differ else None
            for i in differ:
                assert cells is not None
                apart = cells.position(first.labels[i]) - cells.position(second.labels[i])
                reach[i] = max(reach.get(i, 0), int(apart.abs().max()))
    coupled = sorted(reach)
    chains = [
        i for i in coupled if 1 <= reach[i] <= MOST_LAGS and shape[i] >= SHORTEST_CHAIN * reach[i]
    ]
    step = max(chains, key=lambda i: shape[i]) if chains else None
    return Axes(shape, tuple(i for i in coupled if i != step), step)


Pairs = dict[tuple[str, str], list[tuple[Tensor, Tensor]]]


def _bundled(
    names: Sequence[str], axes: Mapping[str, Axes], terms: Sequence[ClosedTerm]
) -> tuple[list[list[str]], list[Coupling], dict[str, int]]:
    """Sites that stand in the same chains together, the pairs of units that terms couple, lags."""
    found = _coupled(names, axes, terms)
    bundle = {name: [name] for name in names}
    for (one, other), pairs in found.items():
        if bundle[one] is bundle[other] or not _are_in_step(axes[one], axes[other], pairs):
            continue
        bundle |= dict.fromkeys((*bundle[one], *bundle[other]), bundle[one] + bundle[other])
    bundles = list({id(members): members for members in bundle.values()}.values())
    number = {name: i for i, members in enumerate(bundles) for name in members}
    reach = [1] * len(bundles)
    for (one, other), pairs in found.items():
        if number[one] == number[other]:
            apart = [int((left - right).abs().max()) for left, right in pairs]
            reach[number[one]] = max(reach[number[one]], *apart)
    lags = {name: reach[i] for name, i in number.items()}

    def packed(name: str, unit: Tensor) -> Tensor:
        own = replace(axes[name], lag=lags[name])
        return unit // own.steps * own.length + unit % own.steps // own.lag

    couplings = [
        Coupling(number[one], number[other], packed(one, left), packed(other, right))
        for (one, other), pairs in found.items()
        for left, right in pairs
    ]
    return bundles, couplings, lags


def _coupled(names: Sequence[str], axes: Mapping[str, Axes], terms: Sequence[ClosedTerm]) -> Pairs:
    """Pairs of steps of sites that terms couple."""
    found: Pairs = {}
    for term in terms:
        atoms = [a for a in term.atoms if a.site in names]
        for pair in itertools.combinations(atoms, 2):
            if pair[0].site == pair[1].site and axes[pair[0].site].step is None:
                continue
            cells = cells_of(term, pair, {a.site: axes[a.site].shape for a in pair})
            units = torch.broadcast_tensors(*(axes[a.site].unit(a, cells) for a in pair))
            found.setdefault((pair[0].site, pair[1].site), []).append((units[0], units[1]))
    return found


def _are_in_step(one: Axes, other: Axes, pairs: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Whether two sites are chains of the same kind, coupled at steps that are near."""
    kinds = {(own.groups, own.length, own.step is None) for own in (one, other)}
    if len(kinds) > 1 or one.step is None:
        return False
    return all(is_along(left, right, one.length, MOST_LAGS) for left, right in pairs)


def _columns(
    name: str,
    dense: Sequence[str],
    start: Mapping[str, int],
    axes: Mapping[str, Axes],
    terms: Sequence[ClosedTerm],
) -> Tensor | None:
    """Groups of a site and the numbers of the root that terms couple them with, [2, pairs].

    None where one term has a third of all pairs, of which no list is made.

    Args:
        dense: the sites in the root.
        start: the first number of each there.
    """
    found: list[Tensor] = []
    third = math.prod(axes[name].shape) * sum(math.prod(axes[n].shape) for n in dense) / 3
    for term in terms:
        groups = [a for a in term.atoms if a.site == name]
        for pair in itertools.product(groups, (a for a in term.atoms if a.site in dense)):
            cells = cells_of(term, pair, {a.site: axes[a.site].shape for a in pair})
            group, number = (
                axes[name].unit(pair[0], cells),
                axes[pair[1].site].within(pair[1], cells),
            )
            both = torch.broadcast_tensors(group, number + start[pair[1].site])
            if both[0].numel() > third:
                return None
            found.append(torch.stack([x.flatten() for x in both]))
    if not found:
        return torch.zeros(2, 0, dtype=torch.long)
    return torch.cat(found, 1)
