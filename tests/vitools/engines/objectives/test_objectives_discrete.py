"""Gradients through draws without a derivative, against sums over all their values."""

import math
from itertools import product

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_checks import (
    COUNTS,
    DISCRETE,
    START,
    assert_unbiased,
    discrete_guide,
    discrete_model,
    estimates,
    exact_gradient,
    hermite,
    log_normal,
    python_step,
    shifted_bound,
    shifted_model,
)
from pyro.distributions.testing.fakes import NonreparameterizedNormal

from vitools import Problem
from vitools.engines.objectives import Elbo, ImportanceWeighted, ScoreFunction
from vitools.isolation import seeded


def discrete_bound(a, b, c, loc, log_scale):
    """By summing over g and z and quadrature over x."""
    nodes, weights = hermite(40)
    total = 0.0
    for g, *zs in product((0.0, 1.0), repeat=4):
        z = torch.tensor(zs)
        q_g, q_z = torch.sigmoid(a), torch.sigmoid(b + c * g)
        log_q = torch.log(q_g if g else 1 - q_g) + torch.where(z > 0, q_z, 1 - q_z).log().sum()
        p_z = torch.tensor(0.2 + 0.5 * g)
        log_p = math.log(0.3 if g else 0.7) + torch.where(z > 0, p_z, 1 - p_z).log().sum()
        x = loc + 0.3 * g + log_scale.exp() * nodes
        log_q_x = log_normal(x, loc + 0.3 * g, log_scale.exp())
        log_p = log_p + log_normal(x, 0.0, 1.0) + log_normal(torch.tensor(0.9), x + g, 2.0)
        rows = (log_normal(COUNTS, x[:, None] + z + 0.5 * w, 1.0) for w in (0, 1))
        summed = torch.logaddexp(*(r + math.log(m) for r, m in zip(rows, (0.6, 0.4), strict=True)))
        term = (weights * (log_p + summed.sum(-1) - log_q - log_q_x)).sum()
        total = total + log_q.exp() * term
    return total


SCORE_SPECS = [
    ScoreFunction(2),
    pytest.param(ScoreFunction(4, "leave_one_out"), marks=pytest.mark.slow),
    pytest.param(ScoreFunction(2, "none"), marks=pytest.mark.slow),
    pytest.param(ScoreFunction(2, rao_blackwellise=False), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("spec", SCORE_SPECS)
def test_score_function_gradients_with_discrete_draws(spec):
    found = estimates(spec, Problem(discrete_model), discrete_guide, 6000)
    assert_unbiased(found, exact_gradient(discrete_bound, **DISCRETE))


@pytest.mark.slow
def test_score_function_gradients_with_minibatches():
    found = estimates(ScoreFunction(3), Problem(discrete_model, 2), discrete_guide, 6000)
    assert_unbiased(found, exact_gradient(discrete_bound, **DISCRETE))


@pytest.mark.slow
def test_the_running_mean_is_unbiased_and_is_kept():
    spec = ScoreFunction(1, "running_mean")
    step, names, objective = python_step(spec, Problem(discrete_model), discrete_guide)
    assert not objective.is_recordable
    with seeded(1):
        losses, *gradients = (
            torch.stack(c) for c in zip(*(step() for _ in range(300)), strict=True)
        )
    found = losses, dict(zip(names, gradients, strict=True))
    assert_unbiased(found, exact_gradient(discrete_bound, **DISCRETE))
    shapes = {name: tuple(value.shape) for name, value in objective.state.items()}
    assert shapes == {"g": (1,), "z": (3,)}


@pytest.mark.slow
def test_score_function_gradients_of_continuous_draws():
    def guide():
        loc = pyro.param("loc", torch.tensor(START["loc"]))
        log_scale = pyro.param("log_scale", torch.tensor(START["log_scale"]))
        pyro.sample("x", NonreparameterizedNormal(loc, log_scale.exp()))

    expected = exact_gradient(shifted_bound(1), **START)
    for spec in (ScoreFunction(3), Elbo(3)):
        assert_unbiased(estimates(spec, Problem(shifted_model), guide, 5000), expected)
    for count in (2, 3):
        found = estimates(ImportanceWeighted(count), Problem(shifted_model), guide, 6000)
        assert_unbiased(found, exact_gradient(shifted_bound(count), **START))
    found = estimates(ImportanceWeighted(2, alpha=0.4), Problem(shifted_model), guide, 6000)
    assert_unbiased(found, exact_gradient(shifted_bound(2, 0.4), **START))


def test_leave_one_out_weights_with_discrete_draws_in_a_plate():
    logits = torch.tensor([[0.1, -0.4, 0.3], [0.0, 0.5, -0.2]], dtype=torch.float64)
    data = torch.tensor([0.2, 1.4], dtype=torch.float64)

    def model():
        with pyro.plate("rows", 2):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.5, 0.3, 0.2])))
            pyro.sample("y", dist.Normal(k.to(data), 0.7), obs=data)

    def guide():
        with pyro.plate("rows", 2):
            pyro.sample("k", dist.Categorical(logits=pyro.param("logits", logits)))

    def bound(logits):
        log_q = logits.log_softmax(-1)
        prior = torch.tensor([0.5, 0.3, 0.2]).log()
        log_w = prior + log_normal(data[:, None], torch.arange(3.0), 0.7) - log_q
        pair = torch.logaddexp(log_w[:, :, None], log_w[:, None]) - math.log(2)
        return ((log_q[:, :, None] + log_q[:, None]).exp() * pair).sum()

    found = estimates(ImportanceWeighted(2), Problem(model), guide, 5000)
    assert_unbiased(found, exact_gradient(bound, logits=logits))
