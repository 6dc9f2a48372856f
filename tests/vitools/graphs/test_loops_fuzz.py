"""Loops against torch on random programs, with small tensors in groups, tiles and threads."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
import torch
from random_graphs import RandomGraph
from torch import Tensor

from vitools.graphs.functional import functional_graph
from vitools.graphs.loops import (
    NotInLoops,
    compile_loops,
    find_loop_compiler,
    groups,
    native,
    products,
)

pytestmark = pytest.mark.skipif(find_loop_compiler() is None, reason="no C++ compiler")

QUICK = range(6)
BLOCK = 50  # programs in one slow test


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "_folder", lambda: tmp_path)


def check(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One random program; what is large, and how many threads there are, is drawn as well."""
    draw = Random(-seed - 1)
    state, noise = draw.choice([(0, 0), (0, 0), (1, 1), (2, 1), (3, 2), (2, 0)])
    length = draw.randint(3, 40)
    graph = RandomGraph(seed, length, state, noise)
    for module, name, sizes in (
        (groups, "SMALLEST", [2, 16, 64]),
        (groups, "SHARED_OUT", [1, 64, 512]),
        (groups, "TILE", [64, 512, 2048]),
        (products, "LARGE", [64, 32_768]),
        (products, "LONG", [2, 16]),
    ):
        monkeypatch.setattr(module, name, draw.choice(sizes))
    threads = draw.choice([1, 2, 3])
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    inner = len(graph.inputs) - noise
    fixed = [i for i in range(state, inner) if draw.random() < 0.5]
    recorded = functional_graph(graph, [t.clone() for t in graph.inputs])
    constants = list(recorded.constants)
    module = _noise_last(recorded.module, inner, len(constants))
    own = graph.inputs[:inner]
    example = [*own, *constants, *graph.inputs[inner:]]
    fixed += range(inner, inner + len(constants))
    try:
        run = compile_loops(module, example, state, noise, fixed)
    except NotInLoops:  # recorded on dense tensors, it may view what an expanded one cannot show
        with pytest.raises(RuntimeError, match="view"):
            module(*example)
        return
    numbers = torch.Generator().manual_seed(seed)
    for _ in range(2):
        steps = draw.choice([1, 3]) if noise else 1
        drawn = [_like(t.expand(steps, *t.shape[1:]), numbers) for t in graph.inputs[inner:]]
        given = [t if i in fixed else _like(t, numbers) for i, t in enumerate(own)]
        for _ in range(2):  # the second time from the state where the first ended
            expected, bounds = _walked(graph, [*given, *drawn], steps)
            got = run(*given, *constants, *drawn)
            for one, other, bound in zip(got, expected, bounds, strict=True):
                assert one.shape == other.shape
                same = (one == other) | (one.isnan() & other.isnan())
                near = ((one - other).abs() <= bound) | bound.isnan()
                assert (same | near).all(), f"seed {seed}: {one - other}"
            given = [*got[:state], *given[state:]]


def _like(tensor: Tensor, numbers: torch.Generator) -> Tensor:
    """Other numbers, laid out as ``tensor`` is unless several of its are one in memory."""
    drawn = torch.randn(tensor.shape, generator=numbers, dtype=tensor.dtype)
    if 0 in tensor.stride():
        return drawn
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(drawn)


def _noise_last(module: Callable[..., Any], inner: int, constants: int) -> Callable[..., Any]:
    """``module(*inputs, *noise, *constants)`` as a compiled program takes them."""

    def call(*given: Tensor) -> Any:
        known = given[inner : inner + constants]
        return module(*given[:inner], *given[inner + constants :], *known)

    return call


def _walked(
    graph: RandomGraph, inputs: Sequence[Tensor], steps: int
) -> tuple[list[Tensor], list[Tensor]]:
    """The program by torch, step by step, and by how much rounding may change its numbers.

    That is 1e-10, or more where they move by more than that when the inputs move by 1e-13.
    """
    state, noise = graph.state, graph.noise
    inner, runs = len(inputs) - noise, []
    for shift in (0.0, 1e-13, -1e-13):
        now, rest, drawn = (
            [t * (1 + shift) for t in part]
            for part in (inputs[:state], inputs[state:inner], inputs[inner:])
        )
        results = []
        for i in range(steps):
            after = graph(*now, *rest, *(d[i : i + 1] for d in drawn))
            now = after[:state]
            results.append(after[state:])
        stacked = [torch.cat(c) if noise else c[0] for c in zip(*results, strict=True)]
        runs.append([*now, *stacked])
    bounds = [
        1e-10 * (1 + x.abs()) + 1e3 * ((x - y).abs() + (x - z).abs())
        for x, y, z in zip(*runs, strict=True)
    ]
    return runs[0], bounds


@pytest.mark.parametrize("seed", QUICK)
def test_a_few_random_programs(seed, monkeypatch):
    check(seed, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_many_random_programs(block, monkeypatch):
    for seed in range(1000 + block * BLOCK, 1000 + (block + 1) * BLOCK):
        check(seed, monkeypatch)
