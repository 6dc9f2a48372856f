"""The conditional VAE against a linear one whose likelihood given c is known exactly."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from torch.distributions import MultivariateNormal

from vitools import Problem, svi
from vitools.errors import DataError, OptionError
from vitools.isolation import seeded
from vitools.models.conditional_vae import ConditionalVAE, example, indicators
from vitools.models.vae import elbo_terms, importance_weighted_log_likelihood


@pytest.fixture(autouse=True)
def _own_param_store():
    with pyro.get_param_store().scope():
        yield


@pytest.fixture
def cvae():
    return ConditionalVAE(6, condition_dim=3, latent_dim=2, hidden=(5,), seed=1).double()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(3)
    return torch.bernoulli(torch.full((12, 6), 0.4).double(), generator=generator)


@pytest.fixture
def conditions():
    return torch.randn(12, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def test_log_joint_is_the_bernoulli_formula(cvae, images, conditions):
    latents = torch.linspace(-2, 2, 24, dtype=torch.float64).reshape(12, 2)
    conditioned = poutine.condition(cvae.model, {"z": latents})
    trace = poutine.trace(conditioned).get_trace(images, conditions)
    first, _, second = cvae.decoder.network
    from_latents, from_conditions = first.weight.split([2, 3], dim=1)
    hidden = torch.tanh(latents @ from_latents.T + conditions @ from_conditions.T + first.bias)
    logits = hidden @ second.weight.T + second.bias
    by_hand = (
        (images * logits - torch.nn.functional.softplus(logits)).sum()
        - 0.5 * latents.square().sum()
        - 12 * math.log(2 * math.pi)
    )
    torch.testing.assert_close(trace.log_prob_sum(), by_hand, rtol=1e-12, atol=0)


def test_a_linear_one_has_the_exact_likelihood_given_the_conditions():
    """x = W z + A c + b + noise: with the exact posterior every draw weighs log p(x | c)."""
    generator = torch.Generator().manual_seed(0)
    loadings, slopes, noise = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((4,), (4, 2), (4,))
    )
    noise = noise.exp()
    cvae = ConditionalVAE(4, 2, latent_dim=1, hidden=(), likelihood="gaussian").double()
    precision = 1 + (loadings**2 / noise).sum()
    gain = loadings / noise / precision
    with torch.no_grad():
        cvae.decoder.network[0].weight[:] = torch.cat([loadings[:, None], slopes], 1)
        cvae.decoder.network[0].bias[:] = 0.5
        cvae.decoder.log_noise_sd[:] = 0.5 * noise.log()
        encoder = cvae.encoder.network[0]
        encoder.weight[0] = torch.cat([gain, -gain @ slopes])
        encoder.weight[1] = 0
        encoder.bias[:] = torch.stack([-0.5 * gain.sum(), -0.5 * precision.log()])
    images = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    conditions = torch.randn(9, 2, generator=generator, dtype=torch.float64)
    covariance = loadings.outer(loadings) + torch.diag(noise)
    exact = MultivariateNormal(conditions @ slopes.T + 0.5, covariance).log_prob(images)
    bound = importance_weighted_log_likelihood(cvae, images, conditions, num_samples=3)
    torch.testing.assert_close(bound.value, exact, rtol=1e-10, atol=1e-10)
    assert bound.standard_error.max() < 1e-8
    with seeded(0):
        wrong = cvae.log_weights(images, conditions.roll(1, 0), num_samples=3).total
    assert (wrong - exact).abs().max() > 0.1


def test_a_minibatch_takes_its_own_conditions(cvae, images, conditions):
    with seeded(0):
        guide = poutine.trace(cvae.guide).get_trace(images, conditions, batch_size=4)
        replayed = poutine.replay(cvae.model, guide)
        model = poutine.trace(replayed).get_trace(images, conditions, batch_size=4)
    index = guide.nodes["images"]["value"]
    assert len(index.unique()) == 4
    assert model.nodes["x"]["scale"] == guide.nodes["z"]["scale"] == 3
    q = cvae.encoder(torch.cat([images[index], conditions[index]], 1))
    torch.testing.assert_close(guide.nodes["z"]["fn"].mean, q.mean)
    p = cvae.decoder(torch.cat([guide.nodes["z"]["value"], conditions[index]], 1))
    torch.testing.assert_close(model.nodes["x"]["fn"].mean, p.mean)


def test_images_are_made_under_other_conditions(cvae, images, conditions):
    other = conditions.flip(0)
    latents = cvae.encode(images, conditions)
    made = cvae.reconstruct(images, conditions, instead=other)
    torch.testing.assert_close(made, cvae.decode(latents, other))
    grid = cvae.decode(latents[:, None], conditions[None, :4])  # every image in every condition
    assert grid.shape == (12, 4, 6)
    torch.testing.assert_close(grid[3, 2], cvae.decode(latents[3], conditions[2]))


def test_simulated_images_follow_their_conditions():
    cvae = ConditionalVAE(4, 2, latent_dim=1, hidden=(), seed=0).double()
    conditions = indicators(torch.arange(2).repeat_interleave(20_000), 2).double()
    images = cvae.simulate(conditions, seed=0).images
    draws = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(1)).double()
    for i in range(2):
        expected = cvae.decode(draws, indicators(torch.tensor([i]), 2).double())
        error = (0.25 / 20_000 + expected.var(0) / 200_000).sqrt()
        share = images[20_000 * i : 20_000 * (i + 1)].mean(0)
        assert ((share - expected.mean(0)).abs() < 4.5 * error).all()


def test_svi_trains_it(cvae, images, conditions):
    before = elbo_terms(cvae, images, conditions)
    problem = Problem(cvae.model, images, conditions, batch_size=6)
    assert problem.latents["z"].plates == ("images",)
    svi(problem, cvae.guide, max_steps=100, learning_rate=0.01, compile=False)
    after = elbo_terms(cvae, images, conditions)
    error = after.standard_error.square().sum().sqrt()
    assert after.elbo.sum() - before.elbo.sum() > 4 * error + 1


@pytest.mark.slow
def test_compiled_steps_are_the_recorded_ones():
    histories = []
    for compile in (True, False):
        made = example(0)
        problem = Problem(made.model, *made.args, **made.kwargs)
        fit = svi(problem, made.guide, max_steps=40, learning_rate=1e-3, compile=compile)
        histories.append(torch.tensor(fit.history.elbo))
    torch.testing.assert_close(*histories, rtol=1e-4, atol=0)


def test_bad_input_is_refused(cvae, images, conditions):
    with pytest.raises(OptionError, match="condition_dim=0"):
        ConditionalVAE(6, 0)
    with pytest.raises(DataError, match=r"conditions: expected torch.float64 \[12, 3\], got .*2\]"):
        cvae.model(images, conditions[:, :2])
    with pytest.raises(DataError, match=r"\[12, 3\], got torch.int64 \[12\]; labels become"):
        cvae.guide(images, torch.arange(12))
    with pytest.raises(DataError, match=r"conditions: .* got list"):
        cvae.encode(images, [0])
    with pytest.raises(DataError, match="conditions: expected finite numbers"):
        cvae.encode(images, conditions / 0)
    with pytest.raises(DataError, match="labels: expected classes 0 to 2, got 0 to 3"):
        indicators(torch.arange(4), 3)
