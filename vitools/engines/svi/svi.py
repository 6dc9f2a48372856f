"""Stochastic variational inference with any Pyro guide."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pyro.optim import PyroOptim
from torch import Tensor

from vitools.engines.checkpoint import Checkpoint
from vitools.engines.loop import iterate
from vitools.engines.objectives import Objective
from vitools.engines.progress import Listener, Progress, ProgressCallback, listener
from vitools.engines.sharding.shard import Shard
from vitools.engines.svi.optimisers.adam_settings import Adam
from vitools.engines.svi.optimisers.natural import NaturalGradient
from vitools.engines.svi.optimisers.optimizer_ascent import OptimizerFactory
from vitools.engines.svi.sharded import refuse_options
from vitools.engines.svi.starts import Start
from vitools.engines.svi.svi_run import Options, SviRun
from vitools.errors import OptionError
from vitools.graphs.compiled import Compile
from vitools.guides.default import default_guide
from vitools.isolation import seeded, snapshot
from vitools.posterior import GuidePosterior, Posterior, Status
from vitools.problem import Problem, check_problem
from vitools.problem.sites import listed
from vitools.whole_numbers import check_seed, check_whole

Callback = Callable[[int, float], None]
Saved = tuple[dict[str, Tensor], dict[str, Any]]


def svi(
    problem: Problem,
    guide: Any = None,
    *,
    num_particles: int = 1,
    objective: Callable[[Problem, Any], Objective] | None = None,
    max_steps: int = 20_000,
    learning_rate: float | None = None,
    optimizer: OptimizerFactory | Adam | NaturalGradient | None = None,
    clip_norm: float | None = None,
    step_backs: int = 0,
    compile: Compile = "auto",
    start: Posterior | Start | None = None,
    sharded: str | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    progress: ProgressCallback | None = None,
    callback: Callback | None = None,
) -> GuidePosterior:
    """Maximise E_q[log p(x, θ) - log q(θ)] over the parameters of ``guide`` (and of the model).

    Discrete latents are summed out exactly, those whose values cannot be listed (counts) are drawn
    by the guide; its other draws are differentiated through. What a guide may do wrong is asked
    before the first step (:func:`~vitools.preflight`).

    The step size falls where the iterates predict no gain of the bound that matters, .2 nats or .01 a
    latent, and the run ends where the smaller steps predict none either
    (:class:`~vitools.engines.svi.stopping.PlateauRule`); the answer is the average of the iterates of
    the last stage, which removes most of the optimiser's noise. A run that is interrupted or meets
    its limit gives the average over the tail of the stage it was in.

    Model, guide and gradient are recorded once as a graph, which runs without Python's and
    Pyro's cost; ``compile`` turns the graph and the optimiser's step into machine code. A run
    repeats its numbers on the same machine with the same seed and options. A model that branches on
    values cannot be recorded and runs in Python, after one notice.

    As in Pyro, a guide instance or a network in the model is trained in place, and a second
    fit with it goes on from there; a guide class starts afresh.

    Args:
        guide: a Pyro guide, or a guide class to be called with the problem's model. If omitted,
            ``AutoMultivariate`` up to 300 numbers, ``AutoMeanField`` beyond
            (:func:`~vitools.guides.default.default_guide`); ``detail`` says which.
        num_particles: draws per step.
        objective: another bound or gradient than :class:`~vitools.engines.objectives.Elbo`
            by ``num_particles`` draws.
        max_steps: limit; reaching it gives status STOPPED_AT_LIMIT.
        learning_rate: first step size of Adam; the guide's ``learning_rate`` if omitted, 0.05
            where it has none.
        optimizer: Adam with other settings (:class:`~vitools.Adam`: betas, epsilon, a schedule), a
            :class:`~vitools.NaturalGradient`, or a function from parameters to a
            ``torch.optim.Optimizer``. The last two step in Python, only their gradients are
            compiled.
        clip_norm: longest gradient allowed; a longer one is shortened to it.
        step_backs: how often a run that left the finite numbers may go back to its last good
            state and on with a fifth of the step size, each time with a warning.
        compile: ``True`` compiles before the first step, which takes a few seconds, less once the
            result is in the cache on disk. ``"auto"`` does so only where ``max_steps`` steps would
            repay it; what torch's own compiler must do (on a GPU, or in half precision) takes
            longer, and goes on in another process beside the run, to a step fixed beforehand.
            The posterior's ``detail`` says what was done. ``False`` never.
        start: where to begin. A fit of the same model; ``"search"``, a region of high posterior
            mass found by a quick deterministic search; or ``"guide"``, as the guide is, near the
            prior's centre if it is new. By default new guides of :mod:`vitools.guides` search
            where that is cheap and keep what is found where its bound is higher; Adam's steps are
            then taken in units of the scales found.
        sharded: the plate of which every process of torch.distributed has some rows, each in a
            ``Problem`` of its own; gradients are added up at each step. The guide has parameters of what
            all rows share (an encoder's, say), none of single rows.
        checkpoint: file to keep the state of the run in, renewed about every second.
        resume: go on from ``checkpoint`` if the file exists. A run that was killed gives the
            same numbers as one that was not; only ``max_steps`` may be changed.
        progress: called a few times a second with :class:`~vitools.engines.progress.Progress`; if omitted,
            the logger ``vitools`` gets a line a minute where it is on for INFO.
        callback: called after every few steps with their number so far and the latest bound;
            a ``KeyboardInterrupt`` raised there ends the run and keeps what it reached, as Ctrl-C
            does (:mod:`vitools.engines`).

    Raises:
        NumericalError: the bound left the finite numbers; the error names the site and the
            step, and its ``posterior`` attribute holds the last good state and the history.
        FileError: the checkpoint is torn, or that of another run.

    Example:
        >>> import torch
        >>> from vitools import Problem, svi
        >>> from vitools.guides import AutoKumaraswamy
        >>> from vitools.models import coin
        >>> fit = svi(Problem(coin.model, torch.tensor([1.0, 1.0, 0.0])), AutoKumaraswamy)
        >>> fit.status.label
        'converged'
    """
    progress = listener(progress)
    check_whole("num_particles", num_particles, 1)
    check_whole("max_steps", max_steps, 1)
    check_whole("step_backs", step_backs, 0)
    check_seed(seed)
    if clip_norm is not None and not clip_norm > 0:
        raise OptionError(f"clip_norm: expected a length above 0, got {clip_norm}.")
    if resume and checkpoint is None:
        raise OptionError("resume=True needs checkpoint=, the file to go on from.")
    _check_optimizer(optimizer)
    has_own_rate = optimizer is not None and not isinstance(optimizer, Adam)
    if learning_rate is not None and (has_own_rate or not learning_rate > 0):
        raise OptionError(
            f"learning_rate: expected a number above 0 and no optimizer but Adam(…) beside it, got "
            f"{learning_rate}{' and an optimizer' if has_own_rate else ''}."
        )
    if step_backs and has_own_rate:
        raise OptionError("step_backs needs Adam, the default optimiser, which can undo a step.")
    if sharded is not None:
        refuse_options(objective, compile, callback)
    check_problem(problem, "svi()", fixed_data=False)
    problem.refuse_beyond_memory("svi()")
    chosen = ""
    if guide is None:
        guide = default_guide(problem)
        chosen = f"{guide.__name__} by default; "
    began = time.perf_counter()
    options = Options(
        num_particles,
        objective,
        max_steps,
        learning_rate,
        optimizer,
        clip_norm,
        step_backs,
        compile,
        seed,
    )
    shard: Shard | None = None
    if sharded is not None:
        shard, problem = Shard.of(problem, sharded)
    with seeded(seed):
        run = SviRun(problem, guide, options, start, shard)
        try:
            status = _ascend(run, checkpoint, resume, progress, callback, began)
        finally:
            run.compiling.close()
        averaged = run.place_average(whole_stage=status is Status.CONVERGED)
        outside = run.outside_words()
        if run.points:
            outside.append(f"a point estimate of {listed(run.points)}, without widths")
    history = run.history
    fit = GuidePosterior(
        problem,
        run.guide,
        snapshot(run.params),
        engine="svi",
        status=status,
        detail="; ".join(
            [
                f"{chosen}{len(history)} steps from {run.began}, {averaged}",
                run.compiling.how,
                *outside,
            ]
        ),
        history=history,
        seconds=time.perf_counter() - began,
        seed=seed,
    )
    fit.part = "" if shard is None else shard.words
    return fit


def _check_optimizer(optimizer: Any) -> None:
    """Raise unless it is one of the kinds that :func:`svi` takes; Pyro's and torch's own are not."""
    if optimizer is None or isinstance(optimizer, Adam | NaturalGradient):
        return
    is_ready = isinstance(optimizer, torch.optim.Optimizer | PyroOptim)
    is_a_class = optimizer in (Adam, NaturalGradient)
    if is_ready or is_a_class or not callable(optimizer):
        shown = optimizer.__name__ if is_a_class else type(optimizer).__name__
        raise OptionError(
            "optimizer: expected Adam(…) or NaturalGradient(…) of vitools, or a function from "
            f"parameters to a torch optimiser, such as partial(torch.optim.RMSprop, lr=0.01); got "
            f"{'the class ' if is_a_class else ''}{shown}. Adam's step size is svi's learning_rate=."
        )


def _opened(
    shard: Shard | None, path: str | Path | None, identity: dict[str, Any] | None, resume: bool
) -> tuple[Checkpoint | None, Saved | None]:
    """The file to keep a run in, of several processes the first one's, and what all go on from."""

    def opened() -> tuple[Checkpoint | None, Saved | None]:
        if path is None or identity is None or (shard is not None and shard.ranks.rank > 0):
            return None, None
        file = Checkpoint(path, identity)
        return file, file.read() if resume else None

    if shard is None:
        return opened()
    file, saved = shard.ranks.each(opened)
    return file, shard.ranks.of_first(saved)


def _ascend(
    run: SviRun,
    checkpoint: str | Path | None,
    resume: bool,
    progress: Listener | None,
    callback: Callback | None,
    began: float,
) -> Status:
    """Steps until the rule, the limit, Ctrl-C or an error ends the run."""
    identity = None if checkpoint is None else run.identity()
    file, saved = _opened(run.shard, checkpoint, identity, resume)
    if saved is not None:
        run.restore(*saved)
        if run.kept.ended is not None:
            return run.kept.ended

    def after(done: int) -> None:
        if callback is not None:
            callback(done, run.rows[-1][0])
        if file is not None and file.is_due:
            run.write(file)

    def advance(done: int) -> list[float]:
        if file is not None and run.is_last_block(done):
            run.write(file)  # the limit cuts it short, which is no place to go on from
        return run.advance(done)

    def describe(report: Progress) -> Progress:
        bound, error, steps_left = run.rule.expect()
        return replace(
            report, elbo=bound, standard_error=error, steps_left=steps_left, note=run.compiling.note
        )

    status = iterate(
        advance,
        run.keep,
        max_steps=run.options.max_steps,
        engine="svi",
        done=run.kept.done,
        began=began - (run.rows[-1][1] if run.rows else 0.0),
        progress=progress,
        after=after,
        describe=describe,
    )
    if status is Status.INTERRUPTED:
        if not run.kept.done:
            raise KeyboardInterrupt  # not one block was finished: there is no fit to keep
        run.return_to_kept()
    if file is not None:
        run.write(file)
    return status
