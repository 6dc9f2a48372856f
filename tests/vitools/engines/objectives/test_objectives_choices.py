"""Objectives as graphs of many draws, bounds of many weights, and choices that are refused."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_checks import (
    DATA,
    START,
    discrete_guide,
    discrete_model,
    estimates,
    hermite,
    normal_guide,
    recorded_step,
    shifted_log_weight,
    shifted_model,
)

from vitools import Problem, svi
from vitools.engines.objectives import Elbo, ImportanceWeighted, ScoreFunction
from vitools.errors import NotSupportedError, OptionError
from vitools.guides import AutoDirichlet, AutoMeanField
from vitools.isolation import isolated, seeded


def simplex_model():
    p = pyro.sample("p", dist.Dirichlet(torch.tensor([1.5, 1.0, 2.0])))
    with pyro.plate("rows", 3):
        k = pyro.sample("k", dist.Categorical(p))
        pyro.sample("y", dist.Normal(k.to(DATA), 1.0), obs=DATA)


def plain_dirichlet_guide():
    """torch's Dirichlet, whose gradient vmap cannot follow."""
    alpha = pyro.param("alpha", torch.tensor([1.0, 2.0, 3.0]))
    pyro.sample("p", dist.Dirichlet(alpha))


@pytest.mark.parametrize("spec", [Elbo(3), ImportanceWeighted(3), Elbo(1, "sticking_the_landing")])
def test_a_loop_over_draws_stands_in_for_vmap(spec):
    step, _ = recorded_step(spec, Problem(simplex_model), plain_dirichlet_guide)
    with seeded(0):
        loss, gradient = step()
    assert bool(torch.isfinite(loss))
    assert float(gradient.abs().min()) > 0


def test_the_graph_of_many_draws_is_no_longer_than_that_of_few():
    problem = Problem(simplex_model)
    sizes = [
        len(
            recorded_step(ImportanceWeighted(k), problem, AutoDirichlet(problem.model))[
                0
            ].graph.nodes
        )
        for k in (2, 64)
    ]
    assert sizes[0] == sizes[1]


def test_one_importance_weight_is_the_elbo():
    problem = Problem(shifted_model)
    steps = [
        recorded_step(spec, problem, normal_guide)[0] for spec in (ImportanceWeighted(1), Elbo())
    ]
    outcomes = []
    for step in steps:
        with seeded(0):
            outcomes.append(step())
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


@pytest.mark.slow
def test_many_weights_reach_the_evidence():
    """log p(x) of the discrete model's evidence is bounded ever more tightly."""
    problem = Problem(shifted_model)
    values = []
    for count in (1, 8, 64):
        losses, _ = estimates(ImportanceWeighted(count), problem, normal_guide, 2000)
        values.append((-float(losses.mean()), float(losses.std()) / math.sqrt(2000)))
    nodes, weights = hermite(120)
    log_w = shifted_log_weight(nodes, *(torch.tensor(v) for v in START.values()))
    evidence = float((log_w + weights.log()).logsumexp(0))
    (one, e1), (eight, e8), (many, e64) = values
    assert one + 4 * e1 < eight - 4 * e8
    assert eight + 4 * e8 < many - 4 * e64
    assert many < evidence + 4 * e64
    assert many > evidence - 0.05


def test_a_fit_with_a_guide_that_draws_discrete_latents():
    def model():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 3):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("y", dist.Normal(x + 4 * z, 0.5), obs=torch.tensor([0.1, 4.2, 0.3]))

    def guide():
        loc = pyro.param("loc", torch.tensor(1.0))
        scale = pyro.param("log_scale", torch.tensor(-1.0)).exp()
        pyro.sample("x", dist.Normal(loc, scale))
        with pyro.plate("rows", 3):
            pyro.sample("z", dist.Bernoulli(logits=pyro.param("logits", torch.zeros(3))))

    fit = svi(Problem(model), guide, num_particles=4, max_steps=1500)
    # z is unmistakable, so that x has the posterior of a normal mean: precision 1 + 3/0.25
    assert float(fit.mean()["x"]) == pytest.approx(0.6 / 0.25 / 13, abs=0.1)
    logits = fit.params["params"]["logits"].detach()
    assert bool(((logits > 2) == torch.tensor([False, True, False])).all())
    assert bool(((logits < -2) == torch.tensor([True, False, True])).all())


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        (ImportanceWeighted(5, "sticking_the_landing"), NotSupportedError, "biased"),
        (ImportanceWeighted(5, "best"), OptionError, "got 'best'"),
        (ImportanceWeighted(5, alpha=1.0), OptionError, "0 ≤ alpha < 1, got 1.0"),
        (ImportanceWeighted(0), OptionError, "num_particles ≥ 1"),
        (ImportanceWeighted(5, "pathwise"), NotSupportedError, "at 'g', 'z'"),
        (Elbo(gradient="sticking_the_landing"), NotSupportedError, "at 'g', 'z'"),
        (
            Elbo(gradient="sticking_the_landing", analytic_kl=True),
            NotSupportedError,
            "one of the two",
        ),
        (Elbo(2.0), OptionError, "whole number"),
        (ScoreFunction(1, "leave_one_out"), OptionError, "num_particles ≥ 2"),
        (ScoreFunction(2, "mean"), OptionError, "got 'mean'"),
    ],
)
def test_choices_that_do_not_fit_are_refused(spec, error, words):
    with isolated(), pytest.raises(error, match=words), seeded(0):
        spec(Problem(discrete_model), discrete_guide)


def test_weights_that_have_no_meaning_are_refused():
    def scaled():
        with pyro.poutine.scale(scale=0.5):
            shifted_model()

    def global_latent():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 3, subsample_size=2) as index:
            pyro.sample("y", dist.Normal(x, 1.0), obs=DATA[index])

    for model, words in (
        (scaled, "stands under poutine.scale"),
        (global_latent, "'rows' is a mini"),
    ):
        with isolated(), pytest.raises(NotSupportedError, match=words), seeded(0):
            ImportanceWeighted(4)(Problem(model), AutoMeanField(model))
