"""Simulating and fitting the data sets of a calibration: in parallel, and resumable.

Processes, not threads: Pyro's parameter store and handlers are global. They are forked, so that
model and method need not be picklable; each computes on one thread, because the thread pools of a
forked parent cannot be used. Results come back as lines of text, and a file of them can be gone on
with: a line that an interruption cut short is thrown away and done again.
"""

import json
import multiprocessing
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vitools.diagnostics.calibration.simulation import with_data
from vitools.diagnostics.reference.moments import quantities
from vitools.errors import OptionError, VitoolsError
from vitools.files.journal import append_line, resumed_lines
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
    workers: int,
    path: str | Path | None,
    progress: Callable[[int], None] | Literal[False] | None,
) -> list[CalibrationRun]:
    """All runs in the order of their data sets, those already in the file read from it.

    Ctrl-C ends it with those that are done; where none is, it is raised.
    """
    header = json.dumps({"problem": problem.fingerprint, "seed": seed, "num_samples": num_samples})
    done = {}
    if path is not None:
        other = "holds the calibration of another problem, seed or number of draws"
        runs = map(CalibrationRun.from_line, resumed_lines(Path(path), header, other))
        done = {run.index: run for run in runs}
    missing = [i for i in range(num_data_sets) if i not in done]

    def job(index: int) -> str:
        return one_run(problem, fit, index, seed, num_samples).to_line()

    try:
        for line in _computed(job, missing, workers, problem):
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


def _computed(
    job: Callable[[int], str], indices: list[int], workers: int, problem: Problem
) -> Iterator[str]:
    if workers == 1 or len(indices) < 2:
        yield from map(job, indices)
        return
    if "fork" not in multiprocessing.get_all_start_methods():
        raise OptionError("this system cannot fork processes; use workers=1.")
    if any(site.device.type != "cpu" for site in problem.latents.values()):
        raise OptionError("a model on a GPU cannot be shared among processes; use workers=1.")
    with _forked_job(job), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
        context = multiprocessing.get_context("fork")
        with context.Pool(workers, initializer=_start_worker) as pool:
            yield from pool.imap_unordered(_run_forked_job, indices)


_forked: Any = None  # what the processes inherit; a function need not be picklable then


@contextmanager
def _forked_job(job: Callable[[int], str]) -> Iterator[None]:
    global _forked
    _forked = job
    try:
        yield
    finally:
        _forked = None


def _run_forked_job(index: int) -> str:
    return _forked(index)


def _start_worker() -> None:
    torch.set_num_threads(1)  # of this process only
    # a terminal sends Ctrl-C to all; the parent ends us
    signal.signal(signal.SIGINT, signal.SIG_IGN)
