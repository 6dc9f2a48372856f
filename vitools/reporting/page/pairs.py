"""The pairs of entries that some fit holds to be correlated, with draws to plot.

A fit that treats two entries as independent while the reference correlates them has marginals that
may look right and a joint distribution that is wrong; a pair plot shows it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vitools.diagnostics.verdict.judgement import Judgement
from vitools.problem import Problem
from vitools.reporting.comparison.entries import Entry, chosen_entries, draws_at, entry_words

MOST_PAIRS = 12
MOST_ENTRIES = 60
DRAWS_SHOWN = 300
WEAKEST, IDENTICAL = 0.3, 0.9995
PER_ENTRY = 3
LEVELS = 999


def correlated_pairs(
    judgements: Mapping[str, Judgement], yardstick: str, problem: Problem
) -> list[dict[str, Any]]:
    """At most :data:`MOST_PAIRS`, those first on whose correlation the fits disagree most.

    A pair counts where some fit has |r| > 0.3. Pairs that all fits agree are the same thing
    (two probabilities that sum to one) are left out.
    """
    entries = chosen_entries(judgements, MOST_ENTRIES)
    if len(entries) < 2:
        return []
    correlations = {name: _correlations(j, entries) for name, j in judgements.items()}
    found = np.stack(list(correlations.values()))
    largest, disagreement = np.abs(found).max(0), np.abs(found - correlations[yardstick]).max(0)
    interest = disagreement + largest / 4
    interest[(largest <= WEAKEST) | (np.abs(found).min(0) > IDENTICAL)] = -1.0
    rows, columns = np.triu_indices(len(entries), 1)
    order = np.argsort(-interest[rows, columns], kind="stable")
    times: dict[int, int] = {}
    pairs: list[dict[str, Any]] = []
    for k in order:
        i, j = int(rows[k]), int(columns[k])
        if interest[i, j] < 0 or len(pairs) == MOST_PAIRS:
            break
        if max(times.get(i, 0), times.get(j, 0)) < PER_ENTRY:
            times[i], times[j] = times.get(i, 0) + 1, times.get(j, 0) + 1
            r = [round(float(c[i, j]), 3) for c in correlations.values()]
            pairs.append(_pair(judgements, entries[i], entries[j], r, problem))
    return pairs


def _correlations(judgement: Judgement, entries: list[Entry]) -> np.ndarray:
    """``[entries, entries]``; 0 where an entry is constant or not finite."""
    draws = np.stack([draws_at(judgement, entry) for entry in entries])
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.nan_to_num(np.corrcoef(draws), posinf=0.0, neginf=0.0)


def _pair(
    judgements: Mapping[str, Judgement],
    one: Entry,
    other: Entry,
    r: list[float],
    problem: Problem,
) -> dict[str, Any]:
    draws = [
        (_thinned(draws_at(j, one)), _thinned(draws_at(j, other))) for j in judgements.values()
    ]
    sides = []
    for side, entry in enumerate((one, other)):
        pooled = np.concatenate([pair[side] for pair in draws])
        pooled = pooled[np.isfinite(pooled)]
        low, high = np.quantile(pooled, [0.002, 0.998]).tolist()
        room = 0.04 * (high - low)
        sides.append({"label": entry_words(problem, entry), "low": low - room, "high": high + room})
    return {"x": sides[0], "y": sides[1], "r": r, "draws": [_within(*xy, *sides) for xy in draws]}


def _thinned(draws: np.ndarray) -> np.ndarray:
    return draws[np.linspace(0, len(draws) - 1, min(DRAWS_SHOWN, len(draws))).astype(int)]


def _within(
    xs: np.ndarray, ys: np.ndarray, horizontal: dict[str, Any], vertical: dict[str, Any]
) -> list[list[int]]:
    """Draws inside the chart, as levels of its two ranges."""
    unit = [
        (values - side["low"]) / (side["high"] - side["low"])
        for values, side in ((xs, horizontal), (ys, vertical))
    ]
    with np.errstate(invalid="ignore"):
        inside = np.logical_and.reduce([(u >= 0) & (u <= 1) for u in unit])
    return [np.round(u[inside] * LEVELS).astype(int).tolist() for u in unit]
