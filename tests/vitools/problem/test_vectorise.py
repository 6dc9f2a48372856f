"""Mapping a function over draws: vmap, loop, chunks, and how sample dims are flattened."""

import warnings

import pyro.distributions as dist
import pytest
import torch
from pyro.ops import special

from vitools.errors import OptionError, VitoolsError, VitoolsWarning
from vitools.isolation import seeded
from vitools.problem.density.vectorise import DrawMapper, split_draws


def branch(draw):
    return draw["x"] if draw["x"] > 0 else -draw["x"]


def test_vmap_and_loop_agree_and_the_loop_is_announced_once():
    draws = {"x": torch.tensor([1.0, -2.0, 3.0])}
    mapper = DrawMapper("model 'm'")
    with pytest.warns(VitoolsWarning, match=r"model 'm' .*same numbers\): it branches"):
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


def test_hidden_markov_models_are_vectorised_and_their_gradients_are_pyros():
    y = torch.linspace(-1.0, 2.0, 7).double()

    def log_prob(logits):
        states = dist.DiscreteHMM(logits[0], logits[1:], dist.Normal(torch.arange(2.0).double(), 1))
        return states.log_prob(y)

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, 2, generator=generator).double().log_softmax(-1)
    logits[0, 1, 0] = -torch.inf  # a transition that cannot happen: the gradient stays finite
    mapped, looped = (logits.clone().requires_grad_() for _ in range(2))
    mapper = DrawMapper("m")
    found, expected = mapper(log_prob, mapped), torch.stack([log_prob(x) for x in looped])
    assert mapper.can_vmap
    torch.testing.assert_close(found, expected)
    gradients = [
        torch.autograd.grad(v.sum(), x)[0] for v, x in ((found, mapped), (expected, looped))
    ]
    torch.testing.assert_close(*gradients)
    assert special.safe_log(torch.ones(1)).item() == 0.0
    assert special._SafeLog.__module__ == "pyro.ops.special"


def test_multinomials_are_mapped_with_the_numbers_and_gradients_of_torch():
    counts = torch.tensor([3.0, 0.0, 5.0])
    shares = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.0, 0.5]], requires_grad=True)

    def log_prob(probs):
        return dist.Multinomial(8, probs, validate_args=False).log_prob(counts)

    mapper = DrawMapper("m")  # a warning would fail the test
    found = mapper(log_prob, shares)
    expected = torch.stack([log_prob(probs) for probs in shares])
    assert torch.equal(found, expected)
    slopes = [torch.autograd.grad(v.sum(), shares, retain_graph=True)[0] for v in (found, expected)]
    assert torch.allclose(*slopes)
    assert dist.Multinomial.log_prob is torch.distributions.Multinomial.log_prob
