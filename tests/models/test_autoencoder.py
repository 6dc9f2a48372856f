"""Autoencoders against principal components, Wiener's filter, and a VAE that does generate."""

import math

import pyro
import pytest
import torch

from vitools import Problem, svi
from vitools.errors import DataError, OptionError
from vitools.isolation import seeded
from vitools.models.autoencoder import Autoencoder
from vitools.models.vae import VAE, load


@pytest.fixture(autouse=True)
def _own_param_store():
    with pyro.get_param_store().scope():
        yield


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    return 0.3 * torch.randn(200, 5, generator=generator, dtype=torch.float64) @ mixing


def trained(autoencoder, images, num_steps, **options):
    problem = Problem(autoencoder.model, images, **options)
    svi(problem, autoencoder.guide, max_steps=num_steps, learning_rate=0.01, compile=False)
    return autoencoder


def test_the_linear_one_is_principal_component_analysis(images):
    autoencoder = Autoencoder(5, 2, hidden=(), likelihood="gaussian").double()
    trained(autoencoder, images, 1000)
    error = (images - autoencoder.reconstruct(images)).square().sum()
    least = torch.linalg.svdvals(images - images.mean(0))[2:].square().sum()  # Eckart and Young
    assert least <= error < 1.001 * least


def test_the_bound_is_the_log_likelihood_of_the_images(images):
    autoencoder = Autoencoder(5, 2, hidden=(3,), likelihood="gaussian", seed=2).double()
    with seeded(0):
        weights = autoencoder.log_weights(images, num_samples=1)
    residual = images - autoencoder.reconstruct(images)
    expected = -8 * residual.square().sum(-1) - 2.5 * math.log(2 * math.pi / 16)  # sd ¼
    torch.testing.assert_close(weights.total[0], expected, rtol=1e-10, atol=1e-10)
    assert weights.kls == {}


def test_the_linear_denoising_one_learns_wieners_filter():
    """Of y = x + σ ε the best linear estimate of x is μ + S (S + σ² I)⁻¹ (y - μ)."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[1.0, 0.0], [0.9, 0.3]], dtype=torch.float64)
    images = torch.randn(400, 2, generator=generator, dtype=torch.float64) @ mixing.T
    options = {"corruption": "gaussian", "strength": 0.5, "likelihood": "gaussian"}
    autoencoder = trained(Autoencoder(2, 2, hidden=(), **options).double(), images, 1200)
    mean = images.mean(0)
    covariance = images.mT.cov(correction=0)
    wiener = covariance @ torch.linalg.inv(covariance + 0.25 * torch.eye(2).double())
    seen = images.repeat(50, 1)
    seen = seen + 0.5 * torch.randn(seen.shape, generator=generator, dtype=torch.float64)
    losses = [
        (images.repeat(50, 1) - estimate).square().sum(-1)
        for estimate in (autoencoder.reconstruct(seen), mean + (seen - mean) @ wiener.T, seen)
    ]
    error = (losses[0] - losses[1]).std() / math.sqrt(len(seen))
    assert abs(losses[0].mean() - losses[1].mean()) < 0.01 * losses[1].mean() + 4 * error
    assert losses[0].mean() < 0.8 * losses[2].mean()


@pytest.mark.parametrize(("corruption", "strength"), [("masking", 0.3), ("gaussian", 0.7)])
def test_corruption_has_its_strength(corruption, strength):
    autoencoder = Autoencoder(4, corruption=corruption, strength=strength)
    ones = torch.ones(10_000, 4)
    with seeded(0):
        seen = autoencoder.corrupt(ones)
    n = seen.numel()
    if corruption == "masking":
        assert set(seen.unique().tolist()) == {0.0, 1.0}
        assert abs(seen.mean() - 0.7) < 4 * math.sqrt(0.21 / n)
    else:
        assert abs((seen - 1).mean()) < 4 * 0.7 / math.sqrt(n)
        assert abs((seen - 1).var() - 0.49) < 4 * 0.49 * math.sqrt(2 / n)
    assert Autoencoder(4).corrupt(ones) is ones


def test_codes_fitted_to_images_have_their_moments(images):
    autoencoder = Autoencoder(5, 2, hidden=(3,), likelihood="gaussian").double()
    codes = autoencoder.encode(images)
    drawn = autoencoder.simulate(20_000, seed=0, like=images).latents
    spread = codes.std(0)
    assert ((drawn.mean(0) - codes.mean(0)).abs() < 4 * spread / math.sqrt(20_000)).all()
    tolerance = 5 * spread.outer(spread) * math.sqrt(2 / 20_000)
    assert ((drawn.mT.cov() - codes.mT.cov()).abs() < tolerance).all()


def energy_distance(first, second):
    """2 E|x - y| - E|x - x'| - E|y - y'|, 0 for equal distributions only (Székely and Rizzo)."""

    def own(values):
        return torch.cdist(values, values).sum() / (len(values) * (len(values) - 1))

    return 2 * torch.cdist(first, second).mean() - own(first) - own(second)


@pytest.mark.slow
@pytest.mark.parametrize("corruption", [None, "masking"])
def test_without_a_prior_it_reconstructs_but_does_not_generate(corruption):
    """Its images of codes from Normal(0, I) are far from data; a normal fitted afterwards helps."""
    data = load()
    with_prior = VAE(64, latent_dim=2, hidden=(128,))
    without = Autoencoder(64, 2, corruption=corruption)
    for model in (with_prior, without):
        problem = Problem(model.model, data.train, batch_size=100)
        svi(problem, model.guide, max_steps=1000, learning_rate=3e-3, compile=False)
    errors = [
        (model.reconstruct(data.held_out) - data.held_out).square().sum(1).mean()
        for model in (with_prior, without)
    ]
    assert errors[1] < errors[0]
    near, fitted, standard = (
        torch.stack([energy_distance(images, data.held_out) for images in drawn.split(500)])
        for drawn in (
            with_prior.simulate(5000, seed=0).images,
            without.simulate(5000, seed=0, like=data.train).images,
            without.simulate(5000, seed=0).images,
        )
    )
    error = math.sqrt(near.var() / 10 + standard.var() / 10)
    assert standard.mean() - near.mean() > 10 * error
    assert standard.mean() > 20 * near.mean().abs()
    assert standard.mean() > 5 * fitted.mean()


def test_bad_input_is_refused(images):
    with pytest.raises(OptionError, match="code_dim=0"):
        Autoencoder(4, 0)
    with pytest.raises(OptionError, match="corruption: expected None or one of"):
        Autoencoder(4, corruption="blur")
    with pytest.raises(OptionError, match=r"strength: expected .* got 1"):
        Autoencoder(4, corruption="masking", strength=1)
    with pytest.raises(DataError, match="needs pixels 0 or 1"):
        Autoencoder(5).double().encode(images)
