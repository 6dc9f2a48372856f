"""Discrete trajectories against enumeration."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitools.distributions import CategoricalMarkovChain
from vitools.errors import OptionError

pytestmark = pytest.mark.uses_global_generator


@st.composite
def chains(draw):
    torch.manual_seed(draw(st.integers(0, 2**20)))
    steps, states = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    batch = draw(st.sampled_from([(), (2,)]))
    time = (steps - 1,) if draw(st.booleans()) else ((1,) if batch else ())
    form = draw(st.sampled_from(["probs", "logits"]))
    initial = torch.randn(*batch, states, dtype=torch.float64)
    later = torch.randn(*batch, *time, states, states, dtype=torch.float64)
    if form == "probs":
        initial, later = initial.softmax(-1), later.softmax(-1)
        if draw(st.booleans()):  # states that cannot be left to the right
            later = later.triu()
            later = later / later.sum(-1, keepdim=True)
    return CategoricalMarkovChain(
        num_steps=steps,
        validate_args=True,
        **{f"initial_{form}": initial, f"transition_{form}": later},
    )


@settings(max_examples=60, deadline=None)
@given(chains())
def test_the_probabilities_of_all_trajectories_are_products_and_add_up_to_one(chain):
    every = list(itertools.product(range(chain.num_states), repeat=chain.num_steps))
    initial, later = chain.log_initial().exp(), chain.log_transition().exp()
    total = torch.zeros(chain.batch_shape, dtype=torch.float64)
    for states in every:
        value = torch.tensor(states)
        found = chain.log_prob(value).exp()
        truth = initial[..., states[0]]
        for t, (i, j) in enumerate(itertools.pairwise(states)):
            truth = truth * later[..., t, i, j]
        torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-12)
        total = total + found
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-10, atol=0)
    bigger = chain.expand((3, *chain.batch_shape))
    drawn = bigger.sample((2,))
    assert drawn.shape == (2, 3, *chain.batch_shape, chain.num_steps)
    assert bool(bigger.log_prob(drawn).isfinite().all())


def test_draws_pass_as_often_as_the_table_says():
    stay = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.0, 0.6, 0.4]], dtype=torch.float64)
    chain = CategoricalMarkovChain(torch.tensor([0.2, 0.3, 0.5]).double(), stay, num_steps=100_001)
    torch.manual_seed(0)
    z = chain.sample()
    counts = torch.bincount(z[:-1] * 3 + z[1:], minlength=9).reshape(3, 3).double()
    rows = counts.sum(-1, keepdim=True)
    error = (stay * (1 - stay) / rows).sqrt()
    assert bool(((counts / rows - stay).abs() <= 5 * error).all())


def test_a_state_that_cannot_be_left_has_finite_gradients():
    logit = torch.zeros((), dtype=torch.float64, requires_grad=True)
    stay = torch.sigmoid(logit)
    one, zero = torch.ones_like(stay), torch.zeros_like(stay)
    table = torch.stack([torch.stack([stay, 1 - stay]), torch.stack([zero, one])])
    chain = CategoricalMarkovChain(torch.tensor([1.0, 0.0]).double(), table, num_steps=4)
    log_prob = chain.log_prob(torch.tensor([0, 0, 1, 1]))
    assert math.isclose(float(log_prob.detach()), math.log(0.25))
    (slope,) = torch.autograd.grad(log_prob, logit)
    assert abs(float(slope)) < 1e-12  # d/dl (log s + log(1 - s)) = 1 - 2 s


def test_what_is_missing_or_contradicts_is_told():
    half = torch.tensor([0.5, 0.5])
    with pytest.raises(OptionError, match="K and K × K"):
        CategoricalMarkovChain(half, torch.ones(3, 3) / 3, num_steps=2)
    with pytest.raises(OptionError, match="got both"):
        CategoricalMarkovChain(half, torch.eye(2), initial_logits=half, num_steps=2)
    with pytest.raises(OptionError, match="how many steps"):
        CategoricalMarkovChain(half, torch.eye(2))
