"""Convolutional and other networks of a VAE, against scipy's correlation and plain matrices."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d
from torch import nn

from vitools import Problem, svi
from vitools.errors import OptionError
from vitools.isolation import seeded
from vitools.models.vae import VAE
from vitools.models.vae.networks.layers import Networks, convolutional, multilayer_perceptron


def generator():
    return torch.Generator().manual_seed(4)


def silu(values):
    return values / (1 + np.exp(-values))


def test_a_convolutional_encoder_correlates_its_kernels_with_the_image():
    network = convolutional(4, 6).encoder(24, 3, (2,), generator()).double()
    convolution, linear = network.network[1], network.network[-1]
    image = np.random.default_rng(0).normal(size=(4, 6))
    kernels = convolution.weight.detach().numpy()[:, 0]
    maps = [silu(correlate2d(np.pad(image, 1), kernel, "valid")[::2, ::2]) for kernel in kernels]
    expected = linear.weight.detach().numpy() @ np.concatenate([m.ravel() for m in maps])
    found = network(torch.from_numpy(image.ravel()))
    assert found.shape == (3,)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-12)


def test_a_convolutional_decoder_writes_its_kernels_into_the_image():
    network = convolutional(4, 4).decoder(2, 32, (3,), generator()).double()  # two outputs a pixel
    linear, convolution = network.network[0], network.network[-2]
    latents = np.array([0.4, -1.2])
    small = silu(linear.weight.detach().numpy() @ latents).reshape(3, 2, 2)
    canvas = np.zeros((2, 6, 6))  # the image, and the border that padding cuts off
    for channel, i, j in np.ndindex(3, 2, 2):
        kernel = convolution.weight.detach().numpy()[channel]
        canvas[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += small[channel, i, j] * kernel
    expected = canvas[:, 1:5, 1:5].transpose(1, 2, 0).ravel()
    found = network(torch.from_numpy(latents)).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "categorical"])
def test_convolutional_vaes_take_any_leading_dims(likelihood):
    vae = VAE(64, 3, (4, 6), network="convolutional", likelihood=likelihood).double()
    images, latents = vae.simulate(10, seed=0)
    assert images.shape == (10, 64)
    folded = vae.decoder(latents.reshape(2, 5, 3)).mean
    torch.testing.assert_close(folded.reshape(10, 64), vae.decode(latents))
    torch.testing.assert_close(
        vae.encoder(images.reshape(2, 5, 64)).mean.reshape(10, 3), vae.encoder(images).mean
    )
    with seeded(0):
        assert vae.log_weights(images, num_samples=7).total.shape == (7, 10)


def test_weights_follow_the_seed_and_leave_torchs_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (VAE(16, 2, (3,), network="convolutional", seed=s) for s in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
        if name.endswith("weight"):
            assert not torch.equal(weight, other.state_dict()[name])
            area = weight[0, 0].numel()
            assert weight.abs().max() <= math.sqrt(6 / (sum(weight.shape[:2]) * area))


def test_the_engine_trains_a_convolutional_vae():
    vae = VAE(16, 2, (4,), network="convolutional")
    stripes = torch.zeros(2, 4, 4)
    stripes[0, ::2], stripes[1, :, ::2] = 1.0, 1.0
    images = stripes.flatten(1).repeat(20, 1)
    with seeded(0):
        before = vae.log_weights(images, num_samples=50).elbo.mean(0)
    svi(Problem(vae.model, images), vae.guide, max_steps=150, learning_rate=0.02, compile=False)
    with seeded(0):
        after = vae.log_weights(images, num_samples=50).elbo.mean(0)
    assert before.mean() < -10.0  # about 16 log 2
    assert after.mean() > -3.0  # log 2 for the kind of stripe, where nothing else is left to know


def test_networks_of_ones_own():
    def skipping(num_inputs, num_outputs, hidden, generator):
        layers = [nn.LayerNorm(num_inputs, dtype=torch.float64)]
        linear = multilayer_perceptron(num_inputs, num_outputs, hidden, generator)
        return nn.Sequential(*layers, linear)

    own = Networks(encoder=skipping, decoder=multilayer_perceptron)
    vae = VAE(6, 2, (3,), network=own).double()
    images, _ = vae.simulate(5, seed=0)
    assert vae.encode(images).shape == (5, 2)
    with seeded(0):
        fit = svi(Problem(vae.model, images), vae.guide, max_steps=20, compile=False)
    assert "encoder.network.0.weight" in fit.params["params"]


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(OptionError, match="network: 12 pixels are no square; give network="):
        VAE(12, 2, (3,), network="convolutional")
    with pytest.raises(OptionError, match=r"2 convolutional layers.*got 36 pixels as 6 × 6"):
        VAE(36, 2, (3, 4), network="convolutional")
    with pytest.raises(OptionError, match="0 convolutional layers"):
        VAE(36, 2, (), network="convolutional")
    with pytest.raises(OptionError, match="got 36 pixels as 4 × 6"):
        VAE(36, 2, (3,), network=convolutional(4, 6))
    with pytest.raises(OptionError, match=r"network: expected 'mlp'.*'transformer'"):
        VAE(36, 2, (3,), network="transformer")
    assert VAE(24, 2, (3,), network=convolutional(4, 6)).decode(torch.zeros(1, 2)).shape == (1, 24)
