"""The hierarchical VAE against a linear one whose posterior and likelihood are known exactly."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from torch.distributions import MultivariateNormal

from vitools import Problem, svi
from vitools.engines.objectives import ImportanceWeighted
from vitools.errors import DataError, OptionError
from vitools.isolation import seeded
from vitools.models.hierarchical_vae import HierarchicalVAE, example
from vitools.models.vae import VAE, elbo_terms


@pytest.fixture(autouse=True)
def _own_param_store():
    with pyro.get_param_store().scope():
        yield


@pytest.fixture
def vae():
    sizes = {"latent_dims": (3, 2), "hidden": ((5,), (4,))}
    return HierarchicalVAE(num_pixels=6, **sizes, seed=1).double()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(3)
    return torch.bernoulli(torch.full((12, 6), 0.4).double(), generator=generator)


SLOPE, SHIFT, SPREAD = 0.8, 0.3, 0.6  # z₁ | z₂ ~ Normal(SHIFT + SLOPE z₂, SPREAD²)
LOADINGS = torch.tensor([0.7, -0.4, 1.1], dtype=torch.float64)
MEAN = torch.tensor([0.1, 0.2, -0.3], dtype=torch.float64)
NOISE = torch.tensor([0.5, 0.8, 0.3], dtype=torch.float64)


@pytest.fixture
def linear():
    """Normal pixels, z₁ and z₂ one-dimensional, the encoders at the exact posterior."""
    vae = HierarchicalVAE(3, (1, 1), ((), ()), likelihood="gaussian").double()
    above_variance = SLOPE**2 + SPREAD**2  # of z₁
    precision = 1 / above_variance + (LOADINGS / NOISE).square().sum()
    gain = LOADINGS / NOISE**2 / precision
    upper_precision = 1 + SLOPE**2 / SPREAD**2
    upper_gain = SLOPE / SPREAD**2 / upper_precision
    networks = {
        "encoder1": (gain, SHIFT / above_variance / precision - gain @ MEAN, precision**-0.5),
        "encoder2": (torch.tensor([upper_gain]), -upper_gain * SHIFT, upper_precision**-0.5),
        "prior1": (torch.tensor([SLOPE]), SHIFT, SPREAD),
    }
    with torch.no_grad():
        vae.decoder.network[0].weight[:] = LOADINGS[:, None]
        vae.decoder.network[0].bias[:] = MEAN
        vae.decoder.log_noise_sd[:] = NOISE.log()
        for name, (slope, shift, sd) in networks.items():
            layer = getattr(vae, name).network[0]
            layer.weight[0], layer.weight[1] = slope, 0.0
            layer.bias[:] = torch.tensor([shift, math.log(sd)])
    return vae


@pytest.fixture
def linear_images():
    return torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def exact_log_likelihood(images):
    covariance = (SLOPE**2 + SPREAD**2) * LOADINGS.outer(LOADINGS) + torch.diag(NOISE**2)
    return MultivariateNormal(MEAN + SHIFT * LOADINGS, covariance).log_prob(images)


def test_with_the_exact_posterior_every_draw_weighs_the_exact_likelihood(linear, linear_images):
    with seeded(0):
        weights = linear.log_weights(linear_images, num_samples=5)
    expected = exact_log_likelihood(linear_images).expand(5, 7)
    torch.testing.assert_close(weights.total, expected, rtol=1e-10, atol=1e-10)


def test_kls_of_the_layers_sum_to_the_exact_total(linear, linear_images):
    terms = elbo_terms(linear, linear_images, num_samples=2000)
    q1 = linear.encoder1(linear_images)
    mean, variance = q1.mean[:, 0], q1.variance[:, 0]
    # E_q log p(x | z₁) of a linear normal: at the mean, less ½ v Σ w²/ψ.
    residual = linear_images - MEAN - mean[:, None] * LOADINGS
    reconstruction = (
        -0.5 * ((residual / NOISE).square() + (2 * math.pi * NOISE**2).log()).sum(-1)
        - 0.5 * variance * (LOADINGS / NOISE).square().sum()
    )
    total = reconstruction - exact_log_likelihood(linear_images)
    # The top layer alone: KL(Normal(a z₁ + b, s²) ‖ Normal(0, 1)) in expectation over z₁.
    upper = linear.encoder2(mean[:, None])
    gain, sd = SLOPE / (SPREAD**2 + SLOPE**2), upper.stddev[0, 0]
    top = 0.5 * (upper.mean[:, 0] ** 2 + gain**2 * variance + sd**2 - 1 - 2 * sd.log())

    assert list(terms.kls) == ["z2", "z1"]
    with seeded(1):
        weights = linear.log_weights(linear_images, num_samples=2000)
    for exact, kl, draws in (
        (top, terms.kls["z2"], weights.kls["z2"]),
        (total - top, terms.kls["z1"], weights.kls["z1"]),
        (total, terms.kl, sum(weights.kls.values())),
    ):
        error = draws.std(0) / math.sqrt(2000)
        assert ((kl - exact).abs() < 4.5 * error).all()


def test_closed_form_kl_of_the_top_is_the_mean_of_its_log_ratio(vae, images):
    with seeded(0):
        weights = vae.log_weights(images, num_samples=4000)
    difference = weights.kls["z2"] + weights.log_ratios["z2"]  # mean 0 if the form is right
    assert (difference.std(0) > 0.01).all()
    assert (difference.mean(0).abs() < 4.5 * difference.std(0) / math.sqrt(4000)).all()


def test_log_joint_is_the_product_of_its_layers(vae, images):
    z1 = torch.linspace(-2, 2, 36, dtype=torch.float64).reshape(12, 3)
    z2 = torch.linspace(1, -1, 24, dtype=torch.float64).reshape(12, 2)
    at = {"z1": z1, "z2": z2}
    trace = poutine.trace(poutine.condition(vae.model, at)).get_trace(images)
    first, _, second = vae.prior1.network
    mean, log_sd = (torch.tanh(z2 @ first.weight.T + first.bias) @ second.weight.T).chunk(2, -1)
    first, _, second = vae.decoder.network
    logits = torch.tanh(z1 @ first.weight.T + first.bias) @ second.weight.T + second.bias
    by_hand = (
        (images * logits - torch.nn.functional.softplus(logits)).sum()
        - (0.5 * ((z1 - mean) / log_sd.exp()).square() + log_sd).sum()
        - 0.5 * z2.square().sum()
        - 0.5 * math.log(2 * math.pi) * 60
    )
    torch.testing.assert_close(trace.log_prob_sum(), by_hand, rtol=1e-12, atol=0)


def test_one_layer_is_the_vae(images):
    one = HierarchicalVAE(6, (2,), ((5,),), seed=4).double()
    plain = VAE(6, 2, (5,), seed=4).double()
    ours, theirs = (elbo_terms(model, images, num_samples=8, seed=1) for model in (one, plain))
    torch.testing.assert_close(ours.elbo, theirs.elbo, rtol=1e-12, atol=0)


def test_the_two_layer_architecture_of_burda_et_al():
    vae = HierarchicalVAE(784, (100, 50), ((200, 200), (100, 100)))
    shapes = {
        name: [tuple(p.shape)[::-1] for p in getattr(vae, name).parameters() if p.ndim == 2]
        for name in ("encoder1", "encoder2", "prior1", "decoder")
    }
    assert shapes == {
        "encoder1": [(784, 200), (200, 200), (200, 2 * 100)],
        "encoder2": [(100, 100), (100, 100), (100, 2 * 50)],
        "prior1": [(50, 100), (100, 100), (100, 2 * 100)],
        "decoder": [(100, 200), (200, 200), (200, 784)],
    }


def test_simulated_images_have_the_exact_moments(linear):
    drawn = linear.simulate(20_000, seed=0)
    z1, z2 = (latents[:, 0] for latents in drawn.latents)
    variance = SLOPE**2 + SPREAD**2
    n = len(z1)
    assert abs(z1.mean() - SHIFT) < 4 * math.sqrt(variance / n)
    assert abs(z1.var() - variance) < 4 * variance * math.sqrt(2 / n)
    assert abs(z2.var() - 1) < 4 * math.sqrt(2 / n)
    covariance = ((z1 - SHIFT) * z2).mean() - SLOPE
    assert abs(covariance) < 4 * math.sqrt((variance + SLOPE**2) / n)
    expected = variance * LOADINGS.outer(LOADINGS) + torch.diag(NOISE**2)
    worst = expected.diagonal().max().item() * math.sqrt(2 / n)
    assert (drawn.images.mT.cov() - expected).abs().max() < 5 * worst


def test_decoding_from_the_top_follows_the_means(linear, linear_images):
    z2 = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
    expected = MEAN + (SHIFT + SLOPE * z2) * LOADINGS
    torch.testing.assert_close(linear.decode(z2, layer=2), expected)
    z1 = linear.encoder1(linear_images).mean
    torch.testing.assert_close(linear.reconstruct(linear_images), MEAN + z1 * LOADINGS)
    top = linear.encoder2(z1).mean
    torch.testing.assert_close(
        linear.reconstruct(linear_images, layer=2), MEAN + (SHIFT + SLOPE * top) * LOADINGS
    )


def test_svi_trains_every_network_by_either_bound(vae, images):
    problem = Problem(vae.model, images, batch_size=6)
    assert {name: site.plates for name, site in problem.latents.items()} == {
        "z1": ("images",),
        "z2": ("images",),
    }
    before = elbo_terms(vae, images)
    start = {name: p.detach().clone() for name, p in vae.named_parameters()}
    svi(problem, vae.guide, max_steps=100, learning_rate=0.01, compile=False)
    after = elbo_terms(vae, images)
    error = after.standard_error.square().sum().sqrt()
    assert after.elbo.sum() - before.elbo.sum() > 4 * error + 1
    assert all(not torch.equal(p, start[name]) for name, p in vae.named_parameters())
    objective = ImportanceWeighted(5)
    options = {"max_steps": 20, "learning_rate": 0.01, "compile": False}
    fit = svi(problem, vae.guide, objective=objective, **options)
    assert all(math.isfinite(bound) for bound in fit.history.elbo)


@pytest.mark.slow
def test_compiled_steps_are_the_recorded_ones():
    histories = []
    for compile in (True, False):
        made = example(0)
        problem = Problem(made.model, *made.args, **made.kwargs)
        fit = svi(problem, made.guide, max_steps=40, learning_rate=1e-3, compile=compile)
        histories.append(torch.tensor(fit.history.elbo))
    torch.testing.assert_close(*histories, rtol=1e-4, atol=0)


def test_bad_input_is_refused(vae, images):
    with pytest.raises(OptionError, match="hidden sizes for each stochastic layer"):
        HierarchicalVAE(6, (3, 2), ((5,),))
    with pytest.raises(OptionError, match="sizes of at least 1"):
        HierarchicalVAE(6, (3, 0), ((5,), (4,)))
    with pytest.raises(OptionError, match="likelihood: expected one of"):
        HierarchicalVAE(6, likelihood="poisson")
    with pytest.raises(DataError, match=r"shape \[12, 5\]"):
        vae.model(images[:, :5])
    with pytest.raises(OptionError, match="layer: expected 1 to 2, got 3"):
        vae.reconstruct(images, layer=3)
