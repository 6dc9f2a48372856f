"""Prior → design → data → posterior → next design: a series of measurements, each chosen by those before."""

import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from vitools.design.expected import NUM_SAMPLES, check_method, gains_of
from vitools.design.experiment import Experiment, candidates
from vitools.engines import laplace
from vitools.errors import DataError, OptionError
from vitools.files.atomic import as_path
from vitools.files.journal import append_line, resumed_lines
from vitools.posterior import Estimate, Posterior
from vitools.problem import Problem
from vitools.problem.reading.program import fingerprint, name_of
from vitools.whole_numbers import check_seed, check_whole

Engine = Callable[[Problem], Posterior]


@dataclass(frozen=True, eq=False)
class DesignRun:
    """What :func:`run_design` returns.

    Attributes:
        designs: all measurements made, ``[n, …]``.
        outcomes: ``{site: [n, …]}``.
        gains: what each was expected to tell.
        fit: the posterior given all of them.
    """

    designs: Tensor
    outcomes: dict[str, Tensor]
    gains: list[Estimate]
    fit: Posterior

    def __len__(self) -> int:
        return len(self.gains)


def run_design(
    model: Callable[..., Any],
    experiment: Callable[[Tensor], Any],
    designs: Tensor,
    num_measurements: int,
    *,
    fit: Engine = laplace,
    until: Callable[[Posterior], bool] | None = None,
    observations: str | Sequence[str] | None = None,
    targets: str | Sequence[str] | None = None,
    method: str = "auto",
    flow: str | None = None,
    num_samples: int = NUM_SAMPLES,
    path: str | Path | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> DesignRun:
    """Choose a measurement, make it, learn from it, and again.

    Args:
        model: called as ``model(designs)`` with all measurements so far along the first dim, its
            outcomes along the same.
        experiment: makes the measurement: from a design ``[1, …]`` to its outcome (a tensor, or
            ``{site: tensor}``), in the shape that the model's sites have for it.
        designs: candidates ``[C, …]``; each may be chosen more than once.
        num_measurements: at most.
        fit: the engine, from a problem to a posterior.
        until: ends the run where it is true of the posterior.
        observations, targets, method, flow, num_samples, seed: of
            :func:`~vitools.design.expected_information_gain`.
        path: a file to which each measurement is appended when it is made; a second call with the same
            arguments goes on where the first was interrupted, one with others is refused.
        progress: called with the number of measurements made after each.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def ruler(x, y=None):
        ...     w = pyro.sample("w", dist.Normal(torch.tensor(0.0).double(), 1.0))
        ...     with pyro.plate("measurements", len(x)):
        ...         pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)
        >>> run = run_design(ruler, lambda x: 0.7 * x, torch.tensor([1.0, 2.0]).double(), 3)
        >>> run.designs.tolist(), round(float(run.fit.sd()["w"]), 4)  # 1 / √(1 + 3 · 2²)
        ([2.0, 2.0, 2.0], 0.2774)
    """
    if not callable(model) or isinstance(model, Posterior | Problem):
        raise OptionError(
            f"model: expected a Pyro model of the design, got {type(model).__name__}. From a fit, "
            "next_measurement(fit, designs) gives one design."
        )
    for name, function in (("experiment", experiment), ("fit", fit)):
        if not callable(function):
            raise OptionError(f"{name}: expected a function, got {type(function).__name__}.")
    if not isinstance(designs, Tensor):
        raise OptionError(f"designs: expected a tensor [C, …], got {type(designs).__name__}.")
    check_whole("num_measurements", num_measurements, 1)
    check_seed(seed)
    check_method(method, flow)
    listed = candidates(designs)
    prior = Experiment(model, observations, targets)
    first = prior.at(listed[0], seed)
    sites = first.problem.observed
    settings = {
        "model": name_of(model),
        "fit": name_of(fit),
        "designs": fingerprint((), designs),
        "observations": list(sites),
        "targets": list(first.targets),
        "method": method,
        "flow": flow,
        "num_samples": num_samples,
        "seed": seed,
    }
    done = _Record(designs, settings, path)
    posterior: Posterior | None = None
    while True:
        if done.gains:
            posterior = fit(_problem(model, done.designs, done.outcomes))
            if until is not None and until(posterior):
                break
        if len(done.gains) >= num_measurements:
            break
        source = prior if posterior is None else Experiment(posterior, tuple(sites), targets)
        gains = gains_of(source, listed, method, flow, num_samples, seed + len(done.gains))
        outcome = _outcome(experiment(gains.design), sites)
        done.add(gains.design, outcome, gains[gains.best])
        if progress:
            progress(len(done.gains))
    assert posterior is not None
    return DesignRun(done.designs, done.outcomes, done.gains, posterior)


class _Record:
    """The measurements made, in memory and in a file."""

    def __init__(
        self, like: Tensor, settings: Mapping[str, object], path: str | Path | None
    ) -> None:
        self.like = like
        self.gains: list[Estimate] = []
        self._designs: list[Tensor] = []
        self._outcomes: list[dict[str, Tensor]] = []
        self.path = None if path is None else as_path(path)
        if self.path is not None:
            for line in resumed_lines(self.path, settings, "a run of designs"):
                self._read(json.loads(line))

    def _read(self, found: Mapping[str, Any]) -> None:
        self._designs.append(torch.tensor(found["design"], dtype=self.like.dtype))
        self._outcomes.append(
            {
                k: torch.tensor(v, dtype=getattr(torch, kind))
                for k, (v, kind) in found["outcome"].items()
            }
        )
        error = math.inf if found["error"] is None else found["error"]
        self.gains.append(Estimate(found["gain"], error, found["side"]))

    def add(self, design: Tensor, outcome: dict[str, Tensor], gain: Estimate) -> None:
        self._designs.append(design)
        self._outcomes.append(outcome)
        self.gains.append(gain)
        if self.path is not None:
            kinds = {
                k: (v.tolist(), str(v.dtype).removeprefix("torch.")) for k, v in outcome.items()
            }
            error = gain.standard_error if math.isfinite(gain.standard_error) else None
            line = {"design": design.tolist(), "outcome": kinds, "gain": gain.value}
            append_line(self.path, json.dumps(line | {"error": error, "side": gain.side}))

    @property
    def designs(self) -> Tensor:
        return torch.cat(self._designs)

    @property
    def outcomes(self) -> dict[str, Tensor]:
        return {k: torch.cat([one[k] for one in self._outcomes]) for k in self._outcomes[0]}


def _outcome(found: Any, sites: Mapping[str, Any]) -> dict[str, Tensor]:
    given = found if isinstance(found, Mapping) else {next(iter(sites)): found}
    if set(given) != set(sites):
        raise DataError(
            f"experiment: expected an outcome of {', '.join(sites)}, got {', '.join(map(str, given))}."
        )
    outcome = {}
    for name, site in sites.items():
        value = torch.as_tensor(given[name]).detach().to(site.dtype)
        if value.shape != site.shape:
            raise DataError(
                f"experiment: expected '{name}' of shape {list(site.shape)} for one measurement, got "
                f"{list(value.shape)}."
            )
        if not bool(torch.isfinite(value).all()):
            raise DataError(
                f"experiment: expected finite numbers for '{name}', got {value.tolist()}."
            )
        outcome[name] = value
    return outcome


def _problem(model: Callable[..., Any], designs: Tensor, outcomes: dict[str, Tensor]) -> Problem:
    if set(outcomes) <= set(inspect.signature(model).parameters):
        return Problem(model, designs, **outcomes)

    @wraps(model, updated=())
    def conditioned(designs: Tensor) -> Any:
        return poutine.condition(model, data=outcomes)(designs)

    return Problem(conditioned, designs)
