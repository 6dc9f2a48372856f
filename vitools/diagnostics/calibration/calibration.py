"""Calibration: does the method get it right on average over data sets from the model itself?

For each of M data sets: θ⁰ ~ p(θ), y ~ p(y | θ⁰), fit, and with L draws θ_l of the fit,

    p_j = (number of draws below θ⁰_j, ties split) / L.

Were the fits exact, every p_j would be uniform (simulation-based calibration, Talts et al. 2018):
a ∪-shaped histogram means that the fit is too narrow, ∩ too wide, a slope that it is biased. An
approximation is rarely exact but may be unbiased: VSBC (Yao et al. 2018) asks only that p_j be
symmetric about 1/2. The largest difference between the distributions of p and 1 - p tests that. The
two samples are mirror images, so that the tables of Kolmogorov and Smirnov would call every tenth fit
biased at 5 %; but given |p - 1/2| the signs of p - 1/2 are fair coins, and the largest difference is how
far their sums stray (Butler 1969), whose distribution is computed exactly.

Judged are the continuous latents (or the model's invariants, where it carries some); discrete latents
are summed out and have no ranks.

Also counted: how often a new data point from the true θ⁰ falls into the fit's central predictive
intervals, which should happen as often as they promise.

References:
    Talts, Betancourt, Simpson, Vehtari, Gelman, *Validating Bayesian inference algorithms with
    simulation-based calibration*, arXiv:1804.06788.
    Yao, Vehtari, Simpson, Gelman, *Yes, but did it work?*, ICML 2018.
    Butler, *A test for symmetry using the sample distribution function*, Annals of Mathematical
    Statistics 40, 1969.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import stats

from vitools.diagnostics.calibration.calibration_runs import (
    LEVELS,
    NUM_DRAWS,
    CalibrationRun,
    simulate_and_fit,
)
from vitools.diagnostics.reference.accuracy import entry_name
from vitools.errors import OptionError
from vitools.jobs import check_jobs
from vitools.posterior import Estimate, Posterior
from vitools.problem import Problem

SIGNIFICANT = 0.01
MOST_BINS = 20
FEWEST_PER_BIN = 5


@dataclass(frozen=True)
class Calibration:
    """What :func:`calibrate` returns.

    Attributes:
        levels: p_j of every judged entry, ``{entry name: [M]}``, in (0, 1) where all is well.
        coverage: ``{level: share}`` of new data inside the central predictive intervals.
        failures: data sets whose fit raised an error, with its words; they are left out above.
        statuses: how the other fits ended, ``{label: count}``.
        num_samples: L.
        not_judged: discrete latents, which are summed out and have no ranks.
        missing: data sets that an interruption (Ctrl-C) left out.
    """

    levels: dict[str, np.ndarray]
    coverage: dict[float, Estimate]
    failures: dict[int, str]
    statuses: dict[str, int]
    num_samples: int
    not_judged: tuple[str, ...] = ()
    missing: int = 0

    def uniformity(self) -> dict[str, float]:
        """p-values of χ² tests that each entry's ranks are uniform (simulation-based calibration)."""
        return {name: _uniformity(found, self.num_samples) for name, found in self.levels.items()}

    def symmetry(self) -> dict[str, float]:
        """p-values of tests that p and 1 - p are alike (VSBC): small where the location is biased."""
        return {name: symmetry_p_value(found) for name, found in self.levels.items()}

    def histogram(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Counts and edges of an entry's ranks; five or more data sets expected in each bin."""
        if name not in self.levels:
            raise OptionError(f"no entry '{name}' (entries: {', '.join(self.levels)}).")
        found = self.levels[name]
        return np.histogram(found, bins=_bins(len(found)), range=(0.0, 1.0))

    def __str__(self) -> str:
        """Which entries fail which test, many tests being allowed for (Bonferroni)."""
        count = len(next(iter(self.levels.values()), ()))
        lines = [f"calibration over {count} data sets, {self.num_samples} draws of each fit"]
        checks = (("ranks not uniform", self.uniformity()), ("location biased", self.symmetry()))
        for title, found in checks:
            bad = {k: p for k, p in found.items() if p * len(found) < SIGNIFICANT}
            worst = ", ".join(f"{k} (p = {p:.1g})" for k, p in sorted(bad.items(), key=_second)[:5])
            lines.append(f"{title}: {len(bad)} of {len(found)}" + (f": {worst}" if bad else ""))
        for level, share in self.coverage.items():
            lines.append(f"{100 * level:.0f} % predictive intervals hold {share} of new data")
        if self.not_judged:
            lines.append(f"continuous sites only: {', '.join(self.not_judged)} not judged")
        if self.failures:
            first = min(self.failures)
            lines.append(
                f"{len(self.failures)} fits failed (data set {first}: {self.failures[first]})"
            )
        if self.missing:
            lines.append(f"interrupted: {self.missing} data sets are missing")
        ended = ", ".join(f"{count} {label}" for label, count in self.statuses.items())
        return "\n".join([*lines, f"fits: {ended or 'none'}"])


def calibrate(
    problem: Problem,
    fit: Callable[[Problem], Posterior],
    num_data_sets: int = 100,
    seed: int = 0,
    *,
    num_samples: int = NUM_DRAWS,
    jobs: int | None = None,
    path: str | Path | None = None,
    progress: Callable[[int], None] | Literal[False] | None = None,
) -> Calibration:
    """Simulate data sets from the model, fit each, and compare with the truths.

    Ctrl-C ends it with the data sets that are done.

    Args:
        problem: the model and a data set, whose shapes and covariates the simulated ones keep. All
            priors must be proper.
        fit: the method, e.g. ``lambda problem: svi(problem, AutoNormal)``.
        num_samples: L, independent draws of each fit.
        jobs: data sets that are fitted side by side, each on one thread of a process; -1 for as many as there are
            cores. If omitted, what ``joblib.parallel_config`` says, whose back ends (Dask, Ray, Spark) serve, too;
            else one. The result does not depend on their number.
        path: a file to which each data set's result is appended when it is done. A second call with
            the same arguments goes on where the first was interrupted.
        progress: called with the number of data sets done after each.

    Example:
        >>> import torch
        >>> from vitools.models import coin
        >>> from vitools.posterior import FactorisedPosterior, Status
        >>> def exact_fit(problem):
        ...     heads = problem.observed["heads"].value
        ...     q = torch.distributions.Beta(1 + heads.sum(), 1 + (1 - heads).sum())
        ...     return FactorisedPosterior(problem, {"p": q}, 0., engine="", status=Status.EXACT)
        >>> found = calibrate(Problem(coin.model, coin.simulate(20)), exact_fit, num_data_sets=50)
        >>> found.uniformity()["p"] > 0.01, found.symmetry()["p"] > 0.01
        (True, True)
    """
    if num_data_sets < 2 or num_samples < 20:
        raise OptionError(
            "expected num_data_sets ≥ 2 and num_samples ≥ 20, got "
            f"{num_data_sets} and {num_samples}."
        )
    check_jobs(jobs)
    runs = simulate_and_fit(problem, fit, num_data_sets, seed, num_samples, jobs, path, progress)
    good = [run for run in runs if run.error is None]
    levels = {
        entry_name(name, index): np.array([run.levels[name][index] for run in good])
        for name in (good[0].levels if good else ())
        for index in np.ndindex(good[0].levels[name].shape)
    }
    statuses: dict[str, int] = {}
    for run in good:
        statuses[run.status] = statuses.get(run.status, 0) + 1
    failures = {run.index: str(run.error) for run in runs if run.error is not None}
    left_out = () if problem.invariants else tuple(problem.discrete)
    missing = num_data_sets - len(runs)
    return Calibration(levels, _coverage(good), failures, statuses, num_samples, left_out, missing)


def _coverage(runs: list[CalibrationRun]) -> dict[float, Estimate]:
    """Shares with standard errors over data sets, whose points are not independent."""
    found = {}
    for i, level in enumerate(LEVELS):
        shares = np.array([run.covered[i] for run in runs])
        if len(shares) > 1:
            error = float(shares.std(ddof=1)) / len(shares) ** 0.5
            found[level] = Estimate(float(shares.mean()), error)
    return found


def _bins(count: int) -> int:
    return max(2, min(MOST_BINS, count // FEWEST_PER_BIN))


def _uniformity(levels: np.ndarray, num_samples: int) -> float:
    counts, edges = np.histogram(levels, bins=_bins(len(levels)), range=(0.0, 1.0))
    ranks, _ = np.histogram(
        np.arange(num_samples + 1) / num_samples, bins=edges
    )  # a bin may hold more
    return float(stats.chisquare(counts, len(levels) * ranks / ranks.sum()).pvalue)


def symmetry_p_value(levels: np.ndarray) -> float:
    """How often symmetric levels ``[M]`` would differ from their mirror image by as much.

    Levels equally far from 1/2 are taken together, which makes the test a little too shy.

    >>> round(symmetry_p_value(np.array([0.6, 0.7, 0.8, 0.9])), 3)  # two ways in 16: all on one side
    0.125
    """
    offset = levels - 0.5
    size, sign = np.round(np.abs(offset), 12), np.sign(offset)
    distances, place = np.unique(size[sign != 0], return_inverse=True)
    sums = np.cumsum(np.bincount(place, sign[sign != 0], len(distances))[::-1])
    if not len(sums):
        return 1.0
    return _strays(int(np.count_nonzero(sign)), int(np.abs(sums).max()))


def _strays(steps: int, distance: int) -> float:
    """The probability that a walk of fair steps of ±1 is ever ``distance`` from its start."""
    if distance == 0:
        return 1.0
    inside = np.zeros(2 * distance + 1)  # places -distance … distance, the ends absorbing
    inside[distance] = 1.0
    for _ in range(steps):
        moved = np.zeros_like(inside)
        moved[:-1] += 0.5 * inside[1:]
        moved[1:] += 0.5 * inside[:-1]
        moved[[0, -1]] = 0.0
        inside = moved
    return float(max(0.0, 1.0 - inside.sum()))


def _second(pair: tuple[str, float]) -> float:
    return pair[1]
