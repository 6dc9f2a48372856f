"""Compiling a graph of aten operations to machine code, here or in a process of its own.

The compiler keeps its results on disk, so what one process compiled another only loads. A run
can therefore have its graph compiled beside it: the helper process fills the cache, and the
run, when it wants the compiled graph, finds it there. The helper imports torch alone, shares no
state with the run, and can be ended at any moment.

This file is run as a script by the helper and imports nothing of the package.
"""

import inspect
import os
import pickle
import platform
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

PATIENCE = 300.0  # seconds after which a helper is given up


def find_compiler() -> str | None:
    """The C++ compiler, or None: without one, graphs run uncompiled."""
    named = os.environ.get("CXX")
    return next((c for c in (named, "g++", "clang++", "cl") if c and shutil.which(c)), None)


@cache
def _knows_vector_instructions() -> bool:
    """Whether the compiler takes whatever an x86 processor may offer.

    torch's compiler otherwise finds out by trial, in processes of their own that take ten seconds.
    """
    compiler = find_compiler()
    if compiler is None or compiler.endswith("cl") or platform.machine() != "x86_64":
        return False
    asked = [compiler, "-march=x86-64-v4", "-mamx-tile", "-E", "-x", "c++", os.devnull]
    return subprocess.run(asked, capture_output=True).returncode == 0


def compile_graph(module: GraphModule, example: Sequence[Tensor]) -> Callable[..., Any]:
    """``module`` compiled for inputs like ``example``; no setting of torch is left changed.

    Raises:
        Exception: whatever the compiler raises.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with (
        warnings.catch_warnings(),  # the compiler's import warns as well
        torch.random.fork_rng(devices=devices),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        compiled = _compile(_with_accurate_expm1(module), list(example))

    def run(*inputs: Tensor) -> Any:
        with torch.no_grad():
            return compiled(*inputs)

    return run


def _with_accurate_expm1(module: GraphModule) -> GraphModule:
    """A copy in which e^x - 1 is tanh(x/2) (e^x + 1).

    The compiler's vector code computes expm1 as exp(x) - 1, which has no digits for small x and
    is 0 below the rounding of 1: the logarithm of it is then infinite.
    """
    graph = Graph()
    env: dict[Node, Any] = {}
    aten = torch.ops.aten
    for node in module.graph.nodes:
        if node.target is not aten.expm1.default:
            env[node] = graph.node_copy(node, env.__getitem__)
            continue
        x = env[node.args[0]]
        half = graph.call_function(
            aten.tanh.default, (graph.call_function(aten.div.Scalar, (x, 2)),)
        )
        above = graph.call_function(
            aten.add.Scalar, (graph.call_function(aten.exp.default, (x,)), 1)
        )
        env[node] = graph.call_function(aten.mul.Tensor, (half, above))
    return GraphModule(module, graph)


def _compile(module: GraphModule, example: list[Tensor]) -> Callable[..., Any]:
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    settings: dict[str, Any] = {
        "compile_threads": 1,  # no pool of workers that outlives the call
        "fallback_random": True,  # draws inside are torch's own
        "cpp.threads": torch.get_num_threads(),
        "size_asserts": False,
        "alignment_asserts": False,
    }
    if _knows_vector_instructions():
        settings["cpp.vec_isa_ok"] = True
    context = TracingContext(FakeTensorMode(shape_env=ShapeEnv()))  # the disk cache wants one
    static = "ignore_shape_env" in inspect.signature(compile_fx).parameters
    options: dict[str, Any] = {"ignore_shape_env": True} if static else {}  # sizes are numbers
    with config.patch(settings), tracing(context):
        compiled: Any = compile_fx(module, example, **options)
        return compiled


class CompilingBeside:
    """A helper process that compiles a graph into the disk cache; it may never be asked for it."""

    def __init__(self, module: GraphModule, example: Sequence[Tensor]) -> None:
        self.example = list(example)
        described = [(t.shape, t.stride(), t.dtype, t.device) for t in example]
        self.job = pickle.dumps(
            (module, described, torch.get_num_threads(), torch.get_default_dtype())
        )
        self.process: subprocess.Popen[bytes] | None = None
        try:
            self.process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # so that the C++ compiler ends with it
            )
            assert self.process.stdin is not None
            with self.process.stdin as pipe:
                pipe.write(self.job)
        except OSError:  # no helper: compiled here when it is wanted
            self.cancel()

    def finish(self) -> Callable[..., Any]:
        """The compiled graph: waits for the helper, then loads what it left in the cache."""
        if self.process is not None:
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.cancel()
        return compile_graph(_load(self.job)[0], self.example)

    def cancel(self) -> None:
        """End the helper; nothing of it remains but what it had put into the cache."""
        if self.process is not None and self.process.poll() is None:
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
            self.process.wait()
        self.process = None


def _load(job: bytes) -> Any:
    return pickle.loads(job)  # written by this very class, never read from a file


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _helper() -> None:
    module, described, threads, dtype = _load(sys.stdin.buffer.read())
    torch.set_num_threads(threads)
    example = [
        torch.empty_strided(shape, stride, dtype=kind, device=device)
        for shape, stride, kind, device in described
    ]
    with _default_dtype(dtype):
        compile_graph(module, example)


if __name__ == "__main__":
    _helper()
