"""Elimination on random trees against dense linear algebra."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitools.elimination import Coupling, Factor, Level, Place, Tree, arrange, border
from vitools.elimination.tree import NEXT

EXACT = {"rtol": 1e-9, "atol": 1e-9}


@st.composite
def trees(draw):
    """Levels nested in chains, or beside each other, with groups that lack parents or children."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    count = draw(st.integers(0, 3))
    groups = sorted((draw(st.integers(1, 6)) for _ in range(count)), reverse=True)
    widths = [draw(st.integers(1, 3)) for _ in range(count)]
    lengths = [draw(st.sampled_from([1, 1, 2, 5])) for _ in range(count)]
    parents: list[dict[int, torch.Tensor]] = [{} for _ in range(count)]
    for i in reversed(range(count)):
        later = [j for j in range(i + 1, count) if lengths[i] == 1 or lengths[j] == 1]
        if not later or not draw(st.booleans()):
            continue
        first = draw(st.sampled_from(later))
        units = groups[first] * lengths[first]
        own = torch.randint(-1, units, (groups[i],), generator=generator)
        parents[i][first] = own
        for j, above in parents[first].items():  # what the parent is beside
            parents[i][j] = torch.where(own >= 0, above[own.clamp(min=0) // lengths[first]], -1)
        if lengths[i] > 1 and any(lengths[j] > 1 for j in parents[i]):
            parents[i] = {}
    root = draw(st.integers(0 if count else 1, 4))
    columns = [_random_columns(g, root, draw, generator) for g in groups]
    parts = zip(groups, widths, parents, columns, lengths, strict=True)
    levels = [Level(*of) for of in parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(border, "SCATTERED", draw(st.sampled_from([0, 8])))
        tree = Tree(levels, root)
    return tree, _random_precision(tree, generator), generator


def _has_parent(tree: Tree, i: int, j: int) -> torch.Tensor:
    level = tree.levels[i]
    return (level.parents[j] >= 0).repeat_interleave(level.length)[:, None, None]


def _random_columns(groups, root, draw, generator):
    """All of the root beside each group, or some of it, or none."""
    if not draw(st.booleans()):
        return None
    part = draw(st.sampled_from([0.0, 0.3, 0.7]))
    return (torch.rand(groups, root, generator=generator) < part).nonzero().mT


def _random_precision(tree: Tree, generator: torch.Generator) -> torch.Tensor:
    """Entries at the tree's places, with the diagonal made to dominate."""
    entries = torch.randn(tree.count, generator=generator, dtype=torch.float64)
    blocks = dict(tree.split(entries))
    for (i, j), block in blocks.items():
        if i == j:
            blocks[i, j] = block + block.mT
        elif j == NEXT:
            pass
        elif j is not None:
            block *= _has_parent(tree, i, j)
        elif i is not None:
            block.copy_(tree.borders[i].cleared(block))
    entries = tree.join(blocks)
    entries[tree.diagonal] = 0
    entries[tree.diagonal] = tree.dense(entries).abs().sum(-1) + 0.1
    return entries


@settings(max_examples=120, deadline=None)
@given(trees())
def test_everything_is_that_of_the_dense_matrix(case):
    tree, entries, generator = case
    dense = tree.dense(entries)
    torch.testing.assert_close(dense, dense.mT)
    factor = Factor(tree, entries)
    assert bool(factor.is_proper)
    torch.testing.assert_close(factor.log_determinant(), torch.logdet(dense), **EXACT)
    inverse = torch.linalg.inv(dense)
    vector = torch.randn(5, tree.size, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(factor.solve(vector), vector @ inverse, **EXACT)
    torch.testing.assert_close(tree.times(entries, vector), vector @ dense, **EXACT)
    found = factor.inverse_entries()
    both = torch.ones_like(entries)
    for (i, j), block in tree.split(both).items():
        if i is not None and j not in (i, None, NEXT):
            block *= _has_parent(tree, i, j)
    wanted = tree.dense(both) != 0
    torch.testing.assert_close(tree.dense(found * both)[wanted], inverse[wanted], **EXACT)
    torch.testing.assert_close(
        tree.dense(tree.outer(vector[0]))[wanted],
        torch.outer(vector[0], vector[0])[wanted],
        **EXACT,
    )
    unit = factor.spread(torch.eye(tree.size, dtype=torch.float64))
    torch.testing.assert_close(unit.mT @ unit, inverse, **EXACT)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 4), st.integers(1, 3), st.integers(1, 20))
def test_levels_are_arranged_so_that_all_couplings_have_a_place(seed, count, deep, rows):
    """Whatever is coupled, what is left for elimination is a tree."""
    generator = torch.Generator().manual_seed(seed)
    groups = [int(torch.randint(1, 7, (), generator=generator)) for _ in range(count)]
    index = [torch.randint(g, (rows,), generator=generator) for g in groups]
    if deep > 1:  # nested by data
        index = [index[0] % g for g in groups]
    couplings = [
        Coupling(i, j, index[i], index[j]) for i in range(count) for j in range(i + 1, count)
    ]
    arranged = arrange(groups, couplings)
    place = {level: i for i, level in enumerate(arranged.order)}
    levels = [
        Level(groups[i], 1, {place[j]: p for j, p in arranged.parents[i].items()})
        for i in arranged.order
    ]
    tree = Tree(levels, root=sum(groups[i] for i in arranged.dense))
    for c in couplings:
        if c.first in place and c.second in place:
            first, second = (
                Place(place[level], group, torch.zeros_like(group))
                for level, group in ((c.first, c.left), (c.second, c.right))
            )
            assert tree.entry(first, second) is not None


def test_crossed_levels_leave_the_smaller_dense_and_nested_ones_none():
    user = torch.arange(40).repeat_interleave(3)
    item = torch.randint(7, (120,), generator=torch.Generator().manual_seed(0))
    school = user // 8
    arranged = arrange(
        [7, 40, 5],
        [
            Coupling(0, 1, item, user),
            Coupling(1, 2, user, school),
            Coupling(0, 2, item, school),
        ],
    )
    assert arranged.order == (1, 2)
    assert arranged.dense == (0,)
    torch.testing.assert_close(arranged.parents[1][2], torch.arange(40) // 8)


def test_a_level_coupled_with_itself_is_dense():
    left, right = torch.arange(9), torch.arange(1, 10)
    assert arrange([10], [Coupling(0, 0, left, right)]).dense == (0,)
    assert arrange([10], [Coupling(0, 0, left, left)]).order == (0,)


def test_groups_beside_few_numbers_of_a_large_root_take_few_entries():
    """Students who rated three of 300 teachers each: 3 entries a student, not 300."""
    student = torch.arange(500).repeat_interleave(3)
    teacher = (student * 7 + torch.tensor([0, 13, 101]).repeat(500)) % 300
    sparse = Tree([Level(500, 1, {}, torch.stack([student, teacher]))], 300)
    dense = Tree([Level(500, 1)], 300)
    assert sparse.count == 500 + 3 * 500 + 300**2
    assert sparse.operations < dense.operations / 3
    generator = torch.Generator().manual_seed(0)
    entries = _random_precision(sparse, generator)
    factor = Factor(sparse, entries)
    torch.testing.assert_close(
        factor.inverse_entries()[sparse.diagonal],
        torch.linalg.inv(sparse.dense(entries)).diagonal(),
        **EXACT,
    )
    place = Place(0, student, torch.zeros_like(student))
    assert sparse.entry(place, Place(None, torch.zeros(()), teacher)) is not None
    assert sparse.entry(place, Place(None, torch.zeros(()), (teacher + 1) % 300)) is None


def test_what_is_not_positive_definite_is_told_with_the_element():
    """Intercept plus flat group means: one direction that nothing determines."""
    tree = Tree([Level(5, 1)], 1)
    rows = torch.full((5,), 4.0, dtype=torch.float64)
    entries = tree.join(
        {(0, 0): rows[:, None, None], (0, None): rows[:, None, None], (None, None): rows.sum()}
    )
    pivots = Factor(tree, entries).pivots()
    assert float(pivots[-1]) < 1e-14 or not bool(Factor(tree, entries).is_proper)
    assert bool((pivots[:-1] == 1).all())
    indefinite = entries.clone()
    indefinite[0] = -1.0
    factor = Factor(tree, indefinite)
    assert not bool(factor.is_proper)
    assert math.isnan(float(factor.log_determinant()))


def test_trees_that_are_none_are_refused():
    with pytest.raises(ValueError, match="not later"):
        Tree([Level(3, 1), Level(3, 1, {0: torch.arange(3)})], 1)
    with pytest.raises(ValueError, match="not nested"):
        Tree(
            [
                Level(4, 1, {1: torch.zeros(4).long(), 2: torch.arange(4) % 2}),
                Level(3, 1),
                Level(2, 1),
            ],
            1,
        )
    wrong = {1: torch.tensor([0, 1, 2, 2]), 2: torch.tensor([0, 1, 0, 1])}
    with pytest.raises(ValueError, match="not nested"):
        Tree([Level(4, 1, wrong), Level(3, 1, {2: torch.tensor([0, 1, 0])}), Level(2, 1)], 1)
