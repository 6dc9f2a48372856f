"""The runs that a model is inspected from: twice on all its data, and once on a minibatch.

A run on values checks more, and is made where it is cheap. A model that makes a large tensor on
the way is run dry (:mod:`vitools.problem.reading.dry_run`), without validation, because there are no values to
validate: cavi() then fits in little more memory than the data take.

Only what no two runs can tell takes more: a run that overflowed or was too large is repeated otherwise, random
numbers drawn outside of sample statements are compared at fixed latents, and data outside of the
ends that a discrete latent sets are looked at again. Enumeration is tried when an engine or a density
first asks (:mod:`vitools.problem.reading.agreement`); of trajectories of discrete states it is read at once
which step each row of data reads (:mod:`vitools.problem.density.trajectories`).
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from pyro.poutine import Trace, replay, trace
from torch import Tensor
from torch.nn import Module
from torch.utils._pytree import tree_leaves

from vitools.errors import DataError, ModelError, VitoolsError, first_words
from vitools.isolation import (
    ParamState,
    full_plates,
    isolated,
    quiet_draws,
    seeded,
    snapshot,
    validating,
)
from vitools.problem.density.improper import ExtremeDraws, ModerateDraws, StandIns
from vitools.problem.reading.dry_run import DryRun, MemoryLimit, Need, TooLargeError, room
from vitools.problem.reading.observations import INDEX_ROWS, UNVALIDATED, refuse_odd_tensor
from vitools.problem.reading.program import Program
from vitools.problem.reading.refused_forms import ReadingRules
from vitools.problem.reading.side_effects import Witness, at_rest, refuse_draws
from vitools.problem.sites import is_delta, is_subsample

LARGE = 2**25
"""Bytes of a tensor, made by the model on the way, from which it is run dry."""


@dataclass(frozen=True)
class Runs:
    """Traces of the model.

    Attributes:
        first, second: on all data, with different seeds.
        minibatch: as the model subsamples; ``first`` itself where it does not.
        params: the parameter store after the first run.
        sizes: the limit they ran under, ``None`` for none.
        noisy_modules: those that draw random numbers because they are in training mode.
        moving_data: what to say of observations that are drawn anew at each run.
    """

    first: Trace
    second: Trace
    minibatch: Trace
    params: ParamState
    sizes: MemoryLimit | None
    noisy_modules: tuple[Module, ...]
    moving_data: str | None

    @property
    def limit(self) -> AbstractContextManager[Any]:
        """The context in which what was not computed stays known as such."""
        return nullcontext() if self.sizes is None else self.sizes

    @property
    def need(self) -> Need | None:
        """The largest tensor of a run on values, where none was made; else ``None``."""
        return self.sizes.need if self.sizes is not None else None

    def is_unknown(self, *values: Any) -> bool:
        """Whether one of the values was not computed."""
        return self.sizes is not None and any(
            isinstance(value, Tensor) and self.sizes.is_placeholder(value) for value in values
        )


def run_for_inspection(program: Program) -> Runs:
    """Run the model as its size allows."""
    for name, value in program.arguments().items():
        for leaf in tree_leaves(value):
            if isinstance(leaf, Tensor):
                refuse_odd_tensor(f"argument '{name}' of {program.title}", leaf)
    sizes: MemoryLimit | None = None
    witness = Witness(program)
    try:
        found = _first_runs(program, MemoryLimit(LARGE), witness)
    except TooLargeError:
        try:
            sizes = DryRun()
            found = _first_runs(program, sizes, witness)
        except (
            VitoolsError
        ):  # what it does depends on values, or it is at fault: which, is said now
            sizes = MemoryLimit(room())
            found = _first_runs(program, sizes, witness)
    first, minibatch, params = found
    second, _ = _run(program, 1, sizes, witness)
    modules, moving = tuple(witness.modules), None
    if witness.draws:
        again = [_again(program, seed, first, params, sizes, modules) for seed in (2, 3)]
        with nullcontext() if sizes is None else sizes:
            moving = refuse_draws(program.title, witness.draws, again[0], again[1])
    return Runs(first, second, minibatch, params, sizes, modules, moving)


def run_again(program: Program, seed: int, runs: Runs) -> Trace:
    """One more run on all data, with another seed."""
    return _run(program, seed, runs.sizes, Witness(program))[0]


def _first_runs(
    program: Program, sizes: MemoryLimit | None, witness: Witness
) -> tuple[Trace, Trace, ParamState]:
    """A run on all data and one on a minibatch, which are one where the model does not subsample."""
    try:
        minibatch, params = _run(program, 0, sizes, witness, whole=False)
    except ModelError as error:
        raise _blame(program, error, sizes, witness) from error
    frames = (f for node in minibatch.nodes.values() for f in node.get("cond_indep_stack", ()))
    if all(frame.full_size in (None, frame.size) for frame in frames):
        return minibatch, minibatch, params
    first, params = _run(program, 0, sizes, witness)
    return first, minibatch, params


def _again(
    program: Program,
    seed: int,
    first: Trace,
    params: ParamState,
    sizes: MemoryLimit | None,
    noisy_modules: tuple[Module, ...],
) -> Trace:
    """One more run on all data, at the first run's latents; only sites whose values are known."""
    held = first.copy()
    for name, node in first.nodes.items():
        if node["type"] != "sample" or node["is_observed"] or is_subsample(node) or is_delta(node):
            held.remove_node(name)
    with (
        seeded(seed),
        isolated(snapshot(params), program.model),
        full_plates(),
        nullcontext() if sizes is None else sizes,
        at_rest(noisy_modules),
        StandIns((program.args, program.kwargs)),
        ReadingRules({}),
    ):
        run = trace(replay(program.model, trace=held), graph_type="flat")
        found = run.get_trace(*program.args, **program.kwargs)
    if sizes is not None:
        for name, node in list(found.nodes.items()):
            if node["type"] == "sample" and sizes.is_placeholder(node["value"]):
                found.remove_node(name)
    return found


