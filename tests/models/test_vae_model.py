"""The VAE as a Pyro model and guide: what it states, how it subsamples, what it refuses."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.optim import Adam

from vitools import Problem, svi
from vitools.errors import DataError, OptionError
from vitools.isolation import seeded
from vitools.models.vae import VAE, elbo_terms


@pytest.fixture(autouse=True)
def _own_param_store():
    with pyro.get_param_store().scope():
        yield


@pytest.fixture
def vae():
    return VAE(num_pixels=6, latent_dim=2, hidden=(5,), seed=1).double()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(3)
    return torch.bernoulli(torch.full((12, 6), 0.4).double(), generator=generator)


def test_model_and_guide_have_the_same_latent_site_in_the_same_plate(vae, images):
    with seeded(0):
        guide = poutine.trace(vae.guide).get_trace(images)
    model = poutine.trace(poutine.replay(vae.model, guide)).get_trace(images)
    model.compute_log_prob()
    assert model.nodes["z"]["fn"].batch_shape == guide.nodes["z"]["fn"].batch_shape == (12,)
    assert model.nodes["z"]["fn"].event_shape == guide.nodes["z"]["fn"].event_shape == (2,)
    assert model.nodes["x"]["is_observed"]
    assert model.nodes["x"]["log_prob"].shape == (12,)


def test_log_joint_is_the_bernoulli_formula(vae, images):
    latents = torch.linspace(-2, 2, 24, dtype=torch.float64).reshape(12, 2)
    trace = poutine.trace(poutine.condition(vae.model, {"z": latents})).get_trace(images)
    first, _, second = vae.decoder.network
    logits = torch.tanh(latents @ first.weight.T + first.bias) @ second.weight.T + second.bias
    probability = 1 / (1 + torch.exp(-logits))
    by_hand = (
        (images * probability.log() + (1 - images) * (1 - probability).log()).sum()
        - 0.5 * latents.square().sum()
        - 12 * math.log(2 * math.pi)
    )
    torch.testing.assert_close(trace.log_prob_sum(), by_hand, rtol=1e-12, atol=0)


def test_mean_field_elbo_of_pyro_agrees_with_elbo_terms(vae, images):
    objective = TraceMeanField_ELBO()
    with seeded(0):
        losses = [objective.loss(vae.model, vae.guide, images) for _ in range(400)]
    pyro_elbo = -torch.tensor(losses, dtype=torch.float64)
    ours = elbo_terms(vae, images, num_samples=400, seed=9)
    standard_error = math.hypot(
        pyro_elbo.std().item() / math.sqrt(400), ours.standard_error.square().sum().sqrt().item()
    )
    assert abs(pyro_elbo.mean() - ours.elbo.sum()).item() < 4 * standard_error
    # The KL is exact in both, so with q all but a point nothing random is left to differ.
    with torch.no_grad():
        vae.encoder.network[-1].bias[2:] = -25.0
        vae.encoder.network[-1].weight[2:] = 0.0
    with seeded(0):
        loss = objective.loss(vae.model, vae.guide, images)
    torch.testing.assert_close(-loss, elbo_terms(vae, images).elbo.sum().item(), rtol=1e-9, atol=0)


def test_minibatch_elbos_of_a_partition_average_to_the_full_elbo(vae, images):
    latents = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(12, 2)

    def elbo(index):
        values = {"images": index, "z": latents[index]}
        size = None if len(index) == 12 else len(index)
        traces = [
            poutine.trace(poutine.condition(program, values)).get_trace(images, size)
            for program in (vae.model, vae.guide)
        ]
        return traces[0].log_prob_sum() - traces[1].log_prob_sum()

    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    parts = torch.stack([elbo(index) for index in order.split(4)])
    assert parts.std() > 0.1
    torch.testing.assert_close(parts.mean(), elbo(torch.arange(12)), rtol=1e-12, atol=0)


def test_model_sees_the_minibatch_that_the_guide_drew(vae, images):
    with seeded(0):
        guide = poutine.trace(vae.guide).get_trace(images, batch_size=4)
        model = poutine.trace(poutine.replay(vae.model, guide)).get_trace(images, batch_size=4)
    index = guide.nodes["images"]["value"]
    assert len(index.unique()) == 4
    assert torch.equal(model.nodes["x"]["value"], images[index])
    assert model.nodes["x"]["scale"] == guide.nodes["z"]["scale"] == 3


def test_vectorised_particles_give_the_same_elbo_as_a_loop(vae, images):
    num_particles = 500
    with seeded(0):
        vectorised = -Trace_ELBO(num_particles, max_plate_nesting=1, vectorize_particles=True).loss(
            vae.model, vae.guide, images
        )
        single = [-Trace_ELBO().loss(vae.model, vae.guide, images) for _ in range(num_particles)]
    draws = torch.tensor(single, dtype=torch.float64)
    standard_error = draws.std().item() * math.sqrt(2 / num_particles)
    assert abs(vectorised - draws.mean().item()) < 4 * standard_error


def test_plain_svi_trains_the_modules_own_weights(vae, images):
    before = elbo_terms(vae, images).elbo.sum()
    with seeded(0):
        svi = SVI(vae.model, vae.guide, Adam({"lr": 0.01}), TraceMeanField_ELBO())
        for _ in range(150):
            svi.step(images, batch_size=6)
    after = elbo_terms(vae, images)
    assert after.elbo.sum() - before > 4 * after.standard_error.square().sum().sqrt() + 1
    stored = pyro.get_param_store()
    assert len(stored) == sum(1 for _ in vae.parameters())
    assert stored["decoder.network.0.weight"] is vae.decoder.network[0].weight


def test_the_svi_engine_trains_the_modules_own_weights(vae, images):
    problem = Problem(vae.model, images, batch_size=6)
    assert problem.latents["z"].plates == ("images",)
    before = elbo_terms(vae, images).elbo.sum()
    fit = svi(problem, vae.guide, max_steps=300)
    after = elbo_terms(vae, images)
    assert after.elbo.sum() - before > 4 * after.standard_error.square().sum().sqrt() + 1
    bound = fit.elbo(num_samples=400, seed=0)
    assert abs(bound.value - after.elbo.sum()) < 4 * math.hypot(
        bound.standard_error, after.standard_error.square().sum().sqrt()
    )


def test_values_put_in_the_place_of_weights_reach_the_networks(vae, images):
    bias = torch.full((6,), 0.7, dtype=torch.float64, requires_grad=True)
    weight = torch.zeros(6, 5, dtype=torch.float64)
    values = {"decoder.network.2.bias": bias, "decoder.network.2.weight": weight}
    with seeded(0):
        trace = poutine.trace(poutine.substitute(vae.model, values)).get_trace(images)
    trace.compute_log_prob()
    log_likelihood = trace.nodes["x"]["log_prob"].sum()
    probability = 1 / (1 + math.exp(-0.7))
    expected = images.sum() * math.log(probability) + (1 - images).sum() * math.log1p(-probability)
    torch.testing.assert_close(log_likelihood, expected, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(log_likelihood, bias)
    torch.testing.assert_close(gradient, (images - probability).sum(0))


def test_starting_weights_follow_the_seed_and_leave_torchs_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (VAE(8, 2, (4,), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
        if name.endswith("weight"):
            assert weight.abs().max() <= math.sqrt(6 / sum(weight.shape))
            assert not torch.equal(weight, other.state_dict()[name])


def test_simulated_images_follow_the_decoder():
    vae = VAE(num_pixels=5, latent_dim=2, hidden=(4,), seed=2).double()
    state = torch.get_rng_state()
    images, latents = vae.simulate(20_000, seed=4)
    assert torch.equal(state, torch.get_rng_state())
    residual = images - vae.decode(latents)
    assert (residual.mean(0).abs() < 4 * residual.std(0) / math.sqrt(20_000)).all()
    assert (latents.mean(0).abs() < 4 / math.sqrt(20_000)).all()
    assert torch.equal(images, vae.simulate(20_000, seed=4).images)


@pytest.mark.parametrize("program", ["model", "guide", "check"])
def test_images_of_a_wrong_shape_dtype_or_value_are_refused(vae, images, program):
    run = getattr(vae, program)
    with pytest.raises(DataError, match=r"\[num_images, 6\].*\[12, 2, 3\].*flatten"):
        run(images.reshape(12, 2, 3))
    with pytest.raises(DataError, match=r"\[num_images, 6\].*\[12, 5\]"):
        run(images[:, :5])
    with pytest.raises(DataError, match="ndarray"):
        run(images.numpy())
    with pytest.raises(DataError, match=r"torch\.float32 where the weights are torch\.float64"):
        run(images.float())
    for wrong in (0.3, 2.0, -1.0, math.nan):
        bad = images.clone()
        bad[7, 2] = wrong
        with pytest.raises(DataError, match=f"pixels 0 or 1, got {wrong:g}.*binarise"):
            run(bad)


def test_gaussian_images_must_be_finite(images):
    vae = VAE(6, 2, (5,), likelihood="gaussian").double()
    vae.check(images - 0.3)
    with pytest.raises(DataError, match="finite pixels, got inf"):
        vae.check(images.index_fill(0, torch.tensor(4), math.inf))


def test_impossible_options_are_refused(vae, images):
    with pytest.raises(OptionError, match=r"latent_dim: .*at least 1"):
        VAE(6, 0)
    with pytest.raises(OptionError, match=r"hidden: .*\(5, 0\)"):
        VAE(6, 2, (5, 0))
    with pytest.raises(OptionError, match=r"likelihood: .*'poisson'"):
        VAE(6, 2, likelihood="poisson")
    for size in (0, 13):
        with pytest.raises(OptionError, match=f"batch_size: expected 1 to 12.*got {size}"):
            vae.guide(images, size)
