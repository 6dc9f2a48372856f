"""What a model does beside its sample statements: it changes its data, or draws by itself.

A model is run many times, and must mean the same each time. One that changes its arguments in place
would be fitted to other data than it was given, and one that draws random numbers which are no site
has another density in every run. Both are seen while the model is inspected: operations before
torch carries them out, the rest by comparing afterwards.

Modules in training mode may draw, as dropout does: svi() steps along the noise, and whatever takes
a density has those modules in evaluation mode (:func:`at_rest`). Observations may be drawn anew (rows
of a minibatch, noise added to data), for svi() alone.
"""

import inspect
import linecache
import pickle
import random
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from pyro.nn import PyroModule
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch._ops import OpOverload
from torch.nn import Module
from torch.utils._pytree import tree_leaves

from vitools.errors import ModelError
from vitools.isolation import modules_of
from vitools.problem.reading.dry_run import RunMode
from vitools.problem.reading.program import Program
from vitools.problem.sites import is_deterministic, is_subsample

COPIED = 2**30
"""Bytes of a numpy array up to which a copy is kept, to undo what a model does to it."""
SHOWN = 60
"""Characters of a line that a message shows."""
LIBRARIES = ("torch", "pyro", "vitools", "contextlib", "functools")
"""Where the line that a message names is not."""
OURS_TO_NAME = ("vitools.models",)


