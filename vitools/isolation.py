"""Running user code without leaving a trace on global state.

Pyro models draw from torch's global generator, keep parameters in one global store and put
them into modules; all three are borrowed here and handed back unchanged, whatever happens inside.
What is borrowed is one for the whole process, so one thread has it at a time.
"""

import gc
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

import pyro
import torch
from pyro.nn import PyroModule
from pyro.poutine.subsample_messenger import SubsampleMessenger
from torch.distributions import Distribution
from torch.nn import Module, Parameter

from vitools.whole_numbers import check_seed

_lock = threading.RLock()


def _new_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # a child would wait for a thread that it does not have
    os.register_at_fork(after_in_child=_new_lock)


@contextmanager
def alone() -> Iterator[None]:
    """Inside the block no other thread runs such a block.

    torch's generators and Pyro's handlers, parameter store and validation flags belong to the
    process: two threads that used them at once would get each other's draws, sites and parameters.
    """
    with _lock:
        yield


T = TypeVar("T")


class lazy(Generic[T]):
    """A property that is computed when it is first asked for.

    ``functools.cached_property`` of Python 3.11 holds a lock of its own meanwhile. A thread that holds
    it and waits in :func:`alone` would block one that is alone and asks for the same property; here
    two threads compute twice at worst.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self.function, self.__doc__ = function, function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: Any = None) -> T:
        if instance is None:
            return self  # type: ignore[return-value]
        value = self.function(instance)
        vars(instance)[self.name] = value  # which is found before this from now on
        return value


ParamState = dict[str, Any]
"""What ``pyro.get_param_store().get_state()`` returns: unconstrained tensors and constraints."""


def seed_generators(seed: int) -> None:
    """Seed the generators of this machine's devices.

    ``torch.manual_seed`` writes down the stack of its caller for every kind of device that is not
    there, in case one comes: a tenth of a millisecond, and ten times that below a deep stack.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generators inside the block and restore them after it."""
    check_seed(seed, 2**63 - 1)
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with alone(), torch.random.fork_rng(devices=devices):
        seed_generators(seed)
        yield


@contextmanager
def quiet_draws() -> Iterator[None]:
    """Inside the block torch's Wishart does not call its proper draws singular.

    ``Wishart.rsample`` of torch 2.13 warns wherever a draw is *not* singular.
    """
    with alone(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Singular sample detected")
        yield


@contextmanager
def isolated(params: ParamState | None = None, *programs: Any) -> Iterator[ParamState]:
    """A private parameter store, no outer handlers, and no validation inside the block.

    Validation is off because it branches on values, which neither vmap nor graph
    tracing can follow; :class:`~vitools.problem.Problem` has validated once, by name.

    Args:
        params: the store's contents inside the block; empty if omitted.
        programs: models and guides that run inside. Modules among them take their
            parameters from the store, as do those given to ``pyro.module``, and get their
            own back afterwards.

    Yields:
        The state of the store, filled in when the block ends.
    """
    with alone(), _torch_as_before():
        state: ParamState = {"params": {}, "constraints": {}} if params is None else dict(params)
        with (
            _modules_follow_the_store(programs, state["params"]),
            pyro.get_param_store().scope(state) as inner,
            validating(False),
            pyro.poutine.block(),
        ):
            yield inner


@contextmanager
def _torch_as_before() -> Iterator[None]:
    """Restores what may be left changed inside.

    A Ctrl-C that arrives between the last line of ``with torch.no_grad()`` and its exit leaves
    gradients off.
    """
    gradients = torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_grad_enabled(gradients)


class _OfThread:
    """A class attribute that has one value in the thread that set it and another elsewhere."""

    def __init__(self, here: Any, elsewhere: Any) -> None:
        self.thread, self.here, self.elsewhere = threading.get_ident(), here, elsewhere

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self.here if threading.get_ident() == self.thread else self.elsewhere


_PYRO_FLAGS = (pyro.infer.util, pyro.poutine.util, pyro.distributions.util)


@contextmanager
def validating(flag: Any) -> Iterator[None]:
    """Inside the block the distributions of this thread validate or not, those of others as before.

    torch keeps one flag for the process; for the time of the block it is one that asks which thread
    it is. Distributions that were built outside the block, and ``expand`` ed there, carry a flag of
    their own: inside they validate values only while that of all says so. Pyro's flags stay one for
    the process, as its stack of handlers is, which no two threads can use at once.

    Args:
        flag: true or false; distributions copy the object itself.
    """
    own = {name: Distribution.__dict__[name] for name in ("_validate_args", "_validate_sample")}
    flags = [module._VALIDATION_ENABLED for module in _PYRO_FLAGS]
    before, thread = own["_validate_args"], threading.get_ident()
    elsewhere = before.elsewhere if isinstance(before, _OfThread) else before

    def validate(distribution: Distribution, value: torch.Tensor) -> None:
        if threading.get_ident() != thread or Distribution._validate_args:
            own["_validate_sample"](distribution, value)

    def restore() -> None:
        Distribution._validate_args = own["_validate_args"]
        Distribution._validate_sample = own["_validate_sample"]  # type: ignore[method-assign]
        for module, value in zip(_PYRO_FLAGS, flags, strict=True):
            module._VALIDATION_ENABLED = value

    with alone():
        try:
            try:
                Distribution._validate_args = _OfThread(flag, elsewhere)  # type: ignore[assignment]
                Distribution._validate_sample = validate  # type: ignore[assignment, method-assign]
                for module in _PYRO_FLAGS:
                    module._VALIDATION_ENABLED = flag
                yield
            finally:
                restore()
        finally:  # once more after an interrupt before or within the first
            restore()


def snapshot(params: ParamState) -> ParamState:
    """A copy of a parameter store's state that no further step can change."""
    copies = {
        name: Parameter(value.detach().clone(), requires_grad=value.requires_grad)
        for name, value in params["params"].items()
    }
    return {"params": copies, "constraints": dict(params["constraints"])}


