"""Where the nodes of a graph with plates go: a layered start, improved by local search on a grid.

The start is Sugiyama, Tagawa and Toda (1981): layers by longest path, order within a layer by
barycentres. It knows nothing of plates, so every move of a node, a plate or an arrow that lowers
the cost of ``cost.py`` is then taken. The search is seeded and so repeatable. Where it finds
no arrangement that respects a plate as one rectangle, the plate is drawn as two of the same name.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitools.reporting.graph.cost import Cost, Positions

__all__ = ["arrange"]

_REACH = 12  # columns or rows that a node moves at once, so that a large graph costs no more a move
_KICKS, _EFFORT = 6, 120_000  # repetitions, fewer of them the larger the graph
_MOST_PAIRS = 60_000_000  # of arrows and nodes compared in one search: some two seconds


def arrange(
    size: int,
    edges: Sequence[tuple[int, int]],
    plates: Sequence[Sequence[int]],
    kin: Sequence[tuple[int, int]],
) -> tuple[Positions, list[list[list[int]]]]:
    """Positions [nodes, 2], and for each plate the groups of its nodes that share a rectangle.

    ``kin`` are pairs such as z₁, z₂: kept in one row, and an arrow between them is a step of time
    and points rightwards.
    """
    parts = _components(size, [*edges, *kin, *plates])
    positions = np.zeros((size, 2), dtype=np.float32)
    groups: list[list[list[int]]] = [[] for _ in plates]
    placed = []
    for part in parts:
        local = {v: i for i, v in enumerate(part)}
        chosen = [p for p, plate in enumerate(plates) if plate[0] in local]
        inside, pieces = _arrange_connected(
            len(part),
            [(local[u], local[v]) for u, v in edges if u in local],
            [[local[v] for v in plates[p]] for p in chosen],
            [(local[u], local[v]) for u, v in kin if u in local],
        )
        placed.append((part, inside))
        for p, piece in zip(chosen, pieces, strict=True):
            groups[p] = [[part[i] for i in group] for group in piece]
    _shelve(positions, placed)
    return positions, groups


def _components(size: int, ties: Sequence[Sequence[int]]) -> list[list[int]]:
    """Sets of nodes that any tie holds together, in order of their first node."""
    home = list(range(size))
    for tie in ties:
        joined = {home[v] for v in tie}
        home = [min(joined) if h in joined else h for h in home]
    return [[v for v in range(size) if home[v] == h] for h in sorted(set(home))]


def _shelve(positions: Positions, placed: list[tuple[list[int], Positions]]) -> None:
    """Unconnected parts side by side, the tallest first, on as many shelves as a page needs."""
    placed = sorted(placed, key=lambda item: -np.ptp(item[1][:, 1]))
    widest = max(16.0, *(np.ptp(inside[:, 0]) for _, inside in placed))
    column = row = tallest = 0.0
    for part, inside in placed:
        width, height = np.ptp(inside, axis=0)
        if column and column + width > widest:
            column, row, tallest = 0.0, row + tallest + 1, 0.0
        positions[part] = inside - inside.min(0) + (column, row)
        column, tallest = column + width + 2, max(tallest, height)


def _arrange_connected(
    size: int,
    edges: Sequence[tuple[int, int]],
    plates: Sequence[Sequence[int]],
    kin: Sequence[tuple[int, int]],
) -> tuple[Positions, list[list[list[int]]]]:
    groups = [[sorted(plate)] for plate in plates]
    while True:
        flat = [group for plate in groups for group in plate]
        cost = Cost(size, edges, flat, kin)
        best = _search(cost)
        if not cost.forbidden(best[None])[0]:
            return best, groups
        # A plate that crosses another is cut along that crossing; single nodes always fit.
        home = [(p, k) for p, plate in enumerate(groups) for k in range(len(plate))]
        p, k, part = _cut(flat, home)
        whole = groups[p].pop(k)
        groups[p] += [part, sorted(set(whole) - set(part))]


def _cut(flat: list[list[int]], home: list[tuple[int, int]]) -> tuple[int, int, list[int]]:
    """Which group to cut, and the part of it that leaves: what it shares with a crossing group."""
    crossing = [
        (len(set(a) & set(b)), index, sorted(set(a) & set(b)))
        for index, a in enumerate(flat)
        for b in flat
        if set(a) & set(b) and set(a) - set(b) and set(b) - set(a)
    ]
    if crossing:
        _, index, part = max(crossing, key=lambda c: c[:2])
    else:
        index = max(range(len(flat)), key=lambda i: len(flat[i]))
        part = flat[index][: len(flat[index]) // 2]
    return *home[index], part


def _search(cost: Cost) -> Positions:
    """The cheapest arrangement found from a few starts, kicked and repaired a few times each."""
    random = np.random.default_rng(0)
    layers, order = _layers(cost)
    starts = [np.stack([2 * order, layers], 1), np.stack([2 * layers, order], 1)]
    if cost.sequential.any():
        starts.append(_timeline(cost))
    starts = [start.astype(np.float32) for start in starts]
    if cost.size == 1:
        return starts[0]
    kicks = min(_KICKS, _EFFORT // (cost.size * cost.pairs))
    if not kicks:
        starts = [min(starts, key=lambda start: float(cost(start[None])[0]))]
    best, price = starts[0], np.inf
    for start in starts:
        budget = _Budget(_MOST_PAIRS // len(starts))
        now, now_price = _improve(cost, start, budget)
        for _ in range(kicks):
            kicked = now.copy()
            chosen = random.choice(cost.size, max(2, cost.size // 4), replace=False)
            kicked[chosen] = random.permutation(kicked[chosen])
            kicked[chosen, 0] += random.integers(-2, 3, len(chosen))
            trial, trial_price = _improve(cost, kicked, budget)
            if trial_price < now_price - 1e-3:
                now, now_price = trial, trial_price
        if now_price < price - 1e-3:
            best, price = now, now_price
    return best


def _layers(cost: Cost) -> tuple[NDArray, NDArray]:
    """Layer of each node by longest path, sources just above their children; order within it."""
    parents = [cost.edges[cost.edges[:, 1] == v, 0] for v in range(cost.size)]
    children = [cost.edges[cost.edges[:, 0] == v, 1] for v in range(cost.size)]
    layers = np.zeros(cost.size)
    for _ in range(cost.size):
        for v in range(cost.size):
            layers[v] = max((layers[u] + 1 for u in parents[v]), default=0)
    for v in reversed(range(cost.size)):
        if len(children[v]) and not len(parents[v]):
            layers[v] = layers[children[v]].min() - 1
    order = np.zeros(cost.size)
    for layer in np.unique(layers):
        order[layers == layer] = np.arange((layers == layer).sum())
    for _ in range(4):
        for layer in np.unique(layers):
            inside = np.flatnonzero(layers == layer)
            around = [np.concatenate([parents[v], children[v]]).astype(int) for v in inside]
            wish = [
                order[near].mean() if len(near) else order[v]
                for near, v in zip(around, inside, strict=True)
            ]
            order[inside[np.argsort(wish, kind="stable")]] = np.arange(len(inside))
    return layers, order


def _timeline(cost: Cost) -> NDArray:
    """Time rightwards; what a moment produces beneath it; what all moments share above or below."""
    time, row = np.full(cost.size, -1), np.zeros(cost.size)
    time[cost.edges[cost.sequential].ravel()] = 0
    for _ in range(cost.size):
        for (u, v), step in zip(cost.edges, cost.sequential, strict=True):
            if time[u] >= 0:
                time[v] = max(time[v], time[u] + step)
                row[v] = max(row[v], row[u] + (not step))
    column = 2.0 * time
    for v in np.flatnonzero(time < 0):
        children = cost.edges[(cost.edges[:, 0] == v) & (time[cost.edges[:, 1]] >= 0), 1]
        if len(children):
            column[v] = np.round(column[children].mean())
            above = row[children].mean() <= row.max() / 2
            row[v] = -2 if above else row.max() + 2
    return np.stack([column, row], 1)


class _Budget:
    """How many pairs may still be compared: of a large graph the search ends before it has settled."""

    def __init__(self, pairs: int) -> None:
        self.pairs = pairs


def _improve(cost: Cost, positions: Positions, budget: _Budget) -> tuple[Positions, float]:
    """Best move of each node, plate and arrow in turn, until none helps."""
    while True:
        before = positions
        for block, around in cost.blocks:
            if budget.pairs > 0:
                for candidates in _moves(positions, block):
                    positions = _cheapest(around, positions, candidates, budget)
        if budget.pairs > 0:
            positions = _cheapest(cost, positions, _rearranged(positions), budget)
        if positions is before or budget.pairs <= 0:
            return positions, float(cost(positions[None])[0])


def _cheapest(
    cost: Cost, positions: Positions, candidates: Positions, budget: _Budget
) -> Positions:
    """The cheapest candidate if it beats the present positions, which else stay as they are."""
    budget.pairs -= len(candidates) * cost.pairs
    prices = cost(np.concatenate([positions[None], candidates]))
    least = int(prices.argmin())
    return candidates[least - 1] if prices[least] < prices[0] - 1e-3 else positions


def _moves(positions: Positions, block: NDArray) -> list[Positions]:
    """The block everywhere within reach (one node) or nearby (several)."""
    if len(block) == 1:
        here = positions[block[0]]
        low = np.maximum(positions.min(0) - (3, 1), here - _REACH)
        high = np.minimum(positions.max(0) + (3, 1), here + _REACH)
        columns, rows = np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1)
        targets = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
        shifts = targets - here
    else:
        shifts = np.stack(np.meshgrid(np.arange(-6, 7), np.arange(-2, 3)), -1).reshape(-1, 2)
    moved = np.repeat(positions[None], len(shifts), 0)
    moved[:, block] += shifts[:, None].astype(np.float32)
    if len(block) < 3:
        return [moved]
    mirrored = moved.copy()
    x = mirrored[:, block, 0]
    mirrored[:, block, 0] = x.max(1, keepdims=True) + x.min(1, keepdims=True) - x
    return [moved, mirrored]


def _rearranged(positions: Positions) -> Positions:
    """Two nodes exchanged that are not far apart; the page widened or narrowed at a column, or opened at a row."""
    candidates = []
    reading = np.lexsort(positions.T)
    for step in range(1, _REACH):
        for i, j in zip(reading, reading[step:], strict=False):
            swapped = positions.copy()
            swapped[[i, j]] = positions[[j, i]]
            candidates.append(swapped)
    for axis in (0, 1):
        for place in np.unique(positions[:, axis])[1:]:
            for shift in (-2, -1, 1, 2):
                moved = positions.copy()
                moved[positions[:, axis] >= place, axis] += shift
                candidates.append(moved)
    return np.stack(candidates)
