"""Stopping a run on data it does not see: the fit of the highest validation bound.

A model with networks can go on raising the bound of its training data while that of new data
falls. Here the run is taken in parts; after each the average of its latest iterates is scored on
a validation problem, and the run ends when ``patience`` parts in a row have not been the best.

The parts are one run of :func:`~vitools.svi` that is stopped and resumed: its numbers are those of
a run that was never looked at, and a killed one goes on from its checkpoint.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from vitools.engines.objectives import Objective
from vitools.engines.progress import Progress, ProgressCallback, listener
from vitools.engines.svi.optimisers.ascent import BLOCK
from vitools.engines.svi.svi import svi
from vitools.errors import FileError, OptionError
from vitools.files.archive import read_archive, write_archive
from vitools.isolation import isolated, seeded
from vitools.posterior import GuidePosterior, Status
from vitools.problem import Problem


@dataclass
class Looks:
    """What validation has seen so far, and the parameters of the best; kept beside a checkpoint."""

    steps: list[int] = field(default_factory=list)
    bounds: list[float] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def add(self, step: int, bound: float, parameters: dict[str, Tensor]) -> None:
        """One more look."""
        if not self.bounds or bound > max(self.bounds):
            self.best = {name: value.detach() for name, value in parameters.items()}
        self.steps.append(step)
        self.bounds.append(bound)

    @property
    def since_best(self) -> int:
        """How many looks the best is past."""
        return len(self.bounds) - 1 - self.bounds.index(max(self.bounds))

    def write(self, path: Path) -> None:
        """Put all into a file."""
        header = {"kind": "validation", "steps": self.steps, "bounds": self.bounds}
        write_archive(path, header, self.best)

    @classmethod
    def read(cls, path: Path) -> "Looks":
        """What :meth:`write` wrote, or nothing where there is no file."""
        if not path.exists():
            return cls()
        header, tensors = read_archive(path)
        if header.get("kind") != "validation":
            raise FileError(f"'{path}' was expected to hold validation bounds and does not.")
        return cls(header["steps"], header["bounds"], tensors)


def svi_validated(
    problem: Problem,
    guide: Any,
    validation: Problem,
    *,
    every: int = 1000,
    patience: int = 5,
    num_samples: int = 4,
    objective: Callable[[Problem, Any], Objective] | None = None,
    max_steps: int = 20_000,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    progress: ProgressCallback | None = None,
    **options: Any,
) -> GuidePosterior:
    """:func:`~vitools.svi`, ended by the bound of a second problem, its best parameters kept.

    Guide and model are left with the parameters of the best part, as they are trained in place.
    Its status is CONVERGED where patience, or svi's own rule, ended the run; its ``validation`` has
    the bound at each look, ``{steps: nats}``.

    Args:
        validation: the same model on other data; the guide must be one that serves new data (an
            encoder).
        every: steps between two looks. Each costs the recording of the model, about a second.
        patience: how many looks in a row may fall short of the best before the run ends.
        num_samples: draws for each validation bound, the same at every look.
        objective: as of ``svi``, and the bound that is looked at: the ELBO of a model trained on an
            importance-weighted bound falls while that still rises.
        checkpoint, resume: as of ``svi``; the best so far is kept in a file beside it, with
            ``.best`` added to its name.
        progress: told of the whole run, as ``svi`` would.
        options: the others of ``svi``. Parts are not compiled unless ``compile`` says so, so that
            they are the run that nobody looked at whatever ``every`` is; with ``compile=True`` the
            later parts find the first's machine code on disk.

    Example:
        >>> from vitools import Problem
        >>> from vitools.models.vae import VAE, load
        >>> data, vae = load(), VAE(num_pixels=64, latent_dim=2, hidden=(8,))
        >>> fit = svi_validated(
        ...     Problem(vae.model, data.train[:100]),
        ...     vae.guide,
        ...     Problem(vae.model, data.train[100:150]),
        ...     every=20, max_steps=40, learning_rate=0.01,
        ... )
        >>> list(fit.validation), fit.status.label
        ([20, 40], 'stopped at limit')
    """
    progress = listener(progress)
    if every < 1 or every % BLOCK or patience < 1:
        raise OptionError(
            f"every: expected a multiple of {BLOCK}, and patience of at least 1; got {every} "
            f"and {patience}."
        )

    def told(report: Progress) -> None:
        if progress:
            progress(replace(report, max_steps=max_steps))

    options.setdefault("compile", False)
    looks = Looks()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "run" if checkpoint is None else Path(checkpoint)
        best_file = file.with_name(f"{file.name}.best")
        if resume:
            looks = Looks.read(best_file)
        while True:
            seen = looks.steps[-1] if looks.steps else 0
            is_over = bool(seen) and looks.since_best >= patience  # before the run was resumed
            limit = seen if is_over else min(seen - seen % every + every, max_steps)
            fit = svi(
                problem,
                guide,
                objective=objective,
                max_steps=limit,
                checkpoint=file,
                resume=resume or bool(seen),
                seed=seed,
                progress=told,
                **options,
            )
            if len(fit.history) > seen or not looks.steps:
                bound = _bound(fit, validation, objective, num_samples, seed)
                looks.add(len(fit.history), bound, fit.params["params"])
                if fit.status is not Status.INTERRUPTED:  # a run that goes on does not look there
                    looks.write(best_file)
            lost_patience = looks.since_best >= patience
            if lost_patience or limit == max_steps or fit.status is not Status.STOPPED_AT_LIMIT:
                break
    parameters = {name: Parameter(looks.best[name].clone()) for name in fit.params["params"]}
    params = {"params": parameters, "constraints": fit.params["constraints"]}
    _place(problem, fit.guide, parameters)
    at = looks.steps[looks.bounds.index(max(looks.bounds))]
    return GuidePosterior(
        problem,
        fit.guide,
        params,
        validation=dict(zip(looks.steps, looks.bounds, strict=True)),
        engine="svi",
        status=Status.CONVERGED if lost_patience else fit.status,
        detail=f"validation bound {max(looks.bounds):.2f}, the best of {len(looks.bounds)} looks, "
        f"after {at} of {looks.steps[-1]} steps; {fit.detail}",
        history=fit.history,
        seconds=max(fit.history.seconds, default=0.0),
        seed=seed,
    )


def _bound(
    fit: GuidePosterior,
    validation: Problem,
    objective: Callable[[Problem, Any], Objective] | None,
    num_samples: int,
    seed: int,
) -> float:
    """The bound of ``validation`` at the parameters of a fit."""
    if objective is None:
        there = GuidePosterior(validation, fit.guide, fit.params, engine="svi", status=fit.status)
        return there.elbo(num_samples, seed).value
    with seeded(seed), isolated(fit.params, fit.guide, validation.model), torch.no_grad():
        loss = objective(validation, fit.guide).loss
        return -sum(float(loss()) for _ in range(num_samples)) / num_samples


def _place(problem: Problem, guide: Any, values: Mapping[str, Tensor]) -> None:
    """Sets the parameters of guide and model, which a run trains in place."""
    with seeded(0), torch.no_grad(), isolated() as params:
        guide(*problem.args, **problem.kwargs)  # registers its own tensors in the store
        problem.call()
    for name, own in params["params"].items():
        own.data.copy_(values[name])
