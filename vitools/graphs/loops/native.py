"""Loops in C++ made into machine code, kept on disk, and called.

What was compiled once is only loaded the next time, by this process or another: the file's name
is a hash of its source, the compiler and its options.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from vitools.graphs.loops.calls import CALLBACK, Calls
from vitools.graphs.loops.products import in_columns
from vitools.graphs.loops.program import LoopProgram, loop_program

FLAGS = (
    "-O2",
    "-ftree-vectorize",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp-simd",
    "-ffp-contract=off",  # x y - z rounds twice, as in torch: 0 where z is x y
)
LIBRARY = ("-std=c++17", "-shared", "-fPIC", "-x", "c++")
MACHINE = {"AVX2": "-march=x86-64-v3", "AVX512": "-march=x86-64-v4"}
THREADS = "-fopenmp"
MOST_FILES = 500
PATIENCE = 120.0  # seconds


@cache
def find_loop_compiler() -> str | None:
    """A compiler that understands the options above: g++ or clang++."""
    named = os.environ.get("CXX")
    if os.name == "nt":
        return None
    return next((c for c in (named, "g++", "clang++") if c and shutil.which(c)), None)


@cache
def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout


@cache
def _knows_threads(compiler: str | None) -> bool:
    """Whether the compiler comes with OpenMP; Apple's does not."""
    if compiler is None:
        return False
    asked = [compiler, THREADS, *LIBRARY, "-", "-o", os.devnull]
    return subprocess.run(asked, input=b"", capture_output=True).returncode == 0


@cache
def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "vitools"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    except OSError:  # no home to write to
        pass
    return Path(tempfile.mkdtemp(prefix="vitools-"))


def compile_loops(
    module: GraphModule,
    example: Sequence[Tensor],
    num_state: int = 0,
    num_noise: int = 0,
    fixed: Sequence[int] = (),
) -> Callable[..., Any]:
    """``module`` as loops; where it takes noise ``[1, …]``, a call takes as many steps as it is given.

    Called like the module, with tensors like ``example`` and noise ``[steps, …]``. It returns a
    list: the state after the last step, then the other results, ``[1, …]`` in the module and now
    ``[steps, …]``.

    Args:
        fixed: inputs whose numbers will always be those of ``example``.

    Raises:
        NotInLoops: the graph holds what :mod:`vitools.graphs.loops` cannot write.
        OSError: no compiler, or it failed.
    """
    threads = torch.get_num_threads() if _knows_threads(find_loop_compiler()) else 1
    program = loop_program(module, example, num_state, num_noise, fixed, threads)
    return Loops(program, _library(program.source), example, fixed)


