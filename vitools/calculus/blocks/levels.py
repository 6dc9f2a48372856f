"""How Gaussian sites that share a factor lie on a tree of groups, and what that would cost.

Axes of a site along which no term couples it with itself number its *groups*, its other axes what each
group has. Sites without groups are the dense root, and so are those whose groups the others couple
(the smaller of two crossed plates): :func:`vitools.elimination.arrange` decides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Atom
from vitools.calculus.blocks.cells import Cells, cells_of
from vitools.calculus.densities.log_joint import ClosedTerm
from vitools.calculus.tracing.trace import TracedSite
from vitools.elimination import Coupling, Level, Place, Tree, arrange

LARGEST_ROOT = 2000
"""Numbers of the dense part that is left after elimination."""
MOST_ENTRIES = 50_000_000
"""Entries of the precision matrix."""
MOST_OPERATIONS = 3e10
"""Multiplications of one factorisation."""
SMALLEST = 200
"""Numbers below which one dense matrix is as good."""


@dataclass(frozen=True)
class Levels:
    """A tree and the place of each site in it."""

    tree: Tree
    level: dict[str, int | None]
    """None: in the root."""
    start: dict[str, int]
    """Of a site in the root its first number there."""
    shapes: dict[str, tuple[int, ...]]
    along: dict[str, tuple[int, ...]]
    """The axes of each site that number what a group has; in the root all axes."""

    def place(self, atom: Atom, cells: Cells) -> Place:
        """Where the elements of a site lie that a term reads."""
        group, within = _read(atom, cells, self.shapes, self.along)
        return Place(self.level[atom.site], group, within + self.start.get(atom.site, 0))

    def positions(self, name: str) -> Tensor:
        """The tree's number of each element of a site, of its shape."""
        shape = self.shapes[name]
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
    if len(sites) < 2 or numbers < SMALLEST:
        return None
    found = levels_of(sites, terms)
    return found if found is not None and found.tree.operations < numbers**3 else None


def levels_of(sites: Sequence[TracedSite], terms: Sequence[ClosedTerm]) -> Levels | None:
    """The sites on a tree; None where they have no groups to eliminate or it would be too large."""
    shapes = {site.name: tuple(site.shape) for site in sites}
    along = {site.name: _coupled_axes(site.name, terms) for site in sites}
    grouped = [name for name in shapes if len(along[name]) < len(shapes[name])]
    groups = [
        math.prod(n for i, n in enumerate(shapes[name]) if i not in along[name]) for name in grouped
    ]
    arranged = arrange(groups, _couplings(grouped, shapes, along, terms))
    if not arranged.order:
        return None
    number = {level: place for place, level in enumerate(arranged.order)}
    dense = [name for name in shapes if name not in [grouped[i] for i in arranged.order]]
    along |= {name: tuple(range(len(shapes[name]))) for name in dense}
    sizes = [math.prod(shapes[name]) for name in dense]
    root = sum(sizes)
    if root > LARGEST_ROOT:
        return None
    start = dict(zip(dense, itertools.accumulate(sizes[:-1], initial=0), strict=False))
    levels = []
    for level in arranged.order:
        name = grouped[level]
        width = math.prod(shapes[name][i] for i in along[name])
        parents = {number[j]: p for j, p in arranged.parents[level].items()}
        columns = _columns(name, start, shapes, along, terms)
        levels.append(Level(groups[level], width, parents, columns))
    tree = Tree(levels, root)
    if tree.count > MOST_ENTRIES or tree.operations > MOST_OPERATIONS:
        return None
    level_of = {grouped[i]: place for i, place in number.items()} | dict.fromkeys(dense)
    return Levels(tree, level_of, start, shapes, along)


def _coupled_axes(name: str, terms: Sequence[ClosedTerm]) -> tuple[int, ...]:
    """The axes on which two elements of the site differ in some term."""
    found: set[int] = set()
    for term in terms:
        atoms = [a for a in term.atoms if a.site == name]
        for first, second in itertools.combinations(atoms, 2):
            pairs = enumerate(zip(first.labels, second.labels, strict=True))
            found |= {i for i, (x, y) in pairs if x != y}
    return tuple(sorted(found))


def _couplings(
    names: Sequence[str],
    shapes: Mapping[str, Sequence[int]],
    along: Mapping[str, Sequence[int]],
    terms: Sequence[ClosedTerm],
) -> Iterator[Coupling]:
    """The pairs of groups of different sites that terms couple."""
    for term in terms:
        atoms = [a for a in term.atoms if a.site in names]
        for pair in itertools.combinations(atoms, 2):
            if pair[0].site == pair[1].site:
                continue
            cells = cells_of(term, pair, shapes)
            found = [_read(atom, cells, shapes, along)[0] for atom in pair]
            left, right = torch.broadcast_tensors(*found)
            first, second = (names.index(atom.site) for atom in pair)
            yield Coupling(first, second, left, right)


def _columns(
    name: str,
    start: Mapping[str, int],
    shapes: Mapping[str, Sequence[int]],
    along: Mapping[str, Sequence[int]],
    terms: Sequence[ClosedTerm],
) -> Tensor | None:
    """Groups of a site and the numbers of the root that terms couple them with, [2, pairs].

    None where one term has a third of all pairs, of which no list is made.

    Args:
        start: the first number of each site in the root.
    """
    found: list[Tensor] = []
    third = math.prod(shapes[name]) * sum(math.prod(shapes[n]) for n in start) / 3
    for term in terms:
        groups = [a for a in term.atoms if a.site == name]
        for pair in itertools.product(groups, (a for a in term.atoms if a.site in start)):
            cells = cells_of(term, pair, shapes)
            group, _ = _read(pair[0], cells, shapes, along)
            _, number = _read(pair[1], cells, shapes, along)
            both = torch.broadcast_tensors(group, number + start[pair[1].site])
            if both[0].numel() > third:
                return None
            found.append(torch.stack([x.flatten() for x in both]))
    if not found:
        return torch.zeros(2, 0, dtype=torch.long)
    return torch.cat(found, 1)


def _read(
    atom: Atom,
    cells: Cells,
    shapes: Mapping[str, Sequence[int]],
    along: Mapping[str, Sequence[int]],
) -> tuple[Tensor, Tensor]:
    """The group of each element of a site that a term reads, and its number in the group."""
    axes = range(len(shapes[atom.site]))
    rest = [i for i in axes if i not in along[atom.site]]

    def flat(axes: Sequence[int]) -> Tensor:
        return cells.flat([atom.labels[i] for i in axes], [shapes[atom.site][i] for i in axes])

    return flat(rest), flat(along[atom.site])
