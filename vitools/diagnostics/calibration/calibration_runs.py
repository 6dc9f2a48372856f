"""Simulating and fitting the data sets of a calibration: in parallel, and resumable.

Results come back as lines of text, and a file of them can be gone on with: a line that an interruption cut
short is thrown away and done again.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vitools.diagnostics.calibration.simulation import with_data
from vitools.diagnostics.reference.moments import quantities
from vitools.errors import VitoolsError
from vitools.files.atomic import as_path
from vitools.files.journal import append_line, resumed_lines
from vitools.jobs import each
from vitools.posterior import Posterior, Status
from vitools.problem import Problem

LEVELS = (0.5, 0.9)
NUM_DRAWS = 200
PREDICTED = 200  # replicated data sets for the intervals

Fit = Callable[[Problem], Posterior]


@dataclass(frozen=True)
class CalibrationRun:
    """One data set.

    Attributes:
        levels: share of the fit's draws below the truth, ``{name: [*shape]}``.
        covered: share of new data in the predictive interval of each of :data:`LEVELS`.
        error: the words of a fit that failed; then the rest is empty.
    """

    index: int
    levels: dict[str, np.ndarray]
    covered: tuple[float, ...] = ()
    status: str = ""
    error: str | None = None

    def to_line(self) -> str:
        levels = {name: value.tolist() for name, value in self.levels.items()}
        return json.dumps(vars(self) | {"levels": levels}, ensure_ascii=False)

    @classmethod
    def from_line(cls, line: str) -> "CalibrationRun":
        found = json.loads(line)
        levels = {name: np.asarray(value) for name, value in found["levels"].items()}
        return cls(**(found | {"levels": levels, "covered": tuple(found["covered"])}))


def simulate_and_fit(
    problem: Problem,
    fit: Fit,
    num_data_sets: int,
    seed: int,
    num_samples: int,
    jobs: int | None,
    path: str | Path | None,
    progress: Callable[[int], None] | Literal[False] | None,
) -> list[CalibrationRun]:
    """All runs in the order of their data sets, those already in the file read from it.

    Ctrl-C ends it with those that are done; where none is, it is raised.
    """
    settings = {"problem": problem.fingerprint, "seed": seed, "num_samples": num_samples}
    done = {}
    if path is not None:
        lines = resumed_lines(as_path(path), settings, "a calibration")
        runs = map(CalibrationRun.from_line, lines)
        done = {run.index: run for run in runs}
    missing = [i for i in range(num_data_sets) if i not in done]

    def job(index: int) -> str:
        return one_run(problem, fit, index, seed, num_samples).to_line()

    try:
        for _, line in each(job, missing, jobs):
            if path is not None:
                append_line(Path(path), line)
            run = CalibrationRun.from_line(line)
            done[run.index] = run
            if progress:
                progress(len(done))
    except KeyboardInterrupt:
        if not done:
            raise
    return [done[i] for i in range(num_data_sets) if i in done]


def one_run(problem: Problem, fit: Fit, index: int, seed: int, num_samples: int) -> CalibrationRun:
    """Simulate data set ``index``, fit it and see where the truth lies among the fit's draws."""
    own_seed = seed + 10 * (index + 1)
    with torch.no_grad():
        truth = problem.prior(1, own_seed)
        data = problem.predictive(truth, own_seed + 1)
        new = problem.predictive({name: truth[name] for name in problem.continuous}, own_seed + 2)
    observed = {name: data[name][0] for name in problem.observed}
    try:
        posterior = fit(with_data(problem, observed))
        if posterior.status is Status.INTERRUPTED:  # engines keep what they have, and return
            raise KeyboardInterrupt
        with torch.no_grad():
            drawn = posterior.sample(num_samples, own_seed + 3)
            replicated = posterior.predictive(PREDICTED, own_seed + 4)
    except VitoolsError as error:  # a method may fail on some data: that is a finding, too
        return CalibrationRun(
            index, {}, error=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        )
    true_ones = {name: truth[name][0] for name in problem.continuous}
    centre, draws = quantities(problem, true_ones), quantities(problem, drawn)
    levels = {name: _level(draws[name], centre[name]) for name in draws}
    covered = tuple(
        _covered({k: new[k][0] for k in problem.observed}, replicated, level) for level in LEVELS
    )
    return CalibrationRun(index, levels, covered, posterior.status.label)


def _level(draws: Tensor, truth: Tensor) -> np.ndarray:
    below = (draws < truth).double().mean(0) + 0.5 * (draws == truth).double().mean(0)
    return below.detach().cpu().numpy()


def _covered(new: dict[str, Tensor], replicated: dict[str, Tensor], level: float) -> float:
    """Discrete data: ties at the ends of an interval count as far as they are needed to fill it."""
    inside = []
    for name, value in new.items():
        u = torch.from_numpy(_level(replicated[name], value.to(replicated[name]))).flatten()
        inside.append(((u - 0.5).abs() <= level / 2).double())
    return float(torch.cat(inside).mean())