def _library(source: str) -> Any:
    compiler = find_loop_compiler()
    if compiler is None:
        raise OSError("no C++ compiler found")
    machine = MACHINE.get(torch.backends.cpu.get_cpu_capability())
    flags = [*FLAGS, *([] if machine is None else [machine])]
    if "#pragma omp parallel" in source:
        flags.append(THREADS)
    key = "\n".join([source, _version(compiler), *flags])
    path = _folder() / f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.so"
    if not path.exists():
        _make_room(path.parent)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            made = Path(scratch, "loops.so")
            done = subprocess.run(
                [compiler, *flags, *LIBRARY, "-", "-x", "none", "-o", str(made), "-lm"],
                input=source,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            if done.returncode != 0:
                raise OSError(f"{compiler} failed: {done.stderr[:300]}")
            os.replace(made, path)
    path.touch()
    # PyDLL keeps the interpreter's lock, which the calls from inside need
    run = ctypes.PyDLL(str(path)).run
    pointer = ctypes.c_void_p
    run.argtypes = [pointer, pointer, pointer, ctypes.c_long, CALLBACK]
    run.restype = ctypes.c_int
    return run


def _make_room(folder: Path) -> None:
    """Forget the libraries that were used longest ago."""
    files = sorted(folder.glob("*.so"), key=lambda file: file.stat().st_mtime)
    for file in files[: max(0, len(files) - MOST_FILES)]:
        file.unlink(missing_ok=True)


class Loops:
    """A loaded program and its memory.

    What it returns as state is memory of its own, which a later call may use again that does not
    begin with it. One thread at a time runs it; an operation of torch's that is called from inside
    lets others go on.
    """

    def __init__(
        self, program: LoopProgram, run: Any, example: Sequence[Tensor], fixed: Sequence[int]
    ) -> None:
        self.program, self.run = program, run
        self.made = [
            (shape, dtype, bool(program.noise) and i >= program.num_state)
            for i, (shape, dtype) in enumerate(program.outputs)
        ]
        count = program.num_inputs + len(program.constants)
        self.pointers = (ctypes.c_void_p * count, ctypes.c_void_p * len(self.made))
        work = torch.empty(program.work + 64, dtype=torch.uint8)
        skipped = -work.data_ptr() % 64
        self.work = work[skipped : skipped + program.work]
        self.columns: dict[int, tuple[int, Tensor]] = {}
        """Version and numbers of what the program wants column by column."""
        self.layouts = [
            (i, tuple(tensor.shape), program.strides[i], tensor.dtype)
            for i, tensor in enumerate(example)
            if i not in fixed
        ]
        states = program.outputs[: program.num_state]
        self.states = [[torch.empty(shape, dtype=d) for shape, d in states] for _ in range(2)]
        self.lock = Lock()
        self.calls = Calls(program, self.work)

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        program = self.program
        steps = inputs[program.noise[0]].shape[0] if program.noise else 1
        inputs = self._laid_out(inputs, steps)
        outputs = self._free_states(inputs) + [
            torch.empty((steps, *shape[1:]) if stacks else shape, dtype=dtype)
            for shape, dtype, stacks in self.made[program.num_state :]
        ]
        whole = [*inputs, *program.constants]
        for i, first in program.columns.items():
            whole[i] = self._in_columns(first, inputs[first])
        given = self.pointers[0](*[t.data_ptr() for t in whole])
        made = self.pointers[1](*[t.data_ptr() for t in outputs])
        with self.lock, self.calls.on(inputs, outputs) as call:
            outcome = self.run(given, made, self.work.data_ptr(), steps, call)
        if outcome:
            raise IndexError("index out of range in a compiled graph")
        return outputs

    def _in_columns(self, index: int, data: Tensor) -> Tensor:
        """A copy of the data column by column, made again when they were written to."""
        version, copy = self.columns.get(index, (-1, data))
        if version != data._version:
            copy = in_columns(data)
            self.columns[index] = data._version, copy
        return copy

    def _laid_out(self, inputs: Sequence[Tensor], steps: int) -> tuple[Tensor, ...]:
        """The inputs as the loops read them: what lies otherwise is copied.

        Raises:
            ValueError: other shapes or number types than those compiled for.
        """
        found = list(inputs)
        for i, shape, strides, dtype in self.layouts:
            tensor = inputs[i]
            shape = (steps, *shape[1:]) if i in self.program.noise else shape
            if tensor.shape != shape or tensor.dtype is not dtype or tensor.device.type != "cpu":
                raise ValueError(
                    f"input {i} of a compiled graph: expected {dtype} {list(shape)} on the CPU, "
                    f"got {tensor.dtype} {list(tensor.shape)} on {tensor.device}"
                )
            if tensor.stride() != strides:
                found[i] = torch.empty_strided(shape, strides, dtype=dtype).copy_(tensor.detach())
        return tuple(found)

    def _free_states(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Memory for the state that no input lies in."""
        if not self.states[0]:
            return []
        used = {t.untyped_storage().data_ptr() for t in inputs if t.numel()}
        for states in self.states:
            if used.isdisjoint(t.data_ptr() for t in states if t.numel()):
                return list(states)
        return [torch.empty_like(t) for t in self.states[0]]