def _run(
    program: Program,
    seed: int,
    sizes: MemoryLimit | None,
    witness: Witness,
    *,
    whole: bool = True,
) -> tuple[Trace, ParamState]:
    """A trace, at moderate values of the latents where the model overflows at a draw of its prior."""
    given = (program.args, program.kwargs)
    extremes = ExtremeDraws()
    is_dry = sizes is not None and sizes.placeholder
    watch = nullcontext() if is_dry else extremes
    try:
        return _run_with(StandIns(given), program, seed, sizes, witness, whole, watch)
    except ModelError as error:
        if not extremes.found:
            raise
        try:
            stand_ins = ModerateDraws(given)
            return _run_with(stand_ins, program, seed, sizes, witness, whole, nullcontext())
        except VitoolsError:
            raise error from error.__cause__


def _run_with(
    stand_ins: StandIns,
    program: Program,
    seed: int,
    sizes: MemoryLimit | None,
    witness: Witness,
    whole: bool,
    extremes: AbstractContextManager[Any],
) -> tuple[Trace, ParamState]:
    values = sizes is None or not sizes.placeholder
    limit, watch = (sizes, sizes.watch()) if sizes is not None else (nullcontext(), nullcontext())
    plates = full_plates() if whole else nullcontext()
    try:
        with (
            seeded(seed),
            quiet_draws(),
            isolated(None, program.model) as params,
            validating(True if values else UNVALIDATED),
            plates,
            limit,
            watch,
            stand_ins,
            extremes,
            ReadingRules({}, fill_masked=False),
            witness.watching(),
        ):
            run = trace(program.model, graph_type="flat")
            return run.get_trace(*program.args, **program.kwargs), params
    except (VitoolsError, Warning):
        raise
    except (Exception, SystemExit) as error:
        raise _failed(program, error) from error


def _blame(
    program: Program, error: ModelError, sizes: MemoryLimit | None, witness: Witness
) -> ModelError:
    """What is wrong with a model that does not run: with its minibatch, where it runs on all data."""
    try:
        _run(program, 0, sizes, witness)
    except VitoolsError:
        return error
    reason = first_words(error.__cause__) if error.__cause__ else str(error)
    is_of_shapes = any(word in reason.lower() for word in ("shape", "size", "broadcast"))
    remedy = (
        INDEX_ROWS if is_of_shapes else "Run the model by itself, outside vitools, to see where."
    )
    return ModelError(
        f"{program.title} runs on all its data, but not on a minibatch: {reason}. {remedy}"
    )


def _failed(program: Program, error: BaseException) -> VitoolsError:
    reason = first_words(error)
    suspects = [
        name
        for name, value in program.arguments().items()
        if isinstance(value, Tensor)
        and value.is_floating_point()
        and not bool(torch.isfinite(value).all())
    ]
    if suspects:
        return DataError(
            f"argument {', '.join(map(repr, suspects))} of {program.title} holds NaN or infinity, "
            f"and the model raised {type(error).__name__}: {reason}. Clean it, or mask the entries."
        )
    return ModelError(
        f"{program.title} raised {type(error).__name__} when run on its data: {reason}. "
        + _remedy(program, reason)
    )


def _remedy(program: Program, reason: str) -> str:
    """What to do about a model that does not run: the commonest causes, else where to look."""
    if misfit := program.misfit():
        return misfit
    arguments = program.arguments()
    arrays = [
        f"{name!r} ({type(value).__name__})"
        for name, value in arguments.items()
        if not isinstance(value, Tensor) and hasattr(value, "__array__")
    ]
    if arrays:
        return f"No tensor is {', '.join(arrays)}: convert with torch.as_tensor(numpy.asarray(…))."
    default = torch.get_default_dtype()
    others = [
        f"{name!r} ({str(value.dtype).removeprefix('torch.')})"
        for name, value in arguments.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != default
    ]
    if others and ("dtype" in reason or "Double" in reason):
        return (
            f"Numbers such as those of Normal(0.0, 1.0) become {str(default).removeprefix('torch.')}"
            f", other than {', '.join(others)}: convert the data, or give the priors tensors of "
            "its dtype."
        )
    return "Run the model by itself, outside vitools, to find the line."
