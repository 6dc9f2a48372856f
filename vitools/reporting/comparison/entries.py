"""Which entries of which quantities a picture shows: those on which the fits disagree most.

The disagreement on an entry is (largest mean - smallest mean) / largest sd over the fits.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vitools.diagnostics.reference.accuracy import entry_name
from vitools.diagnostics.verdict.judgement import Judgement
from vitools.problem import Problem
from vitools.problem.dims import element_words

Entry = tuple[str, tuple[int, ...]]
"""A quantity's name and the index of one of its entries."""

CONSTANT = 1e-10  # an sd this small relative to the mean is no uncertainty


def disagreements(judgements: Mapping[str, Judgement]) -> dict[str, np.ndarray]:
    """``{name: [*shape]}``: the disagreement on each entry; -1 for an entry not worth showing.

    Those are the entries that no fit finds variable, and copies of earlier entries (a symmetric
    matrix has each twice). Where a fit left the numbers, the disagreement is infinite.
    """
    found = {}
    for name, first in next(iter(judgements.values())).moments.items():
        fits = [judgement.moments[name] for judgement in judgements.values()]
        means = np.stack([fit.mean.numpy().ravel() for fit in fits])
        sds = np.stack([fit.sd.numpy().ravel() for fit in fits])
        with np.errstate(invalid="ignore", over="ignore"):
            largest = sds.max(0)
            score = (means.max(0) - means.min(0)) / largest
            varies = ~(largest <= CONSTANT * (1 + np.abs(means).max(0)))
        score = np.where(np.isnan(score), np.inf, score)
        score[~varies] = -1.0
        score[_copies(np.concatenate([means, sds]))] = -1.0
        found[name] = score.reshape(tuple(first.mean.shape))
    return found


def chosen_entries(judgements: Mapping[str, Judgement], limit: int) -> list[Entry]:
    """All entries worth showing in order, or the ``limit`` of largest disagreement."""
    scores = disagreements(judgements)
    flat = [
        (score, name, place)
        for name, scored in scores.items()
        for place, score in enumerate(scored.ravel().tolist())
        if score >= 0.0
    ]
    kept = sorted(range(len(flat)), key=lambda i: -flat[i][0])[:limit]
    return [
        (name, _index(place, scores[name].shape))
        for _, name, place in (flat[i] for i in sorted(kept))
    ]


def moments_at(judgement: Judgement, entry: Entry) -> tuple[float, float]:
    """Mean and sd of an entry."""
    name, index = entry
    found = judgement.moments[name]
    return float(found.mean[index]), float(found.sd[index])


def draws_at(judgement: Judgement, entry: Entry) -> np.ndarray:
    """All draws of an entry, ``[n]``."""
    name, index = entry
    place: tuple[Any, ...] = (slice(None), *index)
    return judgement.draws[name][place].double().numpy()


def _copies(columns: np.ndarray) -> np.ndarray:
    """Which columns of ``[rows, n]`` equal an earlier one to eight digits: bool ``[n]``."""
    with np.errstate(divide="ignore", invalid="ignore"):
        magnitude = 10.0 ** (7 - np.floor(np.log10(np.abs(columns))))
        rounded = np.round(columns * magnitude) / magnitude
    rounded = np.where(np.isfinite(rounded), rounded, columns)
    is_copy = np.ones(columns.shape[1], bool)
    is_copy[np.unique(rounded, axis=1, return_index=True, equal_nan=True)[1]] = False
    return is_copy


def _index(place: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(place, shape))


def entry_words(problem: Problem, entry: Entry) -> str:
    """An entry by the labels of its plates, ``rho[oak]``; without labels as ``rho[4,2]``."""
    name, index = entry
    if not problem.coords or name not in problem.latents:
        return entry_name(name, index)
    return element_words(problem.latents[name], problem.coords, index)
