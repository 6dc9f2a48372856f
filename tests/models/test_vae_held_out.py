"""A trained VAE on digits it has not seen, against its linear counterparts."""

import math

import pyro
import pytest
import torch
from pyro.infer import SVI, TraceMeanField_ELBO
from pyro.optim import ClippedAdam

from vitools.isolation import seeded
from vitools.models.vae import (
    VAE,
    elbo_terms,
    factor_analysis_log_likelihood,
    importance_weighted_log_likelihood,
    load,
)


def train(vae, images, num_steps, learning_rate=3e-3):
    """Plain Pyro: Adam whose rate falls tenfold over the run, minibatches of 100."""
    with pyro.get_param_store().scope(), seeded(0):
        optimiser = ClippedAdam({"lr": learning_rate, "lrd": 0.1 ** (1 / num_steps)})
        svi = SVI(vae.model, vae.guide, optimiser, TraceMeanField_ELBO())
        for _ in range(num_steps):
            svi.step(images, batch_size=100)


def paired_gain(ours, baseline, monte_carlo_error):
    """Mean gain per image and its standard error, over images and over Monte Carlo draws."""
    gain = (ours - baseline).double()
    standard_error = math.hypot(
        gain.std().item() / math.sqrt(len(gain)),
        monte_carlo_error.double().square().sum().sqrt().item() / len(gain),
    )
    return gain.mean().item(), standard_error


def test_a_short_run_beats_factor_analysis_with_as_many_latents():
    data = load(likelihood="gaussian")
    vae = VAE(64, latent_dim=4, hidden=(64,), likelihood="gaussian")
    train(vae, data.train, num_steps=1000, learning_rate=1e-2)
    terms = elbo_terms(vae, data.held_out)
    baseline = factor_analysis_log_likelihood(data.train, data.held_out, latent_dim=4)
    gain, standard_error = paired_gain(terms.elbo, baseline, terms.standard_error)
    assert gain > 4 * standard_error


@pytest.mark.slow
def test_elbo_beats_factor_analysis_of_every_size():
    data = load(likelihood="gaussian")
    vae = VAE(64, latent_dim=16, hidden=(128,), likelihood="gaussian")
    train(vae, data.train, num_steps=8000, learning_rate=5e-3)
    terms = elbo_terms(vae, data.held_out)
    for latent_dim in (8, 16, 24, 32, 40, 48):
        baseline = factor_analysis_log_likelihood(data.train, data.held_out, latent_dim)
        gain, standard_error = paired_gain(terms.elbo, baseline, terms.standard_error)
        assert gain > 4 * standard_error


@pytest.mark.slow
def test_a_network_decoder_beats_a_linear_one_on_binary_digits():
    data = load()
    bounds = []
    for decoder_hidden in (None, ()):
        vae = VAE(64, latent_dim=8, hidden=(128,), decoder_hidden=decoder_hidden)
        train(vae, data.train, num_steps=8000)
        bounds.append(importance_weighted_log_likelihood(vae, data.held_out))
    ours, linear = bounds
    monte_carlo_error = torch.hypot(ours.standard_error, linear.standard_error)
    gain, standard_error = paired_gain(ours.value, linear.value, monte_carlo_error)
    assert gain > 4 * standard_error