class Witness(RunMode):
    """Refuses, inside the block, operations that write into what the model was given.

    Attributes:
        draws: lines of the model at which random numbers were drawn outside of all statements.
        modules: modules in training mode that drew some.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program
        self.statement = _Statement()
        self.draws: dict[str, None] = {}
        self.modules: dict[Module, None] = {}
        self._owner = {place: name for name, place in _places(program)}
        self._arguments = _Arguments(program)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, OpOverload):
            if func._schema.is_mutable:
                self._refuse_writes(func, args, kwargs)
            if self.statement.depth == 0 and torch.Tag.nondeterministic_seeded in func.tags:
                self._note_draw()
        return func(*args, **kwargs)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Goes around a run, inside all handlers but the trace."""
        before = _random_states()
        try:
            with self, self.statement:
                yield
        finally:
            changed = self._arguments.restore()
        now = _random_states()
        self.draws |= {f"by {library}": None for library in now if now[library] != before[library]}
        if changed is not None:
            raise _changes(self.program.title, changed, "")

    def _refuse_writes(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for i, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            given = args[i] if i < len(args) else kwargs.get(argument.name)
            for tensor in given if isinstance(given, list | tuple) else (given,):
                owner = self._owner.get(_place(tensor)) if isinstance(tensor, Tensor) else None
                if owner is not None:
                    raise _changes(self.program.title, owner, _line(_model_frame()))

    def _note_draw(self) -> None:
        module = _training_module(self.program.model)
        if module is not None:
            self.modules[module] = None
        else:
            self.draws[_line(_model_frame())] = None


class _Statement(Messenger):
    """Counts the statements being carried out: draws made there are Pyro's."""

    depth = 0

    def _pyro_sample(self, msg: Any) -> None:
        self.depth += 1

    def _pyro_post_sample(self, msg: Any) -> None:
        self.depth -= 1

    _pyro_param, _pyro_post_param = _pyro_sample, _pyro_post_sample

    def __enter__(self) -> "_Statement":
        self.depth = 0
        return super().__enter__()


@contextmanager
def at_rest(modules: Iterable[Module]) -> Iterator[None]:
    """The modules are in evaluation mode inside the block; their submodules stay as they are."""
    before = [(module, module.training) for module in modules]
    try:
        for module, _ in before:
            module.training = False
        yield
    finally:
        for module, was in before:
            module.training = was


def refuse_draws(title: str, draws: Collection[str], first: Trace, second: Trace) -> str | None:
    """Raise where two runs at the same values of all latents give a site another distribution.

    Args:
        draws: where random numbers were drawn.

    Returns:
        What to say of data that are drawn anew at each run (rows of a minibatch, noise added to
        them); ``None`` where nothing depends on the draws.
    """
    words, moving = "; ".join(draws), None
    for name, node in first.nodes.items():
        if node["type"] != "sample" or is_subsample(node) or is_deterministic(node):
            continue
        other = second.nodes[name]
        value = node["value"]
        is_fixed = node["is_observed"] or _alike(value, other["value"])
        if not is_fixed or not _alike(node["fn"].log_prob(value), other["fn"].log_prob(value)):
            raise ModelError(
                f"{title} draws random numbers outside of its sample statements ({words}): site "
                f"'{name}' has another distribution at each run, whatever the latents are. Draw "
                "them by pyro.sample, or once before, as an argument of the model. (Noise for "
                "training alone, as dropout, belongs into a torch module in training mode.)"
            )
        if not _alike(value, other["value"]):
            moving = f"{title} draws its observations '{name}' anew at each run ({words})"
    return moving


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(
        one.detach().double(), other.detach().double(), rtol=1e-4, atol=1e-6, equal_nan=True
    )


def _changes(title: str, name: str, where: str) -> ModelError:
    return ModelError(
        f"{title} changes {name} in place{where and f' ({where})'}: every run would see other data "
        "than the one before. Make a new value instead (y = y + 1, not y += 1 or y.add_(1)), or "
        "change it before the model is called."
    )


# ---- what a model is given ---------------------------------------------------------------------


def _places(program: Program) -> Iterator[tuple[str, int]]:
    """Name and storage of each tensor and array that a model takes, or finds around it."""
    given = {f"its argument '{name}'": value for name, value in program.arguments().items()}
    if inspect.isfunction(program.model):
        try:
            outside = inspect.getclosurevars(program.model)
        except ValueError:  # a variable that is not there yet
            outside = inspect.ClosureVars({}, {}, {}, set())
        found = {**outside.globals, **outside.nonlocals}
        given = {f"'{name}', which it finds outside,": v for name, v in found.items()} | given
    for name, value in given.items():
        for leaf in tree_leaves(value) if name.startswith("its") else (value,):
            if isinstance(leaf, np.ndarray):
                yield name, leaf.__array_interface__["data"][0]
            elif isinstance(leaf, Tensor) and _place(leaf):
                yield name, _place(leaf)


def _place(tensor: Tensor) -> int:
    """Where a tensor's storage begins; 0 where it has none."""
    if tensor.layout != torch.strided or tensor.is_meta:
        return 0
    return tensor.untyped_storage().data_ptr()


class _Arguments:
    """The lists, dicts and numpy arrays among a model's arguments, as they were."""

    def __init__(self, program: Program) -> None:
        self._kept: dict[int, tuple[str, _Array | _List | _Dict]] = {}
        for name, value in program.arguments().items():
            self._keep(f"its argument '{name}'", value)

    def _keep(self, name: str, value: Any) -> None:
        if id(value) in self._kept:
            return
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            self._kept[id(value)] = name, _Array(value)
        elif isinstance(value, list):
            self._kept[id(value)] = name, _List(value)
        elif isinstance(value, dict):
            self._kept[id(value)] = name, _Dict(value)
        if isinstance(value, list | tuple | dict):
            for part in value.values() if isinstance(value, dict) else value:
                if isinstance(part, list | tuple | dict | np.ndarray):
                    self._keep(name, part)

    def restore(self) -> str | None:
        """Undo what was changed; the name of the first argument of which something was."""
        changed = [name for name, kept in self._kept.values() if kept.undo()]
        return changed[0] if changed else None


class _Array:
    def __init__(self, array: np.ndarray) -> None:
        self.array, self.digest = array, _digest(array)
        self.copy = array.copy() if array.nbytes <= COPIED else None

    def undo(self) -> bool:
        """Give it its contents back, if there are others in it; whether there were."""
        changed = _digest(self.array) != self.digest
        if changed and self.copy is not None:
            self.array[...] = self.copy
        return changed


class _List:
    def __init__(self, value: list[Any]) -> None:
        self.value, self.copy = value, list(value)

    def undo(self) -> bool:
        pairs = zip(self.value, self.copy, strict=False)
        changed = len(self.value) != len(self.copy) or any(a is not b for a, b in pairs)
        if changed:
            self.value[:] = self.copy
        return changed


class _Dict:
    """New keys are not minded: models keep there what they have computed from the others."""

    def __init__(self, value: dict[Any, Any]) -> None:
        self.value, self.copy = value, dict(value)

    def undo(self) -> bool:
        missing = object()
        changed = any(self.value.get(k, missing) is not v for k, v in self.copy.items())
        if changed:
            self.value.update(self.copy)
        return changed


def _digest(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _random_states() -> dict[str, bytes]:
    return {
        "numpy's global generator": pickle.dumps(np.random.get_state()),  # noqa: NPY002 (that one is watched)
        "Python's module random": pickle.dumps(random.getstate()),
    }


# ---- whose line it is --------------------------------------------------------------------------


def _frames() -> Iterator[FrameType]:
    """The calls from here outwards."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _model_frame() -> FrameType | None:
    """The innermost call that belongs to no library."""
    for frame in _frames():
        module = frame.f_globals.get("__name__", "")
        is_library = module.split(".")[0] in LIBRARIES and not module.startswith(OURS_TO_NAME)
        if not is_library:
            return frame
    return None


def _line(frame: FrameType | None) -> str:
    if frame is None:
        return "in a library"
    path, number = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(path, number).strip()
    return f"line {number} of {Path(path).name}" + (f": {text[:SHOWN]}" if text else "")


def _training_module(model: Any) -> Module | None:
    """The innermost torch module at work, if it is in training mode and no model by itself."""
    models = modules_of(model)
    for frame in _frames():
        owner = frame.f_locals.get("self")
        if isinstance(owner, Module) and frame.f_code.co_name == "forward":
            is_layer = not isinstance(owner, PyroModule) or _is_of_torch(owner)
            is_part = is_layer and not any(owner is other for other in models)
            return owner if owner.training and is_part else None
    return None


def _is_of_torch(module: Module) -> bool:
    """Whether it is one of torch's layers, if by the name of ``PyroModule[Dropout]``."""
    kinds = (kind for kind in type(module).__mro__ if kind is not Module)
    return any(kind.__module__.startswith("torch.nn.modules.") for kind in kinds)
