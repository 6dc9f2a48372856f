"""Mapping a function over draws: vmap, loop, chunks, and how sample dims are flattened."""

import warnings

import pytest
import torch

from vitools.errors import OptionError, VitoolsError, VitoolsWarning
from vitools.isolation import seeded
from vitools.vectorise import DrawMapper, split_draws


def branch(draw):
    return draw["x"] if draw["x"] > 0 else -draw["x"]


def test_vmap_and_loop_agree_and_the_loop_is_announced_once():
    draws = {"x": torch.tensor([1.0, -2.0, 3.0])}
    mapper = DrawMapper("model 'm'")
    with pytest.warns(VitoolsWarning, match=r"model 'm' cannot be vectorised .*\(slower, same"):
        first = mapper(branch, draws)
    assert torch.equal(first, torch.tensor([1.0, 2.0, 3.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(mapper(branch, draws), first)
        assert torch.equal(DrawMapper(None)(branch, draws), first)
        assert torch.equal(DrawMapper("m")(lambda d: d["x"].abs(), draws), first)


def test_chunks_do_not_change_the_result():
    x = torch.arange(50.0)
    whole = DrawMapper("m")(lambda v: {"a": v * 2, "b": v.expand(3)}, x)
    small = DrawMapper("m", bytes_per_draw=10**9)
    assert small.chunk == 1
    for name, value in small(lambda v: {"a": v * 2, "b": v.expand(3)}, x).items():
        assert torch.equal(value, whole[name])
    assert whole["b"].shape == (50, 3)


def test_errors_of_the_function_pass_through():
    def fails(_):
        raise OptionError("no")

    with pytest.raises(OptionError, match="no"):
        DrawMapper("m")(fails, torch.ones(2))
    with pytest.raises(VitoolsError, match="at least one draw"):
        DrawMapper("m")(lambda v: v, torch.ones(0))


def test_a_failed_vmap_uses_up_no_randomness():
    def noisy(v):
        noise = torch.rand(())
        return noise if v > 0 else -noise  # vmap fails only here

    mapper = DrawMapper(None)
    results = []
    for _ in range(2):
        with seeded(0):
            results.append(mapper(noisy, torch.ones(5), randomness="different"))
    assert torch.equal(results[0], results[1])


def test_sample_dims_are_broadcast_and_flattened():
    values = {"a": torch.arange(6.0).reshape(3, 1, 2), "b": torch.arange(4.0)}
    flat, shape = split_draws(values, {"a": 1, "b": 0})
    assert shape == (3, 4)
    assert flat["a"].shape == (12, 2)
    assert torch.equal(flat["b"], torch.arange(4.0).repeat(3))
    assert torch.equal(flat["a"][4], values["a"][1, 0])