@contextmanager
def _modules_follow_the_store(
    programs: tuple[Any, ...], params: Mapping[str, Any]
) -> Iterator[None]:
    """Modules use the stored values inside the block and have their own again after it.

    Pyro itself leaves a network registered by ``pyro.module``, and the plain parameters of a
    ``PyroModule``, at their own values whatever the store holds: a fit would change whenever
    the same module is trained again.
    """
    saved: dict[int, tuple[Module, dict[str, Any]]] = {}

    def save(root: Module) -> None:
        for module in root.modules():
            saved.setdefault(id(module), (module, dict(module._parameters)))

    for program in programs:
        for root in modules_of(program):
            save(root)
            _place(root, params)
    original = pyro.module

    def module(name: str, nn_module: Module, update_module_params: bool = False) -> Module:
        if isinstance(nn_module, Module):
            save(nn_module)
        return original(name, nn_module, update_module_params=True)

    pyro.module = module
    try:
        yield
    finally:
        pyro.module = original
        for owner, parameters in saved.values():
            owner._parameters.update(parameters)


def _place(root: Module, params: Mapping[str, Any]) -> None:
    """Put stored values in the place of the parameters of Pyro modules."""
    for module in root.modules():
        if isinstance(module, PyroModule):
            prefix = f"{module._pyro_name}." if module._pyro_name else ""
            for key in module._parameters:
                name = prefix + key.removesuffix("_unconstrained")
                if name in params:
                    module._parameters[key] = params[name]


def modules_of(program: Any) -> list[Module]:
    """The modules a program is, is a method of, or wraps (Pyro's handlers are partials)."""
    if isinstance(program, Module):
        return [program]
    parts = [getattr(program, "__self__", None), getattr(program, "fn", None)]
    if isinstance(program, partial):
        parts += [program.func, *program.args]
    return [module for part in parts if part is not None for module in modules_of(part)]


@contextmanager
def full_plates() -> Iterator[None]:
    """Inside the block ``plate(..., subsample_size=B)`` spans all its N indices.

    Pyro offers no handler for the *size* of a subsample (a handler may only choose the
    indices), so the one function that decides it is replaced while the block runs.
    """

    def whole(
        name: str,
        size: int | None = None,
        subsample_size: int | None = None,
        subsample: torch.Tensor | None = None,
        use_cuda: bool | None = None,
        device: str | None = None,
    ) -> Any:
        if subsample is None:
            subsample_size = None if size is not None else subsample_size
        return original(name, size, subsample_size, subsample, use_cuda, device)

    with alone():
        original = SubsampleMessenger._subsample
        _replace(whole)
        try:
            yield
        finally:
            _replace(original)


@contextmanager
def released() -> Iterator[None]:
    """Objects made inside the block and no longer needed are let go at its end, those in cycles too.

    A model's distributions refer to themselves, and with them to its data: memory would fill with the data
    of many models until Python's collector looks at the oldest objects.
    """
    was_enabled = gc.isenabled()
    gc.disable()  # else what lives while it looks would count as old
    try:
        yield
    finally:
        gc.collect(0)
        if was_enabled:
            gc.enable()


@contextmanager
def plate_at(plate: str, index: torch.Tensor) -> Iterator[None]:
    """Inside the block this plate spans these of its indices only, and its rows count once each."""

    def some(name: str, size: int | None = None, *others: Any, **more: Any) -> Any:
        if name == plate:
            return original(name, len(index), len(index), index, None, None)
        return original(name, size, *others, **more)

    with alone():
        original = SubsampleMessenger._subsample
        _replace(some)
        try:
            yield
        finally:
            _replace(original)


def _replace(function: Callable[..., Any]) -> None:
    SubsampleMessenger._subsample = staticmethod(function)
